"""How long a study will take here: its counted tokens, at the speed of one measured step.

Before there is a model to measure with, a processor's rate of matmuls stands for the step.
"""

from collections.abc import Mapping

from antiimit_jax.models.decoder import n_tokens
from antiimit_jax.planning.shapes import Shaper, programs_of
from antiimit_jax.run_config import RunConfig

_PASSES = 3.0  # as many forward passes over a step's tokens take a step's time
_SHARE = 0.6  # of a processor's matmul rate is reached (launch/benchmark/README.md)
_PER_STAGE = 20.0  # seconds for compiling, intervals and tables


def study_seconds(
    run: RunConfig, stages: int, steps: int, shaper: Shaper, step: tuple[float, int]
) -> float:
    """About what so many evaluations and training steps will take.

    Args:
      step: seconds and tokens of a training step (`training.loop.measure_step`).
    """
    seconds, tokens = step
    times = {"own": stages}  # weights that are changed are the base's
    read = sum(shaper.tokens(p) * times.get(p.weights, 1) for p in programs_of(run))
    return seconds * (steps + read / tokens / _PASSES) + _PER_STAGE * stages


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
    evaluating = study_seconds(run, len(run.stages()), 0, shaper, (step(run.dtype), tokens))
    return steps * step(run.train.dtype) + evaluating
