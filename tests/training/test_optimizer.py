"""The optimizer against torch: clipping, AdamW with its decay mask, warm-up and cosine."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from antiimit_jax.training.step import make_optimizer, make_schedule
from tests.training.small_model import TRAIN

CFG = dataclasses.replace(
    TRAIN,
    steps=12,
    warmup_steps=4,
    learning_rate=3e-2,
    weight_decay=0.3,
    clip_norm=1.5,
    final_lr_fraction=0.1,
    adam_b2=0.98,
)


def rate(cfg, step: int) -> float:
    """The learning rate of a step, by the formula."""
    if step < cfg.warmup_steps:
        start = cfg.learning_rate / cfg.warmup_steps
        return start + (cfg.learning_rate - start) * step / cfg.warmup_steps
    done = (step - cfg.warmup_steps) / (cfg.steps - cfg.warmup_steps)
    low = cfg.learning_rate * cfg.final_lr_fraction
    return low + (cfg.learning_rate - low) * 0.5 * (1 + math.cos(math.pi * done))


def test_the_learning_rate_warms_up_and_falls_along_a_cosine():
    schedule = make_schedule(CFG, CFG.steps)
    found = [float(schedule(step)) for step in range(CFG.steps)]
    np.testing.assert_allclose(found, [rate(CFG, s) for s in range(CFG.steps)], rtol=1e-5)
    assert max(found) == found[4] == pytest.approx(CFG.learning_rate)


@pytest.mark.parametrize("steps,warmup", [(1, 20), (2, 20), (5, 0)])
def test_short_runs_have_a_positive_finite_rate(steps, warmup):
    cfg = dataclasses.replace(CFG, warmup_steps=warmup)
    rates = [float(make_schedule(cfg, steps)(step)) for step in range(steps)]
    assert all(0 < r <= CFG.learning_rate * (1 + 1e-6) for r in rates)


def test_updates_equal_those_of_torch():
    rng = np.random.default_rng(0)
    tree = {"q": {"a": rng.normal(size=(2, 3, 5)), "b": rng.normal(size=(2, 4, 3))}}
    tree = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)
    mask = {"q": {"a": jnp.ones((2, 1, 1)), "b": jnp.ones((2, 1, 1))}}
    optimizer = make_optimizer(CFG, CFG.steps, mask)
    state = optimizer.init(tree)
    theirs = {n: torch.tensor(np.asarray(x), requires_grad=True) for n, x in tree["q"].items()}
    peer = torch.optim.AdamW(
        [
            {"params": [theirs["a"]], "weight_decay": 0.0},
            {"params": [theirs["b"]], "weight_decay": CFG.weight_decay},
        ],
        betas=(0.9, CFG.adam_b2),
        eps=1e-8,
    )
    clipped = set()
    for step in range(CFG.steps):
        size = 0.05 if step % 3 else 2.0
        draw = lambda x: size * rng.normal(size=x.shape).astype(np.float32)
        grads = {name: draw(x) for name, x in tree["q"].items()}
        updates, state = optimizer.update({"q": grads}, state, tree)
        tree = optax.apply_updates(tree, updates)
        for name, parameter in theirs.items():
            parameter.grad = torch.tensor(grads[name])
        norm = torch.nn.utils.clip_grad_norm_(list(theirs.values()), CFG.clip_norm)
        clipped.add(bool(norm > CFG.clip_norm))
        for group in peer.param_groups:
            group["lr"] = rate(CFG, step)
        peer.step()
        for name, parameter in theirs.items():
            np.testing.assert_allclose(
                tree["q"][name], parameter.detach().numpy(), rtol=1e-4, atol=1e-5
            )
    assert clipped == {True, False}


def test_frozen_gradients_do_not_count_towards_the_clipping_norm():
    cfg = dataclasses.replace(CFG, weight_decay=0.0)
    tree = {"q": {"b": jnp.zeros((2, 1, 1))}}
    optimizer = make_optimizer(cfg, cfg.steps, {"q": {"b": jnp.array([0.0, 1.0])[:, None, None]}})
    alone, crowded = jnp.array([0.0, 0.1]), jnp.array([1e6, 0.1])
    states = []
    for gradient in (alone, crowded):
        grads = {"q": {"b": gradient[:, None, None]}}
        updates, state = optimizer.update(grads, optimizer.init(tree), tree)
        assert updates["q"]["b"][0, 0, 0] == 0 and updates["q"]["b"][1, 0, 0] < 0
        states.append(state)
    jax.tree.map(np.testing.assert_array_equal, *states)
