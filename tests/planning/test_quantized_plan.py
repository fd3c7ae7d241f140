"""A plan of quantised weights: a 7B model on one device of 16 GB, evaluated and trained."""

from __future__ import annotations

import dataclasses

import pytest

from antiimit_jax.models.known import find_known
from antiimit_jax.planning.advice import judge
from antiimit_jax.planning.hardware import find_hardware
from antiimit_jax.planning.memory import Estimator, peak
from antiimit_jax.run_config import from_dict

RUN = {
    "model": "llama-2-7b",
    "suites": ["control"],
    "control": {"splits": ["heldout_words"], "n_items": 8},
    "train": {"eval_every": 0},
}
LINEAR = {"int8": 6.5, "nf4": 3.9}  # GiB of weights: one byte, or 4.5 bits, and tables of two bytes


@pytest.fixture(scope="module")
def estimator() -> Estimator:
    return Estimator(find_known("llama-2-7b"), "tpu")


@pytest.mark.parametrize("how", LINEAR)
def test_7b_fits_16_gb_in_evaluation_and_in_training(estimator, how):
    machine, whole = find_hardware("v5e-1"), from_dict(RUN).on("tpu")
    run = dataclasses.replace(whole, quantize=how)
    weights = estimator.weights(run)
    assert weights / 2**30 == pytest.approx(LINEAR[how], abs=0.05)
    for program in ("evaluate", "finetune"):
        assert judge(program, run, estimator, machine)["fits"]
        # What is widened is one layer's matrix, or a few: never all layers at once.
        beside, usual = (
            peak(getattr(estimator, program)(one)) - estimator.weights(one) for one in (run, whole)
        )
        assert beside < usual + 2**30
