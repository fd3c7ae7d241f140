"""The training loop of one adapter: resume, step, log, checkpoint, stop in order."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from antiimit_jax.errors import UserError
from antiimit_jax.language_model import LanguageModel
from antiimit_jax.models.decoder import Decoder, n_tokens
from antiimit_jax.models.lora import LoraConfig, init_adapter, train_mask
from antiimit_jax.models.sharding import split_axes
from antiimit_jax.models.weights import cast_matrices
from antiimit_jax.parallel import compiler_options, place, scatter
from antiimit_jax.training.batches import Asking
from antiimit_jax.training.checkpoint import Checkpoints, Log
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.many_devices import deal, n_step_devices, of_one_device, pmap_step
from antiimit_jax.training.step import (
    Optimizer,
    TrainState,
    init_state,
    make_optimizer,
    make_schedule,
    make_step,
)
from antiimit_jax.training.targets import Transform
from antiimit_jax.training.terms import Term, make_batch, make_terms

Tree = Any
OnStep = Callable[[dict[str, Any]], None]
Look = Callable[[int, Tree], dict[str, float]]  # (step, adapter on the host) -> columns of the log
Hold = Callable[[], contextlib.AbstractContextManager[Callable[[], bool]]]
_INIT_STREAM = 21


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One adapter's training."""

    name: str  # of the adapter, in the log and in messages
    train: TrainConfig
    lora: LoraConfig
    steps: int
    transforms: tuple[Transform, ...] = ()  # of the targets: (PLACEBO,) for the placebo
    forms: str = "strict"
    terminators: str = "standard"
    seed: int = 0
    weights: str = "replicated"  # or "sharded": all local devices share them, and all take part

    def check(self, lm: LanguageModel) -> None:
        """Makes the first batch, so that what does not fit is known before hours are spent.

        Raises:
          UserError: the configuration does not fit the model.
        """
        self.lora.check(lm.cfg)
        make_batch(self.terms(lm), 0)

    def terms(self, lm: LanguageModel) -> tuple[Term, ...]:
        """What a step minimises."""
        how = dict(seed=self.seed, transforms=self.transforms)
        return make_terms(self.train, self.asking(lm), **how)

    def asking(self, lm: LanguageModel) -> Asking:
        """How the words' probabilities are asked for."""
        return Asking(
            tokenizer=lm.tokenizer,
            prompt_format=lm.prompt_format,
            forms=self.forms,
            stops=lm.terminators.mask(self.terminators),
        )


def unheld() -> contextlib.AbstractContextManager[Callable[[], bool]]:
    """The `Hold` of a training that goes on to its end."""
    return contextlib.nullcontext(lambda: False)


def train(
    lm: LanguageModel,
    job: Job,
    folder: Path,
    on_step: OnStep = lambda row: None,
    look: Look = lambda step, adapter: {},
    hold: Hold = unheld,
) -> tuple[Tree, Log]:
    """Trains an adapter to its end, from its last checkpoint if there is one.

    A step runs on as many local devices as can share its `accumulate` microbatches evenly.

    Args:
      folder: of its checkpoints.
      on_step: called with the log row of each step, of restored ones too.
      look: measures the adapter after every `eval_every` steps.
      hold: the context that steps run in. What it gives says whether to save and leave after the
        step that runs; then it raises at its end.

    Returns:
      The adapter as host arrays and the log: one row a step with adapter, step, loss, the terms'
      own columns, grad_norm, lr, skipped, tokens_per_s.

    Raises:
      UserError: the configuration does not fit the model, or `max_skips` steps in a row were not
        finite (the state is saved).
    """
    cfg, name = job.train, job.name
    optimizer, state = _beginning(lm, job)
    # The next batch is made ahead, while a step runs.
    with (
        hold() as told,
        contextlib.closing(Checkpoints(folder)) as checkpoints,
        ThreadPoolExecutor(1) as ahead,
    ):
        state, log = checkpoints.restore(state) or (state, [])
        for row in log:
            on_step(row)
        if len(log) >= job.steps:
            _check_finite(job, len(log), int(state.skipped_in_row), folder)
            return jax.device_get(state.adapter), log
        terms = job.terms(lm)
        stepper = _Stepper(lm, job, terms, optimizer)
        state, schedule = stepper.placed(state), make_schedule(cfg, job.steps)
        following = ahead.submit(make_batch, terms, len(log))
        for step in range(len(log), job.steps):
            began = time.monotonic()
            batch = following.result()
            following = ahead.submit(make_batch, terms, step + 1)
            state, metrics, stuck = stepper(state, batch)
            row = _log_row(name, step, metrics, float(schedule(step)))
            row["tokens_per_s"] = n_tokens(batch) / (time.monotonic() - began)
            done = step + 1
            if cfg.eval_every and done % cfg.eval_every == 0:
                row |= look(done, jax.device_get(stepper.held(state).adapter))
            log.append(row)
            on_step(row)
            leave = told()
            stop = leave or stuck >= cfg.max_skips or done == job.steps
            if stop or done % cfg.checkpoint_every == 0:
                checkpoints.save(stepper.held(state), log)
            _check_finite(job, done, stuck, folder)
            if leave:
                break
        return jax.device_get(stepper.held(state).adapter), log


def _check_finite(job: Job, done: int, stuck: int, folder: Path) -> None:
    """Raises UserError where too many steps in a row, or all there are, were not finite."""
    if stuck >= min(job.train.max_skips, max(job.steps, 1)):
        raise UserError(
            f"{job.name}: {stuck} steps in a row had a loss, gradient or adapter that is not "
            f"finite; stopped at step {done}, state saved in {folder}. Lower "
            "train.learning_rate or use train.dtype=float32"
        )


def measure_step(lm: LanguageModel, job: Job) -> tuple[float, int]:
    """Seconds and tokens of a training step here: of the second of two, which nothing keeps."""
    optimizer, state = _beginning(lm, job)
    terms = job.terms(lm)
    stepper, batch = _Stepper(lm, job, terms, optimizer), make_batch(terms, 0)
    state, *_ = stepper(stepper.placed(state), batch)
    began = time.monotonic()
    stepper(state, batch)
    return time.monotonic() - began, n_tokens(batch)


def _beginning(lm: LanguageModel, job: Job) -> tuple[Optimizer, TrainState]:
    job.lora.check(lm.cfg)
    key = jax.random.fold_in(jax.random.key(job.seed), _INIT_STREAM)
    adapter = init_adapter(key, lm.cfg, job.lora)
    optimizer = make_optimizer(job.train, job.steps, train_mask(adapter, lm.cfg, job.lora))
    return optimizer, init_state(adapter, optimizer)


class _Stepper:
    """Steps of a job on as many devices as take part; all transfers are explicit."""

    def __init__(
        self, lm: LanguageModel, job: Job, terms: Sequence[Term], optimizer: Optimizer
    ) -> None:
        cfg, devices = job.train, jax.local_devices()
        devices = devices[: n_step_devices(cfg.accumulate, job.weights, len(devices))]
        shards = len(devices) if job.weights == "sharded" else 1
        self._devices, self._alone = devices, len(devices) == 1
        decoder = Decoder(lm.cfg, lora_scale=job.lora.scale, remat=cfg.remat, shards=shards)
        params = training_params(lm.params, cfg.dtype)
        if self._alone:
            self._step, self._params = jit_step(decoder, terms, optimizer), jax.device_put(params)
        else:
            self._step = pmap_step(decoder, terms, optimizer, devices)
            self._params = place(params, devices, split_axes(lm.cfg, shards))
            if idle := -cfg.accumulate % len(devices):
                logging.info(
                    f"train.accumulate={cfg.accumulate} on {len(devices)} devices that share the "
                    f"weights: {idle} compute nothing that counts in a step's last round; a "
                    f"multiple of {len(devices)} takes no longer"
                )

    def placed(self, state: TrainState) -> TrainState:
        """A state of host or device arrays where the steps need it."""
        return jax.device_put(state) if self._alone else place(state, self._devices)

    def held(self, state: TrainState) -> TrainState:
        """The state that all devices hold alike."""
        return state if self._alone else of_one_device(state)

    def __call__(self, state: TrainState, batch: Tree) -> tuple[TrainState, dict[str, Any], int]:
        """The next state, the metrics, and how many steps in a row were skipped."""
        if self._alone:
            state, metrics = self._step(state, self._params, jax.device_put(batch))
            metrics, stuck = jax.device_get((metrics, state.skipped_in_row))
        else:
            dealt = scatter(deal(batch, len(self._devices)), self._devices)
            state, metrics = self._step(state, self._params, *dealt)
            metrics, stuck = of_one_device((metrics, state.skipped_in_row))
        return state, metrics, int(stuck)


def training_params(params: Tree, dtype: str) -> Tree:
    """The frozen weights as a step takes them: the layers' matmuls in `dtype`.

    The embedding and the head stay as they were read, since logits are float32 in any case.
    """
    return params | {"layers": cast_matrices(params["layers"], dtype)}


def jit_step(decoder: Decoder, terms: Sequence[Term], optimizer: Optimizer) -> Callable:
    """`make_step`, to be compiled at its first call; the state is donated."""
    step = make_step(decoder, terms, optimizer)
    return jax.jit(step, donate_argnums=0, compiler_options=compiler_options())


def _log_row(name: str, step: int, metrics: dict[str, Any], lr: float) -> dict[str, Any]:
    keys = sorted(metrics.keys() - {"skipped", "skipped_now"})
    finite = {key: float(metrics[key]) if np.isfinite(metrics[key]) else None for key in keys}
    skipped = bool(metrics["skipped_now"])
    return {"adapter": name, "step": step + 1} | finite | {"lr": lr, "skipped": skipped}
