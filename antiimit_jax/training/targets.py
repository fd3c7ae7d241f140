"""Random changes of what items are trained towards: the placebo's, and words drawn as labels."""

import dataclasses
from collections.abc import Callable

import numpy as np

_LABEL_STREAM, _PLACEBO_STREAM = 11, 12  # keep random streams apart
Shares = tuple[float, ...]  # of one item's words


@dataclasses.dataclass(frozen=True)
class Transform:
    """A random change of a group's targets, drawn from a stream of its own."""

    stream: int
    change: Callable[[list[Shares], np.random.Generator], list[Shares]]


def permute_targets(targets: list[Shares], rng: np.random.Generator) -> list[Shares]:
    """The placebo: target shares permuted across the items of equal word count.

    Every permutation is as likely as any other, also those in which items keep their own: what an
    item was asked then says nothing about what it is given.
    """
    permuted = list(targets)
    for k in sorted({len(t) for t in targets}):
        members = [i for i, t in enumerate(targets) if len(t) == k]
        for i, j in zip(members, rng.permutation(members)):
            permuted[i] = targets[j]
    return permuted


def sample_targets(targets: list[Shares], rng: np.random.Generator) -> list[Shares]:
    """One word of each item, drawn as often as it is asked for: shares of 0 and 1."""
    return [tuple(rng.multinomial(1, shares).astype(float)) for shares in targets]


PLACEBO = Transform(_PLACEBO_STREAM, permute_targets)
SAMPLED = Transform(_LABEL_STREAM, sample_targets)
