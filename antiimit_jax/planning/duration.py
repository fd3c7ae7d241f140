"""How long a study will take here: its counted tokens, at the speed of one measured step."""

from antiimit_jax.planning.shapes import Shaper
from antiimit_jax.run_config import RunConfig
from antiimit_jax.suites import SUITES

_PASSES = 3.0  # as many forward passes over a step's tokens take a step's time
_PER_STAGE = 20.0  # seconds for compiling, intervals and tables


def study_seconds(
    run: RunConfig, stages: int, steps: int, shaper: Shaper, step: tuple[float, int]
) -> float:
    """About what so many evaluations and training steps will take.

    Args:
      step: seconds and tokens of a training step (`training.loop.measure_step`).
    """
    seconds, tokens = step
    read = 0
    for name in run.suites:
        suite = SUITES[name]
        known = hasattr(suite, "programs")
        for program in suite.programs(run.of(name), run.seed, run.rule) if known else ():
            # Weights that are changed are the base's.
            read += shaper.tokens(program) * (stages if program.weights == "own" else 1)
    return seconds * (steps + read / tokens / _PASSES) + _PER_STAGE * stages
