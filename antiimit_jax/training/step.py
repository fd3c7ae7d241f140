"""One training step: a free function of (state, frozen weights, batch), jit-compiled by the loop.

Gradients are taken with respect to the adapter alone; the frozen weights enter as an argument and
never have a gradient or optimizer state. On a mesh the rows share a step's microbatches, and their
gradients are summed.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.parallel import DATA, DEALT, MODEL, WHOLE, by_rows
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.terms import Term

Array = jax.Array
Tree = Any
Optimizer = optax.GradientTransformation
SAME = "same"  # axis of a mesh: devices that do the same


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


def make_optimizer(cfg: TrainConfig, steps: int, mask: Tree) -> Optimizer:
    """clip -> adamw (decay on b only) -> warm-up and cosine; only masked adapters move."""
    masked = lambda updates, _: jax.tree.map(lambda u, m: u * m, updates, mask)
    rate, decay = make_schedule(cfg, steps), cfg.weight_decay
    adamw = optax.adamw(rate, b2=cfg.adam_b2, weight_decay=decay, mask=_decays)
    clip, only_trained = optax.clip_by_global_norm(cfg.clip_norm), optax.stateless(masked)
    return optax.chain(only_trained, clip, adamw, only_trained)


def _decays(adapter: Tree) -> Tree:
    """Weight decay acts on b, whose size is the adapter's size; a only spans its input space."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "b", adapter)


def init_state(adapter: Tree, optimizer: Optimizer) -> TrainState:
    zero = lambda: jnp.zeros((), jnp.int32)  # separate buffers: the state is donated
    return TrainState(zero(), adapter, optimizer.init(adapter), zero(), zero())


def step_mesh(accumulate: int, mesh: Mesh) -> Mesh:
    """As many rows of a mesh as can have equally many of a step's `accumulate` microbatches.

    With several processes no device may stand aside: the rows are as many as also divide those
    that there are, and the devices that are left do what a row of the step does, too.
    """
    there = mesh.shape[DATA]
    dividing = [n for n in range(1, there + 1) if accumulate % n == 0]
    if jax.process_count() == 1:
        return Mesh(mesh.devices[: max(dividing)], mesh.axis_names)
    rows = max(n for n in dividing if there % n == 0)
    if rows == there:
        return mesh
    return Mesh(mesh.devices.reshape(rows, there // rows, -1), (DATA, SAME, MODEL))


def dealt(microbatches: Tree, mesh: Mesh) -> PartitionSpec:
    """How microbatches, leaves [A, ...], lie: as many on each row, or where that fails all."""
    A = len(jax.tree.leaves(microbatches)[0])
    return DEALT if A % mesh.shape[DATA] == 0 else WHOLE


def make_gradient(decoder: Decoder, terms: Sequence[Term], mesh: Mesh | None = None) -> Callable:
    """gradient(adapter, params, batch) -> (metrics, the gradient of metrics["loss"]).

    Terms follow each other, and so do the microbatches of each, all with their own backward pass:
    memory holds what one needs. On several rows each does its own microbatches of a term, or where
    they cannot be dealt out evenly all of them, as the others do.

    Args of the result:
      batch: leaves [A, ...] for each term's name (`terms.make_batch`).
    """

    def of_term(term: Term, whole: tuple[Tree, Tree], microbatches: Tree) -> Tree:
        """((loss, log columns), gradient) of a weighted term, summed over its microbatches."""
        adapter, params = whole

        def part(adapter: Tree, batch: Tree) -> tuple[Array, dict[str, Array]]:
            loss, columns = term.loss(decoder, {"params": params, "lora": adapter}, batch)
            return term.weight * loss, columns

        first = jax.tree.map(lambda leaf: leaf[0], microbatches)
        one = lambda batch: jax.value_and_grad(part, has_aux=True)(adapter, batch)
        if len(jax.tree.leaves(microbatches)[0]) == 1:
            return one(first)
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(one, first))
        add = lambda sums, batch: (jax.tree.map(jnp.add, sums, one(batch)), None)
        return jax.lax.scan(add, zeros, microbatches)[0]

    def on_rows(term: Term, whole: tuple[Tree, Tree], microbatches: Tree) -> Tree:
        if mesh is None or mesh.shape[DATA] == 1 or dealt(microbatches, mesh) == WHOLE:
            return of_term(term, whole, microbatches)
        summed = lambda *given: jax.lax.psum(of_term(term, *given), DATA)
        return by_rows(summed, mesh, WHOLE)(whole, microbatches)

    def gradient(
        adapter: Tree, params: Tree, batch: dict[str, Tree]
    ) -> tuple[dict[str, Array], Tree]:
        columns, total, grads = {}, None, None
        for term in terms:
            microbatches = batch[term.name]
            one_term = functools.partial(on_rows, term, (adapter, params))
            if term.weight == 0:
                (_, unused), _ = jax.eval_shape(one_term, microbatches)
                columns |= jax.tree.map(jnp.zeros_like, unused)
                continue
            if grads is not None:  # one after the other
                microbatches, grads = jax.lax.optimization_barrier((microbatches, grads))
            (loss, of_this), more = one_term(microbatches)
            columns |= of_this
            total = loss if grads is None else total + loss
            grads = more if grads is None else jax.tree.map(jnp.add, grads, more)
        return columns | {"loss": total}, grads

    return gradient


def make_step(
    decoder: Decoder, terms: Sequence[Term], optimizer: Optimizer, mesh: Mesh | None = None
) -> Callable:
    """step(state, params, batch) -> (state, metrics); jit it with the state donated.

    A step whose loss, gradient or result is not finite leaves adapter and optimizer as they were
    and is counted; the loop stops after several in a row.
    """
    gradient = make_gradient(decoder, terms, mesh)

    def step(state: TrainState, params: Tree, batch: Tree) -> tuple[TrainState, dict[str, Array]]:
        metrics, grads = gradient(state.adapter, params, batch)
        norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.adapter)
        moved = state._replace(
            adapter=optax.apply_updates(state.adapter, updates),
            opt_state=opt_state,
            skipped_in_row=jnp.zeros((), jnp.int32),
        )
        stayed = state._replace(skipped=state.skipped + 1, skipped_in_row=state.skipped_in_row + 1)
        numbers = metrics["loss"], norm, optax.tree.norm(moved.adapter)
        ok = jnp.isfinite(jnp.stack(numbers)).all()
        new = jax.tree.map(lambda a, b: jnp.where(ok, a, b), moved, stayed)
        counters = {"skipped": new.skipped, "skipped_in_row": new.skipped_in_row}
        metrics |= {"grad_norm": norm, "skipped_now": ~ok} | counters
        return new._replace(step=state.step + 1), metrics

    return step
