"""How long a study will take here: its counted tokens, at the speed of one measured step."""

from antiimit_jax.planning.shapes import Shaper, programs_of
from antiimit_jax.run_config import RunConfig

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
    times = {"own": stages}  # weights that are changed are the base's
    read = sum(shaper.tokens(p) * times.get(p.weights, 1) for p in programs_of(run))
    return seconds * (steps + read / tokens / _PASSES) + _PER_STAGE * stages
