"""While a step runs, the host neither waits for it nor is waited for."""

from __future__ import annotations

import dataclasses
import threading

import jax
import numpy as np
import pytest

from antiimit_jax.training import loop
from tests.training.test_loop import CFG, run

STEPS = dataclasses.replace(CFG, steps=6, checkpoint_every=4)


def test_the_next_batch_is_there_before_a_step_ends_and_the_step_before_is_read_then(
    tiny, tmp_path, monkeypatch
):
    """Each step here ends only when the next batch lies on the devices."""
    placed, events = [threading.Event() for _ in range(STEPS.steps)], []
    batch, call = loop._Stepper.batch, loop._Stepper.__call__

    def place(self, step):
        made = jax.block_until_ready(batch(self, step))
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(made[0]))
        placed[step].set()
        return made

    def step(self, state, given):
        number = sum(kind == "starts" for kind, _ in events) + 1
        events.append(("starts", number))
        last = number == STEPS.steps
        assert last or placed[number].wait(60), "the next batch waits for the step"
        return call(self, state, given)

    monkeypatch.setattr(loop._Stepper, "batch", place)
    monkeypatch.setattr(loop._Stepper, "__call__", step)
    run(tiny, tmp_path, cfg=STEPS, on_step=lambda row: events.append(("read", row["step"])))
    order = [f"{kind} {number}" for kind, number in events]
    late = ["starts 1", "starts 2", "read 1", "starts 3", "read 2", "starts 4", "read 3", "read 4"]
    assert order == [*late, "starts 5", "starts 6", "read 5", "read 6"]  # 4 and 6 are saved


@pytest.mark.parametrize("max_skips, began", [(1, 1), (3, 3)])
def test_no_step_follows_one_that_stops_the_run(tiny, tmp_path, monkeypatch, max_skips, began):
    broken = dataclasses.replace(
        tiny, params=tiny.params | {"final_norm": {"scale": np.full(32, 3e38, np.float32)}}
    )
    calls, call = [], loop._Stepper.__call__
    count = lambda self, *given: (calls.append(1), call(self, *given))[1]
    monkeypatch.setattr(loop._Stepper, "__call__", count)
    cfg = dataclasses.replace(STEPS, max_skips=max_skips)
    with pytest.raises(loop.UserError, match=f"{began} steps in a row.*stopped at step {began}"):
        run(broken, tmp_path, cfg=cfg)
    assert len(calls) == began


def test_no_thread_of_the_loop_moves_an_array_without_saying_so(tiny, tmp_path):
    """From the first row on: steps, batches made ahead, what is read, checkpoints."""

    def guard(row):
        jax.config.update("jax_transfer_guard", "disallow")

    try:
        _, log = run(tiny, tmp_path, cfg=STEPS, on_step=guard)
        with pytest.raises(Exception, match="[Dd]isallowed host-to-device"):
            jax.numpy.sin(np.ones(3))
    finally:
        jax.config.update("jax_transfer_guard", "allow")
    assert len(log) == STEPS.steps
