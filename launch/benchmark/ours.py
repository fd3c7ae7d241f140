"""Our side of the benchmark: what `evaluation.runner` and `training.loop` do."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.lora import LoraConfig, init_adapter, train_mask
from antiimit_jax.models.peft import load_adapter, save_adapter
from antiimit_jax.scoring.batching import pack_batches
from antiimit_jax.training.batches import Asking, BatchSource
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.loop import jit_step, training_params
from antiimit_jax.training.step import init_state, make_optimizer, make_schedule
from antiimit_jax.training.terms import make_batch, make_terms
from launch.benchmark.job import FORMS, OURS, SEED, TERMINATORS, Job, Side

LORA = LoraConfig()
_RATES = 64  # steps that a peer is told the learning rates of


def build(job: Job) -> Side:
    """Our side of a job."""
    return {"evaluate": Evaluation, "train": Training}[job.what](job)


class _Compiling:
    """Seconds that XLA has compiled in this process."""

    def __init__(self) -> None:
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._note)

    def _note(self, event: str, seconds: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self.seconds += seconds

    def facts(self, used: int, computed: int, shapes: int, devices: int) -> dict[str, Any]:
        """Tokens, padding and compilation so far."""
        padded = 1 - used / computed
        own = {"shapes": shapes, "compile_s": self.seconds, "devices": devices}
        return {"tokens": used, "padded_share": padded} | own


class Evaluation:
    """From token ids to word probabilities, packing included."""

    def __init__(self, job: Job) -> None:
        self._compiling = _Compiling()
        self._lm = load_language_model(job.model, prompt_format=job.prompt_format)
        self._runner = Runner(self._lm)
        self._queries = job.queries

    def run(self) -> list[np.ndarray]:
        """q of every query's words."""
        runner = self._runner
        found = runner.word_probs(runner.base, self._queries, terminators=TERMINATORS)
        return [answer.q for answer in found]

    def facts(self) -> dict[str, Any]:
        """Of all runs so far."""
        packed = pack_batches(self._queries, self._lm.terminators.mask(TERMINATORS))
        used = sum(work.used_tokens for work in packed)
        computed = sum(work.all_tokens for work in packed)
        return self._compiling.facts(used, computed, len(packed), len(self._runner.devices))


class Training:
    """One optimizer step, from a made batch to moved adapters, again and again on one batch."""

    def __init__(self, job: Job) -> None:
        self._compiling = _Compiling()
        cfg = job.train
        lm = load_language_model(job.model, prompt_format=job.prompt_format)
        adapter = jax.tree.map(jnp.array, load_adapter(Path(job.adapter), lm.cfg).tree)
        optimizer = make_optimizer(cfg, cfg.steps, train_mask(adapter, lm.cfg, LORA))
        decoder = Decoder(lm.cfg, lora_scale=LORA.scale, remat=cfg.remat)
        terms = make_terms(cfg, asking(lm), seed=SEED)
        self._step = jit_step(decoder, terms, optimizer)
        self._state = init_state(adapter, optimizer)
        self._params = jax.device_put(training_params(lm.params, cfg.dtype))
        self._batch = make_batch(terms, 0)

    def run(self) -> float:
        """One step; the loss before it."""
        state, metrics = self._step(self._state, self._params, self._batch)
        self._state = jax.block_until_ready(state)
        return float(metrics["loss"])

    def facts(self) -> dict[str, Any]:
        """Of all steps so far."""
        places = self._batch["control"].packed.forest.dense.place
        return self._compiling.facts(int((places >= 0).sum()), places.size, 1, 1)


def asking(lm: LanguageModel) -> Asking:
    """How the words' probabilities are asked for in training."""
    return Asking(
        tokenizer=lm.tokenizer,
        prompt_format=lm.prompt_format,
        forms=FORMS,
        stops=lm.terminators.mask(TERMINATORS),
    )


def training_job(lm: LanguageModel, cfg: TrainConfig, model: str, adapter: Path) -> Job:
    """Our job for a training step; writes the adapter that all sides start from."""
    if not adapter.exists():
        tree = jax.tree.map(np.array, init_adapter(jax.random.key(SEED), lm.cfg, LORA))
        save_adapter(adapter, tree, lm.cfg, LORA, "")
    queries, shares = zip(*batch_source(lm, cfg).examples(0))
    schedule = make_schedule(cfg, cfg.steps)
    return Job(
        side=OURS,
        what="train",
        model=model,
        queries=queries,
        shares=shares,
        stops=lm.terminators.mask(TERMINATORS),
        prompt_format=lm.prompt_format,
        train=cfg,
        learning_rates=[float(schedule(step)) for step in range(_RATES)],
        adapter=str(adapter),
    )


def batch_source(lm: LanguageModel, cfg: TrainConfig) -> BatchSource:
    """The training batches of the benchmark; step 0 is the one that is timed."""
    return BatchSource(cfg, asking(lm), seed=SEED)
