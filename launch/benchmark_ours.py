"""Our side of the benchmark: what `evaluation.runner` and `training.loop` do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.lora import LoraConfig, train_mask
from antiimit_jax.models.peft import load_adapter
from antiimit_jax.scoring.batching import pack_batches
from antiimit_jax.training.batches import Asking, BatchSource
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.loop import jit_step, training_params
from antiimit_jax.training.step import init_state, make_optimizer
from antiimit_jax.training.terms import make_batch, make_terms
from launch.benchmark_worker import FORMS, SEED, TERMINATORS, Job


class CompileTime:
    """Seconds that XLA has compiled in this process."""

    def __init__(self) -> None:
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._note)

    def _note(self, event: str, seconds: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self.seconds += seconds


_LORA = LoraConfig()


class Evaluation:
    """From token ids to word probabilities, planning and packing included."""

    def __init__(self, job: Job) -> None:
        self._compiling = CompileTime()
        self._lm = load_language_model(job.model, prompt_format=job.prompt_format)
        self._runner = Runner(self._lm)
        self._queries = job.queries

    def run(self) -> list[np.ndarray]:
        """q of every query's words."""
        runner = self._runner
        found = runner.word_probs(runner.base, self._queries, terminators=TERMINATORS)
        return [answer.q for answer in found]

    def facts(self) -> dict[str, Any]:
        """Tokens, padding and compilation so far."""
        planned = pack_batches(self._queries, self._lm.terminators.mask(TERMINATORS))
        used = sum(work.used_tokens for work in planned)
        return {
            "tokens": used,
            "padded_share": 1 - used / sum(work.all_tokens for work in planned),
            "shapes": len(planned),
            "compile_s": self._compiling.seconds,
            "devices": len(self._runner.devices),
        }


class Training:
    """One optimizer step, from a made batch to moved adapters, again and again on one batch.

    The anchor is off: it is a term of its own, which the peers do not have.
    """

    def __init__(self, job: Job, lora: LoraConfig = _LORA) -> None:
        self._compiling = CompileTime()
        cfg = job.train
        lm = load_language_model(job.model, prompt_format=job.prompt_format)
        adapter = jax.tree.map(jnp.array, load_adapter(Path(job.adapter), lm.cfg).tree)
        optimizer = make_optimizer(cfg, cfg.steps, train_mask(adapter, lm.cfg, lora))
        decoder = Decoder(lm.cfg, lora_scale=lora.scale, remat=cfg.remat)
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
        """Tokens, padding and compilation so far."""
        forest = self._batch["control"].packed.forest
        used = int((forest.dense.place >= 0).sum())
        return {
            "tokens": used,
            "padded_share": 1 - used / forest.dense.place.size,
            "shapes": 1,
            "compile_s": self._compiling.seconds,
            "devices": 1,
        }


def asking(lm: LanguageModel) -> Asking:
    """How the words' probabilities are asked for in training."""
    return Asking(
        tokenizer=lm.tokenizer,
        prompt_format=lm.prompt_format,
        forms=FORMS,
        stops=lm.terminators.mask(TERMINATORS),
    )


def batch_source(lm: LanguageModel, cfg: TrainConfig) -> BatchSource:
    """The training batches of the benchmark; step 0 is the one that is timed."""
    return BatchSource(cfg, asking(lm), seed=SEED)
