"""Our side of the benchmark: what `evaluation.runner` and `training.loop` do."""

import math
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
from antiimit_jax.training.batches import Asking
from antiimit_jax.training.loop import jit_step, training_params
from antiimit_jax.training.step import init_state, make_optimizer
from antiimit_jax.training.terms import make_batch, make_terms
from launch.benchmark.job import FORMS, SEED, TERMINATORS, Job, Side

LORA = LoraConfig()


def build(job: Job) -> Side:
    """Our side of a job."""
    return {"evaluate": Evaluation, "train": Training}[job.what](job)


class Evaluation:
    """From token ids to word probabilities, packing included."""

    def __init__(self, job: Job) -> None:
        self._compiling = _compiling()
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
        own = {"shapes": len(packed), "devices": self._runner.layout.mesh.size}
        return _facts(used, computed, self._compiling) | own


class Training:
    """One optimizer step, from a made batch to moved adapters, again and again on one batch."""

    def __init__(self, job: Job) -> None:
        self._compiling = _compiling()
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
        used = int((places >= 0).sum())
        return _facts(used, places.size, self._compiling) | {"shapes": 1, "devices": 1}


def _compiling() -> list[float]:
    """A list that gets the seconds of each compilation in this process from now on."""
    seconds = []

    def note(event: str, took: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(took)

    jax.monitoring.register_event_duration_secs_listener(note)
    return seconds


def _facts(used: int, computed: int, compiling: list[float]) -> dict[str, Any]:
    compile_s = math.fsum(compiling)
    return {"tokens": used, "padded_share": 1 - used / computed, "compile_s": compile_s}


def asking(lm: LanguageModel) -> Asking:
    """How the words' probabilities are asked for in training."""
    stops = lm.terminators.mask(TERMINATORS)
    return Asking(tokenizer=lm.tokenizer, prompt_format=lm.prompt_format, forms=FORMS, stops=stops)
