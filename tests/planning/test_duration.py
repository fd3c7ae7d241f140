"""How long a study will take: what is asked of which stage, in which dtype, at which rate."""

from __future__ import annotations

import dataclasses

import pytest

from antiimit_jax.evaluation.programs import Work
from antiimit_jax.planning.duration import StepSpeed, planned_seconds, speed_at, study_seconds
from antiimit_jax.results import BASE, adapter_stage
from antiimit_jax.run_config import from_dict
from antiimit_jax.text.tokenizer import load_tokenizer
from tests.tiny_model import write_tiny_model

RULERS = ["int8_channel", "int8_block", "bf16"]
RUN = from_dict(
    {
        "suites": ["control", "drift"],
        "control": {"splits": ["heldout_words"], "n_items": 8},
        "drift": {"n_prompts": 2, "rulers": RULERS, "n_continued": 2, "continued_tokens": 8},
    }
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")
    return Work(load_tokenizer(folder), "base")


def test_steps_and_tokens_are_counted_for_what_is_left(work):
    tokens = {program.name: work.tokens(program) for program in RUN.programs()}
    speed = StepSpeed(seconds=3.0, tokens=1)  # a second for a token that is read
    tuned = adapter_stage("tuned", 0)
    once = tokens["control"] + tokens["drift"] + tokens["drift, first token"]
    of_rulers = tokens["rulers"] + tokens["rulers, first token"]
    of_base = (
        tokens["control, no percentages"] + tokens["drift, own answers"] + len(RULERS) * of_rulers
    )
    seconds = lambda left, steps: study_seconds(RUN, left, steps, work, speed)
    assert seconds([], []) == 0 and seconds([], [5, 2]) == pytest.approx(21 + 20)
    assert seconds([tuned], []) == pytest.approx(once + 20)
    assert seconds([BASE, tuned], []) == pytest.approx(2 * once + of_base + 40)


def test_what_nobody_is_asked_is_not_counted(work, monkeypatch):
    """Counting means packing all that suites ask, which fine-tuning alone need not wait for."""
    monkeypatch.setattr(type(work), "tokens", None)
    assert study_seconds(RUN, [], [5], work, StepSpeed(3.0, 1)) == pytest.approx(5 * 3.0 + 10)


def test_evaluation_in_a_slower_dtype_takes_so_much_longer(work):
    stages = [BASE, adapter_stage("tuned", 0)]
    alike, slower = (
        study_seconds(RUN, stages, [5], work, StepSpeed(3.0, 1, ratio)) for ratio in (1.0, 1.8)
    )
    fixed = 5 * 3.0 + 10 + 40
    assert slower - fixed == pytest.approx(1.8 * (alike - fixed))


def test_without_a_measured_step_the_rate_of_matmuls_says_how_long_reading_takes(work):
    stages = [BASE, adapter_stage("tuned", 0)]
    at = lambda gflops: study_seconds(RUN, stages, [], work, speed_at(gflops, 10**8)) - 40
    read = sum(
        work.tokens(program) * (program.of_base or len(stages)) for program in RUN.programs()
    )
    assert at(100.0) == pytest.approx(read * 2 * 10**8 / 60e9)  # 60% of the rate, 2 a parameter
    assert at(200.0) == pytest.approx(at(100.0) / 2)


def test_time_goes_with_the_work_and_the_rate(work):
    run = RUN.on("cpu")
    took = lambda run, **gflops: planned_seconds(run, 10**8, work, gflops)
    fixed = took(run, float32=1e12)
    slow, fast = took(run, float32=100.0) - fixed, took(run, float32=200.0) - fixed
    assert fast > 60 and slow == pytest.approx(2 * fast, rel=1e-3)
    longer = dataclasses.replace(run.train, steps=run.train.steps * 2)
    assert took(dataclasses.replace(run, train=longer), float32=100.0) - fixed > 1.5 * slow
    narrow = dataclasses.replace(run, train=dataclasses.replace(run.train, dtype="bfloat16"))
    assert took(narrow, float32=100.0, bfloat16=1e12) - fixed < 0.1 * slow
    assert took(narrow, float32=100.0) == took(run, float32=100.0)
