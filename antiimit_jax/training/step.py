"""One training step: a free function of (state, frozen weights, batch), jit-compiled by the loop.

Gradients are taken with respect to the adapter alone; the frozen weights enter as an argument and
never have a gradient or optimizer state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.parallel import AXIS
from antiimit_jax.scoring.packing import PackedBatch
from antiimit_jax.scoring.texts import PackedTexts, text_logits
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


def make_gradient(decoder: Decoder, stops: Array, cfg: TrainConfig, n_devices: int = 1) -> Callable:
    """gradient(adapter, params, batch) -> (metrics, the gradient of metrics["loss"]).

    Microbatches follow each other, each with its own way back: memory holds what one needs.

    On several devices, each with its microbatches of a step: parts whose sums over the devices are
    the step's. What all compute alike (the anchor) counts an n-th on each.
    """

    def control(
        adapter: Tree, params: Tree, packed: PackedBatch, target: Array, n_items: Array
    ) -> tuple[Array, Array]:
        """A microbatch's part of the KL, and of the words' mass."""
        out = word_log_probs(decoder, {"params": params, "lora": adapter}, stops, packed)
        mass = jnp.where(packed.word_item >= 0, jnp.exp(out.log_q), 0.0).sum()
        return forward_kl(out.log_q, target) / n_items, mass / n_items

    def anchor(adapter: Tree, params: Tree, text: PackedTexts) -> tuple[Array, Array]:
        """The anchor's part of the loss, and its KL."""
        base = text_logits(decoder, {"params": params}, text)
        tuned = text_logits(decoder, {"params": params, "lora": adapter}, text)
        kl = anchor_kl(base, tuned, text.scored) / n_devices
        return cfg.anchor_weight * kl, kl

    def of_control(adapter: Tree, params: Tree, batch: TrainBatch) -> Tree:
        """((KL, mass), gradient), summed over microbatches."""
        one = lambda packed, target: jax.value_and_grad(control, has_aux=True)(
            adapter, params, packed, target, batch.n_items
        )
        parts = (batch.packed, batch.target)
        first = jax.tree.map(lambda leaf: leaf[0], parts)
        if len(batch.target) == 1:
            return one(*first)
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(one, *first))
        add = lambda sums, part: (jax.tree.map(jnp.add, sums, one(*part)), None)
        return jax.lax.scan(add, zeros, parts)[0]

    def gradient(adapter: Tree, params: Tree, batch: TrainBatch) -> tuple[dict[str, Array], Tree]:
        (kl, mass), grads = of_control(adapter, params, batch)
        total, drift = kl, jnp.zeros(())
        if cfg.anchor_weight > 0 and cfg.anchor_tokens > 0:
            text, grads = jax.lax.optimization_barrier((batch.anchor, grads))  # one after the other
            (part, drift), more = jax.value_and_grad(anchor, has_aux=True)(adapter, params, text)
            total, grads = total + part, jax.tree.map(jnp.add, grads, more)
        residual = 1.0 / n_devices - mass
        metrics = {"kl_fwd": kl, "residual": residual, "anchor_kl": drift, "loss": total}
        return metrics, grads

    return gradient


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
    gradient = make_gradient(decoder, stops, cfg, n_devices)

    def step(state: TrainState, params: Tree, batch: TrainBatch) -> tuple[TrainState, dict]:
        metrics, grads = gradient(state.adapter, params, batch)
        if n_devices > 1:
            metrics, grads = jax.lax.psum((metrics, grads), AXIS)
        norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.adapter)
        moved = state._replace(
            adapter=optax.apply_updates(state.adapter, updates),
            opt_state=opt_state,
            skipped_in_row=jnp.zeros((), jnp.int32),
        )
        stayed = state._replace(skipped=state.skipped + 1, skipped_in_row=state.skipped_in_row + 1)
        ok = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
        new = jax.tree.map(lambda a, b: jnp.where(ok, a, b), moved, stayed)
        metrics |= {"grad_norm": norm, "skipped": new.skipped, "skipped_now": ~ok}
        return new._replace(step=state.step + 1), metrics

    return step
