"""The loss of a batch: its value by enumeration, its gradient by differences, its expectation."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import rel_entr
from scipy.stats import entropy

from antiimit_jax.tasks.output_control import Mixture
from antiimit_jax.training.step import make_gradient
from tests.enumeration import PlainModel, word_probabilities
from tests.training.small_model import TRAIN
from tests.unpack import unpack

PAIRS = dataclasses.replace(
    TRAIN,
    mixture=Mixture(templates=(5,), ks=(2,), k_weights=(1.0,)),
    groups=1,
    rows=1,
    row_tokens=128,
)


@pytest.fixture(scope="module")
def adapter(small):
    return small.moved_adapter()


def items_of(batch):
    """(prompt, token paths of each word, targets) of every item."""
    for micro in range(len(batch.target)):
        slots = unpack(jax.tree.map(lambda x: x[micro], batch.packed))
        for (row, _), of_item in itertools.groupby(slots, lambda slot: (slot.row, slot.item)):
            of_item = list(of_item)
            paths = [[z for sign, z in slot.terms if sign > 0] for slot in of_item]
            target = batch.target[micro, row, [slot.slot for slot in of_item]]
            yield of_item[0].prompt, paths, target.astype(np.float64)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_loss_is_the_mean_kl_of_its_items_plus_the_anchor(small, adapter, accumulate):
    cfg = dataclasses.replace(TRAIN, groups=1, accumulate=accumulate, anchor_weight=0.7)
    batch = small.batch(cfg)
    gradient = jax.jit(make_gradient(small.decoder, small.terms(cfg)))
    metrics, _ = gradient(adapter, small.params, batch)

    tuned = PlainModel(small.decoder, {"params": small.params, "lora": adapter}, 200)
    base = PlainModel(small.decoder, {"params": small.params}, 200)
    kls, masses = [], []
    for prompt, paths, target in items_of(batch["control"]):
        q = word_probabilities(tuned, prompt, paths, small.stops)
        kls.append(rel_entr(target, q).sum())
        masses.append(q.sum())
    assert set(batch["control"].n_items) == {len(kls)} and len(kls) >= 4
    assert float(metrics["kl_fwd"]) == pytest.approx(np.mean(kls), rel=1e-4)
    assert float(metrics["residual"]) == pytest.approx(1 - np.mean(masses), abs=1e-5)

    forest, scored = jax.tree.map(lambda leaf: leaf[0], batch["anchor"])
    drift = []
    starts = np.flatnonzero(np.asarray(forest.positions[0]) == 0)
    for start, end in zip(starts, [*starts[1:], forest.tokens.shape[1]]):
        ids = tuple(int(t) for t in forest.tokens[0, start:end])
        p, q = np.exp(base.log_probs(ids)), np.exp(tuned.log_probs(ids))
        drift += list(entropy(p, q, axis=-1)[scored[0, start:end] > 0])
    assert float(metrics["anchor_kl"]) == pytest.approx(np.mean(drift), rel=1e-3)
    assert float(metrics["loss"]) == pytest.approx(np.mean(kls) + 0.7 * np.mean(drift), rel=1e-4)


def test_the_anchor_can_be_switched_off(small, adapter):
    for changes in (dict(anchor_weight=0.0), dict(anchor_tokens=0)):
        cfg = dataclasses.replace(PAIRS, **changes)
        metrics, _ = make_gradient(small.decoder, small.terms(cfg))(
            adapter, small.params, small.batch(cfg)
        )
        assert (
            float(metrics["loss"]) == float(metrics["kl_fwd"]) and float(metrics["anchor_kl"]) == 0
        )


def test_the_gradient_of_every_adapter_equals_finite_differences(small, adapter):
    batch = small.batch(PAIRS)
    gradient = jax.jit(make_gradient(small.decoder, small.terms(PAIRS)))
    _, grads = gradient(adapter, small.params, batch)
    leaves, shape = jax.tree.flatten(adapter)
    slopes = jax.tree.leaves(grads)
    assert len(slopes) == 2 * 7
    step = 2e-3
    for i, slope in enumerate(slopes):
        size = float(jnp.linalg.norm(slope))
        assert size > 1e-3
        along = lambda s: gradient(
            jax.tree.unflatten(
                shape, [x + s * slope / size if j == i else x for j, x in enumerate(leaves)]
            ),
            small.params,
            batch,
        )[0]["loss"]
        central = lambda s: (float(along(s)) - float(along(-s))) / (2 * s)
        difference = (4 * central(step) - central(2 * step)) / 3  # free of the third derivative
        assert difference == pytest.approx(size, rel=2e-2, abs=5e-3)


def test_the_sampled_objective_has_the_gradient_of_the_kl_in_expectation(small, adapter):
    """All joint labels of a batch, each weighted with its probability."""
    exact = dataclasses.replace(PAIRS, anchor_weight=0.0)
    whole = small.batch(exact)
    batch = whole["control"]
    n_items = int(batch.n_items[0])
    assert 2 <= n_items <= 4
    slope = jax.jit(make_gradient(small.decoder, small.terms(exact)))
    flat = lambda target: np.concatenate(
        [
            np.ravel(leaf)
            for leaf in jax.tree.leaves(
                slope(adapter, small.params, whole | {"control": batch._replace(target=target)})[1]
            )
        ]
    ).astype(np.float64)

    slots = np.argwhere(np.asarray(batch.packed.word_item)[0] >= 0)  # (row, slot), two an item
    slots = slots.reshape(n_items, 2, 2)
    targets = batch.target[0][slots[..., 0], slots[..., 1]].astype(np.float64)
    expected, total = 0.0, 0.0
    for said in itertools.product((0, 1), repeat=n_items):
        chance = np.prod(targets[range(n_items), said])
        labels = np.zeros_like(batch.target)
        for item, word in enumerate(said):
            labels[0][tuple(slots[item, word])] = 1.0
        expected = expected + chance * flat(labels)
        total += chance
    assert total == pytest.approx(1.0)
    kl = flat(batch.target)
    assert np.linalg.norm(expected - kl) < 1e-5 * np.linalg.norm(kl)


def test_a_fresh_adapter_leaves_the_loss_of_the_base_exactly(small):
    batch = small.batch()
    gradient = make_gradient(small.decoder, small.terms())
    loss = jax.jit(lambda adapter, params, batch: gradient(adapter, params, batch)[0])
    base = loss({}, small.params, batch)
    fresh = loss(small.fresh_adapter(), small.params, batch)
    assert {k: float(v) for k, v in base.items()} == {k: float(v) for k, v in fresh.items()}
    assert float(fresh["anchor_kl"]) == 0.0
    moved = loss(small.moved_adapter(), small.params, batch)
    assert float(moved["loss"]) != float(base["loss"])
