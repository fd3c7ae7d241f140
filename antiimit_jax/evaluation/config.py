"""What an evaluation is made of."""

from __future__ import annotations

import dataclasses

from antiimit_jax.evaluation.rulers import RULERS
from antiimit_jax.fields import at_least, one_of
from antiimit_jax.tasks.output_control import SPLITS, Mixture
from antiimit_jax.tasks.templates import TEMPLATES

SUITES = ("control", "drift")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """The control suite: words given, percentages asked."""

    mixture: Mixture = Mixture(
        templates=tuple(range(len(TEMPLATES))),
        ks=(2, 3, 4, 5),
        k_weights=(0.7, 0.1, 0.1, 0.1),
        shots=(0, 2, 11),
        shot_weights=(0.8, 0.1, 0.1),
    )
    splits: tuple[str, ...] = one_of(SPLITS, SPLITS, filled=True)
    n_items: int = at_least(4, 240)  # of each split, rounded up to blocks of four
    n_explored: int = at_least(
        0, 32
    )  # two-word items of the first split whose residual is taken apart
    n_variants: int = at_least(0, 64)  # two-word items of the first split scored under other rules
    n_boot: int = at_least(0, 2000)  # resamples of every interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftConfig:
    """The drift suite: what changed on unrelated text."""

    n_prompts: int = at_least(1, 102)  # taken from all categories in turn
    rulers: tuple[str, ...] = one_of(RULERS, ("int8_channel", "int8_block", "bf16"))
