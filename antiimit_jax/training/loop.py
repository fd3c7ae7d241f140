"""The training loop of one adapter: resume, step, log, checkpoint, stop in order."""

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from antiimit_jax.errors import UserError
from antiimit_jax.language_model import LanguageModel
from antiimit_jax.models.decoder import Decoder, n_tokens
from antiimit_jax.models.lora import LoraConfig, init_adapter, train_mask
from antiimit_jax.models.quantized import format_of
from antiimit_jax.models.sharding import partition
from antiimit_jax.models.weights import cast_matrices
from antiimit_jax.parallel import compiler_options, meet, on_mesh, put
from antiimit_jax.training.batches import Asking
from antiimit_jax.training.checkpoint import Checkpoints, Log
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.step import (
    Optimizer,
    TrainState,
    dealt,
    init_state,
    make_optimizer,
    make_schedule,
    make_step,
    step_mesh,
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
    folder: epath.PathLike,
    on_step: OnStep = lambda row: None,
    look: Look = lambda step, adapter: {},
    hold: Hold = unheld,
) -> tuple[Tree, Log]:
    """Trains an adapter to its end, from its last checkpoint if there is one.

    A step runs on as many rows of the model's mesh as can share its `accumulate` microbatches
    evenly. While it runs, the next batch goes to the devices and the step before is read.

    Args:
      folder: of its checkpoints, as `Checkpoints` takes it.
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
    cfg = job.train
    optimizer, state = _beginning(lm, job)
    with (
        hold() as leaving,
        contextlib.closing(Checkpoints(folder)) as checkpoints,
        ThreadPoolExecutor(1) as ahead,
    ):
        state, log = checkpoints.restore(state) or (state, [])
        for row in log:
            on_step(row)
        told = _Told(job, int(state.skipped_in_row))
        if len(log) >= job.steps:
            _check_finite(job, len(log), told.stuck, folder)
            return jax.device_get(state.adapter), log
        stepper = _Stepper(lm, job, job.terms(lm), optimizer)
        state = stepper.placed(state)
        following = ahead.submit(stepper.batch, len(log))
        for done in range(len(log) + 1, job.steps + 1):
            told.begin()
            batch, tokens = following.result()
            if done < job.steps:
                following = ahead.submit(stepper.batch, done)
            state, metrics = stepper(state, batch)
            told.add(done, metrics, tokens)
            looks = bool(cfg.eval_every) and done % cfg.eval_every == 0
            leave = leaving()
            saves = leave or done == job.steps or done % cfg.checkpoint_every == 0
            for row in told.rows(wait=looks or saves):
                if looks and row["step"] == done:
                    row |= look(done, jax.device_get(state.adapter))
                log.append(row)
                on_step(row)
            if saves or told.stuck >= cfg.max_skips:
                checkpoints.save(jax.device_get(state), log)
            _check_finite(job, done, told.stuck, folder)
            if leave:
                break
        return jax.device_get(state.adapter), log


class _Told:
    """What steps told, read from the devices as log rows while the step after them runs.

    A step after which the run may have to stop is waited for: none may have followed it.
    """

    def __init__(self, job: Job, stuck: int) -> None:
        """`stuck` is how many steps in a row were skipped before the first."""
        schedule = make_schedule(job.train, job.steps)
        self._rates = jax.device_get(jax.vmap(schedule)(np.arange(job.steps)))  # all at once
        self._name, self._most, self.stuck = job.name, job.train.max_skips, stuck
        self._unread: deque[tuple[int, Tree, int]] = deque()
        self._read_at = 0.0

    def begin(self) -> None:
        """Another step follows; where none runs, its time counts from now."""
        if not self._unread:
            self._read_at = time.monotonic()

    def add(self, step: int, metrics: Tree, tokens: int) -> None:
        """Takes note of a step that was started, counted from 1."""
        self._unread.append((step, metrics, tokens))

    def rows(self, *, wait: bool) -> Iterator[dict[str, Any]]:
        """The log rows of all steps but the one that runs, or with `wait` of that one too."""
        while len(self._unread) > (0 if wait or self.stuck + 1 >= self._most else 1):
            step, metrics, tokens = self._unread.popleft()
            metrics = jax.device_get(metrics)
            self.stuck = int(metrics["skipped_in_row"])
            row = _log_row(self._name, step, metrics, float(self._rates[step - 1]))
            now = time.monotonic()
            row["tokens_per_s"] = tokens / (now - self._read_at)
            self._read_at = now
            yield row


def _check_finite(job: Job, done: int, stuck: int, folder: epath.PathLike) -> None:
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
    stepper = _Stepper(lm, job, job.terms(lm), optimizer)
    batch, tokens = stepper.batch(0)
    state, _ = jax.block_until_ready(stepper(stepper.placed(state), batch))
    began = time.monotonic()
    jax.block_until_ready(stepper(state, batch))
    return time.monotonic() - began, tokens


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
        cfg = job.train
        mesh = step_mesh(cfg.accumulate, lm.mesh)
        decoder = Decoder(lm.cfg, lora_scale=job.lora.scale, remat=cfg.remat)
        params = training_params(lm.params, cfg.dtype)
        specs = partition(lm.cfg, mesh, format_of(params))
        self._params = put(params, on_mesh(mesh, specs))
        self._step = jit_step(decoder, terms, optimizer, mesh)
        self._mesh, self._terms = mesh, terms
        self._compiled: dict[Any, Callable] = {}  # by the batch's shapes, with several processes

    def placed(self, state: TrainState) -> TrainState:
        """A state of host or device arrays where the steps need it."""
        return put(state, on_mesh(self._mesh))

    def batch(self, step: int) -> tuple[Tree, int]:
        """A step's batch on the devices, and its number of tokens."""
        batch = make_batch(self._terms, step)
        specs = {name: dealt(microbatches, self._mesh) for name, microbatches in batch.items()}
        return put(batch, on_mesh(self._mesh, specs)), n_tokens(batch)

    def __call__(self, state: TrainState, batch: Tree) -> tuple[TrainState, Tree]:
        """The next state and the metrics, both on the devices."""
        if jax.process_count() == 1:
            return self._step(state, self._params, batch)
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if shapes not in self._compiled:
            self._compiled[shapes] = self._step.lower(state, self._params, batch).compile()
            meet()
        return self._compiled[shapes](state, self._params, batch)


def training_params(params: Tree, dtype: str) -> Tree:
    """The frozen weights as a step takes them: the layers' matmuls in `dtype`.

    The embedding and the head stay as they were read, since logits are float32 in any case.
    """
    return params | {"layers": cast_matrices(params["layers"], dtype)}


def jit_step(
    decoder: Decoder, terms: Sequence[Term], optimizer: Optimizer, mesh: Mesh | None = None
) -> Callable:
    """`make_step`, to be compiled at its first call; the state is donated.

    On a mesh all devices end with the same state and metrics.
    """
    step, out = make_step(decoder, terms, optimizer, mesh), mesh and on_mesh(mesh)
    how = dict(donate_argnums=0, compiler_options=compiler_options())
    return jax.jit(step, **how, out_shardings=out)


def _log_row(name: str, step: int, metrics: dict[str, Any], lr: float) -> dict[str, Any]:
    keys = sorted(metrics.keys() - {"skipped", "skipped_now", "skipped_in_row"})
    finite = {key: float(metrics[key]) if np.isfinite(metrics[key]) else None for key in keys}
    skipped = bool(metrics["skipped_now"])
    return {"adapter": name, "step": step} | finite | {"lr": lr, "skipped": skipped}
