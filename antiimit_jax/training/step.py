"""One training step: a free function of (state, frozen weights, batch), jit-compiled by the loop.

Gradients are taken with respect to the adapter alone; the frozen weights enter as an argument and
never have a gradient or optimizer state.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.parallel import AXIS
from antiimit_jax.scoring.texts import text_logits
from antiimit_jax.scoring.word_probs import word_log_probs
from antiimit_jax.training.batches import TrainBatch
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.objectives import anchor_kl, forward_kl

Array = jax.Array
Tree = Any


class TrainState(NamedTuple):
    """What a checkpoint holds."""

    step: Array  # int32 [], batches seen
    adapter: Tree
    opt_state: Tree
    skipped: Array  # int32 [], non-finite steps so far
    skipped_in_row: Array  # int32 []


def make_schedule(cfg: TrainConfig, steps: int) -> optax.Schedule:
    """Linear warm-up to the learning rate, then cosine to a fraction of it at the last step."""
    return optax.warmup_cosine_decay_schedule(
        init_value=cfg.learning_rate / max(cfg.warmup_steps, 1),
        peak_value=cfg.learning_rate,
        warmup_steps=min(cfg.warmup_steps, steps - 1),
        decay_steps=max(steps, 1),
        end_value=cfg.learning_rate * cfg.final_lr_fraction,
    )


def make_optimizer(cfg: TrainConfig, steps: int, mask: Tree) -> optax.GradientTransformation:
    """clip -> adamw (decay on b only) -> warm-up and cosine; only masked adapters move."""
    only_trained = optax.stateless(
        lambda updates, _: jax.tree.map(lambda u, m: u * m, updates, mask)
    )
    return optax.chain(
        only_trained,
        optax.clip_by_global_norm(cfg.clip_norm),
        optax.adamw(
            make_schedule(cfg, steps), b2=cfg.adam_b2, weight_decay=cfg.weight_decay, mask=_decays
        ),
        only_trained,
    )


def _decays(adapter: Tree) -> Tree:
    """Weight decay acts on b, whose size is the adapter's size; a only spans its input space."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "b", adapter)


def init_state(adapter: Tree, optimizer: optax.GradientTransformation) -> TrainState:
    zero = lambda: jnp.zeros((), jnp.int32)  # separate buffers: the state is donated
    return TrainState(zero(), adapter, optimizer.init(adapter), zero(), zero())


def make_loss(
    decoder: Decoder, stops: Array, cfg: TrainConfig, n_devices: int = 1
) -> Callable:
    """loss(adapter, params, batch) -> (scalar, metrics).

    On several devices, each with its microbatches of a step: parts whose sums over the devices are
    the step's. What all compute alike (the anchor) counts an n-th on each.
    """

    def control(adapter: Tree, params: Tree, batch: TrainBatch) -> tuple[Array, Array]:
        variables = {"params": params, "lora": adapter}

        def micro(carry: tuple[Array, Array], part) -> tuple[tuple[Array, Array], None]:
            packed, target = part
            out = word_log_probs(decoder, variables, stops, packed)
            mass = jnp.where(packed.word_item >= 0, jnp.exp(out.log_q), 0.0).sum()
            return (carry[0] + forward_kl(out.log_q, target), carry[1] + mass), None

        parts = (batch.packed, batch.target)
        zero = (jnp.zeros(()), jnp.zeros(()))
        if len(batch.target) == 1:
            (kl, mass), _ = micro(zero, jax.tree.map(lambda x: x[0], parts))
        else:
            (kl, mass), _ = jax.lax.scan(jax.checkpoint(micro), zero, parts)
        return kl / batch.n_items, 1.0 / n_devices - mass / batch.n_items

    def loss(adapter: Tree, params: Tree, batch: TrainBatch) -> tuple[Array, dict[str, Array]]:
        kl, residual = control(adapter, params, batch)
        metrics = {"kl_fwd": kl, "residual": residual, "anchor_kl": jnp.zeros(())}
        total = kl
        if cfg.anchor_weight > 0 and cfg.anchor_tokens > 0:
            base = text_logits(decoder, {"params": params}, batch.anchor)
            tuned = text_logits(decoder, {"params": params, "lora": adapter}, batch.anchor)
            metrics["anchor_kl"] = anchor_kl(base, tuned, batch.anchor.scored) / n_devices
            total = kl + cfg.anchor_weight * metrics["anchor_kl"]
        return total, metrics | {"loss": total}

    return loss


def make_step(
    decoder: Decoder,
    stops: Array,
    cfg: TrainConfig,
    optimizer: optax.GradientTransformation,
    n_devices: int = 1,
) -> Callable:
    """step(state, params, batch) -> (state, metrics); jit it with the state donated.

    With several devices it runs on each of them under `pmap`.

    A step whose loss or gradient is not finite leaves adapter and optimizer as they were and is
    counted; the loop stops after several in a row.
    """
    loss = make_loss(decoder, stops, cfg, n_devices)

    def step(state: TrainState, params: Tree, batch: TrainBatch) -> tuple[TrainState, dict]:
        (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(
            state.adapter, params, batch
        )
        if n_devices > 1:
            metrics, grads = jax.lax.psum((metrics, grads), AXIS)
        norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.adapter)
        moved = state._replace(
            adapter=optax.apply_updates(state.adapter, updates),
            opt_state=opt_state,
            skipped_in_row=jnp.zeros((), jnp.int32),
        )
        stayed = state._replace(
            skipped=state.skipped + 1, skipped_in_row=state.skipped_in_row + 1
        )
        ok = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
        new = jax.tree.map(lambda a, b: jnp.where(ok, a, b), moved, stayed)
        metrics |= {"grad_norm": norm, "skipped": new.skipped, "skipped_now": ~ok}
        return new._replace(step=state.step + 1), metrics

    return step
