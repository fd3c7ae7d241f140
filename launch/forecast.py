"""How long a program will take here, said at its start and from then on by its bars."""

from collections.abc import Sequence

import jax

from antiimit_jax.processor import matmul_gflops
from antiimit_jax.results import Stage
from antiimit_jax.study import Study
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
    seconds = study.seconds(rates, train, ask)
    number, unit = scaled(seconds)
    cli.say(f"about {number:.0f} {unit} {what}")
    cli.bar.expect(seconds)
