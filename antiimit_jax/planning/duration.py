"""How long a study will take here: its counted tokens, at the speed of one measured step.

Where none is measured, since nothing is trained or no model is there, a processor's rate of matmuls
stands for it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from antiimit_jax.evaluation.programs import Work
from antiimit_jax.models.decoder import n_tokens
from antiimit_jax.planning.memory import step_terms
from antiimit_jax.results import Stage
from antiimit_jax.run_config import RunConfig
from antiimit_jax.training.terms import make_batch

_PASSES = 3.0  # as many forward passes over a step's tokens, in its dtype, take a step's time
_SHARE = 0.6  # of a processor's matmul rate is reached (launch/benchmark/README.md)
_PER_STAGE = 20.0  # seconds for compiling, intervals and tables
_PER_ADAPTER = 10.0  # seconds for compiling its step


class StepSpeed(NamedTuple):
    """A training step's, measured here (`training.loop.measure_step`) or of `speed_at`."""

    seconds: float
    tokens: int
    slower: float = 1.0  # so many times as slowly evaluation's dtype is multiplied


def speed_at(gflops: float, parameters: int) -> StepSpeed:
    """Of a step of one token, on a processor that multiplies at so many GFLOP/s."""
    return StepSpeed(_PASSES * 2 * parameters / (1e9 * _SHARE * gflops), tokens=1)


def study_seconds(
    run: RunConfig, left: Sequence[Stage], steps: Sequence[int], work: Work, speed: StepSpeed
) -> float:
    """About what evaluating the stages that are left and training some adapters will take.

    Args:
      steps: of each adapter.
    """
    bases = sum(stage.kind == "base" for stage in left)
    times = lambda program: program.of_base * bases if program.of_base else len(left)
    asked = [(program, many) for program in run.programs() if (many := times(program))]
    read = sum(work.tokens(program) * many for program, many in asked)  # counting takes a while
    forward = speed.seconds / speed.tokens / _PASSES * speed.slower  # of a token
    training = speed.seconds * sum(steps) + _PER_ADAPTER * len(steps)
    return training + forward * read + _PER_STAGE * len(left)


def planned_seconds(
    run: RunConfig, parameters: int, work: Work, gflops: Mapping[str, float]
) -> float:
    """About what a whole study takes on a processor; every token is counted with the head.

    Args:
      gflops: the processor's rate of matmuls by dtype; others are multiplied as float32.
    """
    train, n = run.train, len(run.train.seeds)
    tokens = n_tokens(make_batch(step_terms(run, work, work.stops), 0))
    of_token = lambda dtype: speed_at(gflops.get(dtype, gflops["float32"]), parameters).seconds
    slower = of_token(run.dtype) / of_token(train.dtype)
    speed = StepSpeed(tokens * of_token(train.dtype), tokens, slower)
    steps = [train.steps, train.placebo_steps] if train.placebo_steps else [train.steps]
    return study_seconds(run, run.stages(), n * steps, work, speed)
