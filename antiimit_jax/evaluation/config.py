"""What an evaluation is made of."""

from __future__ import annotations

import dataclasses

from antiimit_jax.evaluation.rulers import RULERS
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
    splits: tuple[str, ...] = SPLITS
    n_items: int = 240  # of each split, rounded up to blocks of four
    n_explored: int = 32  # two-word items of the first split whose residual is taken apart
    n_variants: int = 64  # two-word items of the first split scored under other rules
    n_boot: int = 2000  # resamples of every interval

    def problems(self) -> list[str]:
        """What makes no sense, one sentence each."""
        problems = [
            f"control.splits names {split!r}; known: {', '.join(SPLITS)}"
            for split in self.splits
            if split not in SPLITS
        ]
        if not self.splits:
            problems.append("control.splits is empty: nothing would be evaluated")
        for field, least in (("n_items", 4), ("n_explored", 0), ("n_variants", 0), ("n_boot", 0)):
            if getattr(self, field) < least:
                problems.append(f"control.{field} = {getattr(self, field)}: at least {least}")
        return problems + self.mixture.problems("control.mixture")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftConfig:
    """The drift suite: what changed on unrelated text."""

    n_prompts: int = 102  # taken from all categories in turn
    rulers: tuple[str, ...] = ("int8_channel", "int8_block", "bf16")

    def problems(self) -> list[str]:
        """What makes no sense, one sentence each."""
        problems = [
            f"drift.rulers names {ruler!r}; known: {', '.join(RULERS)}"
            for ruler in self.rulers
            if ruler not in RULERS
        ]
        if self.n_prompts < 1:
            problems.append(f"drift.n_prompts = {self.n_prompts}: at least 1")
        return problems
