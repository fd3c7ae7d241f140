"""The training loop of one adapter: resume, step, log, checkpoint, stop in order."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from antiimit_jax.errors import UserError
from antiimit_jax.language_model import LanguageModel
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.lora import LoraConfig, init_adapter, train_mask
from antiimit_jax.models.sharding import split_axes
from antiimit_jax.models.weights import cast_matrices
from antiimit_jax.parallel import compiler_options, place
from antiimit_jax.training.batches import BatchSource, TrainBatch
from antiimit_jax.training.checkpoint import Checkpoints, Log
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.many_devices import deal, n_step_devices, of_one_device, pmap_step
from antiimit_jax.training.step import init_state, make_optimizer, make_schedule, make_step

Tree = Any
ADAPTERS = ("tuned", "placebo")
_INIT_STREAM = 21


def train(
    lm: LanguageModel,
    name: str,
    cfg: TrainConfig,
    lora: LoraConfig,
    *,
    forms: str,
    terminators: str,
    seed: int,
    folder: Path,
    weights: str = "replicated",
    on_step: Callable[[dict[str, Any]], None] = lambda row: None,
) -> tuple[Tree, Log]:
    """Trains the adapter `name` ("tuned" or "placebo") to its end, from its last checkpoint if any.

    A step runs on as many local devices as can share its `accumulate` microbatches evenly.

    Args:
      folder: of its checkpoints.
      weights: "replicated", or "sharded": all local devices share them, and all take part.
      on_step: called with the log row of each step, of restored ones too.

    Returns:
      The adapter as host arrays and the log: one row a step with adapter, step, loss, kl_fwd,
      residual, anchor_kl, grad_norm, lr, tokens_per_s, skipped.

    Raises:
      UserError: the configuration does not fit the model, or `max_skips` steps in a row were not
        finite (the state is saved).
    """
    lora.check(lm.cfg)
    steps = cfg.steps if name == "tuned" else cfg.placebo_steps
    stops = lm.terminators.mask(terminators)
    adapter = init_adapter(jax.random.fold_in(jax.random.key(seed), _INIT_STREAM), lm.cfg, lora)
    mask = train_mask(adapter, lm.cfg, lora)
    optimizer = make_optimizer(cfg, steps, mask)
    state, log = init_state(adapter, optimizer), []
    checkpoints = Checkpoints(folder)
    if (found := checkpoints.restore(state)) is not None:
        state, log = found
    for row in log:
        on_step(row)
    if len(log) >= steps:
        checkpoints.close()
        return jax.device_get(state.adapter), log

    devices = jax.local_devices()
    devices = devices[: n_step_devices(cfg.accumulate, weights, len(devices))]
    n, shards = len(devices), len(devices) if weights == "sharded" else 1
    decoder = Decoder(lm.cfg, lora_scale=lora.scale, remat=cfg.remat, shards=shards)
    params = training_params(lm.params, cfg.dtype)
    if n == 1:
        step_fn, params = jit_step(decoder, stops, cfg, optimizer), jax.device_put(params)
    else:
        step_fn = pmap_step(decoder, stops, cfg, optimizer, devices)
        params = place(params, devices, split_axes(lm.cfg, shards))
        state = place(state, devices)
        _tell_idle(cfg.accumulate, n)
    held = of_one_device if n > 1 else lambda tree: tree
    source = BatchSource(
        cfg,
        lm.tokenizer,
        stops,
        prompt_format=lm.prompt_format,
        forms=forms,
        seed=seed,
        placebo=name == "placebo",
    )
    schedule = make_schedule(cfg, steps)
    with ThreadPoolExecutor(1) as ahead:  # the next batch is made while this one runs
        start = len(log)
        following = ahead.submit(source, start)
        for step in range(start, steps):
            began = time.monotonic()
            batch = following.result()
            following = ahead.submit(source, step + 1)
            state, metrics = step_fn(state, params, deal(batch, n) if n > 1 else batch)
            row = _log_row(name, step, jax.device_get(held(metrics)), float(schedule(step)))
            row["tokens_per_s"] = _tokens(batch) / (time.monotonic() - began)
            log.append(row)
            on_step(row)
            stuck = int(held(state.skipped_in_row)) >= cfg.max_skips
            if stuck or step + 1 == steps or (step + 1) % cfg.checkpoint_every == 0:
                checkpoints.save(held(state), log)
            if stuck:
                checkpoints.close()
                raise UserError(
                    f"{name}: {cfg.max_skips} steps in a row had a loss or gradient that is not "
                    f"finite; stopped at step {step + 1}, state saved in {folder}. Lower "
                    "train.learning_rate or use train.dtype=float32"
                )
    checkpoints.close()
    return jax.device_get(held(state.adapter)), log


def training_params(params: Tree, dtype: str) -> Tree:
    """The frozen weights as a step takes them: the layers' products in `dtype`.

    The embedding and the head stay as they were read, since logits are float32 in any case.
    """
    return params | {"layers": cast_matrices(params["layers"], dtype)}


def jit_step(
    decoder: Decoder, stops: np.ndarray, cfg: TrainConfig, optimizer: optax.GradientTransformation
) -> Callable:
    """`make_step`, to be compiled at its first call; the state is donated."""
    return jax.jit(
        make_step(decoder, jnp.asarray(stops), cfg, optimizer),
        donate_argnums=0,
        compiler_options=compiler_options(),
    )


def _tell_idle(accumulate: int, n: int) -> None:
    if idle := -accumulate % n:
        logging.info(
            "train.accumulate=%d on %d devices that share the weights: %d compute nothing that "
            "counts in a step's last round; a multiple of %d takes no longer",
            accumulate,
            n,
            idle,
            n,
        )


def _log_row(name: str, step: int, metrics: dict[str, Any], lr: float) -> dict[str, Any]:
    row: dict[str, Any] = {"adapter": name, "step": step + 1}
    for key in ("loss", "kl_fwd", "residual", "anchor_kl", "grad_norm"):
        value = float(metrics[key])
        row[key] = value if abs(value) < float("inf") else None
    return row | {"lr": lr, "skipped": bool(metrics["skipped_now"])}


def _tokens(batch: TrainBatch) -> int:
    """Tokens of a step that are not padding."""
    forest = batch.packed.forest
    texts = batch.anchor.forest
    return int(
        (forest.subtree_end > 0).sum() + forest.trunk_length.sum() + (texts.subtree_end > 0).sum()
    )
