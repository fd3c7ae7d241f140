"""How long a program will take here, said at its start and from then on by its bars."""

from collections.abc import Mapping, Sequence

import jax

from antiimit_jax.evaluation.programs import Work
from antiimit_jax.models.known import n_params
from antiimit_jax.planning.duration import StepSpeed, speed_at, study_seconds
from antiimit_jax.processor import matmul_gflops
from antiimit_jax.results import Stage
from antiimit_jax.study import Study
from antiimit_jax.training.loop import measure_step
from launch import cli
from launch.bars import scaled


def say_how_long(
    study: Study,
    train: Sequence[Stage] = (),
    ask: Sequence[Stage] = (),
    what: str = "in all from here",
) -> None:
    """Says about how long a study's stages take that are still to be trained and asked."""
    train, ask = study.left(train, ask)
    if not train and (not ask or jax.default_backend() != "cpu"):
        return  # the share of a matmul's rate that is reached was measured on CPUs
    rates = matmul_gflops()
    said = " and ".join(f"{dtype} at {rate}" for dtype, rate in rates.items())
    training = f"; training in {study.config.train.dtype}" if train else ""
    cli.say(f"this machine multiplies {said} GFLOP/s{training}")
    seconds = _seconds(study, rates, train, ask)
    number, unit = scaled(seconds)
    cli.say(f"about {number:.0f} {unit} {what}")
    cli.bar.expect(seconds)


def _seconds(
    study: Study, rates: Mapping[str, float], train: Sequence[Stage], ask: Sequence[Stage]
) -> float:
    """Training some stages and asking some takes about so long.

    Args:
      rates: how fast this machine multiplies, by dtype.
      train: where there are any, a step is measured here.
    """
    config, lm = study.config, study.lm
    jobs = [study.job(stage) for stage in train]
    if jobs:
        slower = rates[config.train.dtype] / rates[config.dtype]
        speed = StepSpeed(*measure_step(lm, jobs[0]), slower)
    else:
        speed = speed_at(rates[config.dtype], n_params(lm.cfg))
    work, steps = Work(lm.tokenizer, lm.prompt_format), [job.steps for job in jobs]
    return study_seconds(config, ask, steps, work, speed)
