"""How long a study will take here: its counted tokens, at the speed of one measured step.

Before there is a model to measure with, a processor's rate of matmuls stands for the step.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from antiimit_jax.models.decoder import n_tokens
from antiimit_jax.planning.shapes import Shaper, programs_of
from antiimit_jax.results import Stage
from antiimit_jax.run_config import RunConfig

_PASSES = 3.0  # as many forward passes over a step's tokens, in its dtype, take a step's time
_SHARE = 0.6  # of a processor's matmul rate is reached (launch/benchmark/README.md)
_PER_STAGE = 20.0  # seconds for compiling, intervals and tables


class StepSpeed(NamedTuple):
    """A training step measured here (`training.loop.measure_step`)."""

    seconds: float
    tokens: int
    slower: float = 1.0  # so many times as slowly evaluation's dtype is multiplied


def study_seconds(
    run: RunConfig, left: Sequence[Stage], steps: int, shaper: Shaper, speed: StepSpeed
) -> float:
    """About what evaluating the stages that are left and so many training steps will take."""
    bases = sum(stage.kind == "base" for stage in left)
    times = lambda program: program.of_base * bases if program.of_base else len(left)
    read = sum(shaper.tokens(program) * times(program) for program in programs_of(run))
    forward = speed.seconds / speed.tokens / _PASSES * speed.slower  # of a token
    return speed.seconds * steps + forward * read + _PER_STAGE * len(left)


def planned_seconds(
    run: RunConfig, parameters: int, shaper: Shaper, gflops: Mapping[str, float]
) -> float:
    """About what a whole study takes on a processor; every token is counted with the head.

    Args:
      gflops: the processor's rate of matmuls by dtype; others are multiplied as float32.
    """
    tokens = n_tokens(shaper.train(run.train, run.forms, run.seed))
    rate = lambda dtype: 1e9 * _SHARE * gflops.get(dtype, gflops["float32"])
    step = lambda dtype: _PASSES * 2 * parameters * tokens / rate(dtype)  # seconds
    steps = len(run.train.seeds) * (run.train.steps + run.train.placebo_steps)
    reading = StepSpeed(step(run.dtype), tokens)
    return steps * step(run.train.dtype) + study_seconds(run, run.stages(), 0, shaper, reading)
