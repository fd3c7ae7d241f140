"""A planned study takes longer with more to do, and half as long on a machine twice as fast."""

from __future__ import annotations

import dataclasses

import pytest

from antiimit_jax.planning.duration import planned_seconds
from antiimit_jax.planning.shapes import Shaper
from antiimit_jax.run_config import from_dict

SMALL = {"suites": ["control"], "control": {"splits": ["heldout_words"], "n_items": 8}}


def test_time_goes_with_the_work_and_the_rate(smollm2):
    run, shaper = from_dict(SMALL).on("cpu"), Shaper(smollm2.tokenizer, "chat")
    took = lambda run, **gflops: planned_seconds(run, 10**8, shaper, gflops)
    fixed = took(run, float32=1e12)
    slow, fast = took(run, float32=100.0) - fixed, took(run, float32=200.0) - fixed
    assert fast > 60 and slow == pytest.approx(2 * fast, rel=1e-3)
    longer = dataclasses.replace(run.train, steps=run.train.steps * 2)
    assert took(dataclasses.replace(run, train=longer), float32=100.0) - fixed > 1.5 * slow
    narrow = dataclasses.replace(run, train=dataclasses.replace(run.train, dtype="bfloat16"))
    assert took(narrow, float32=100.0, bfloat16=1e12) - fixed < 0.1 * slow
    assert took(narrow, float32=100.0) == took(run, float32=100.0)
