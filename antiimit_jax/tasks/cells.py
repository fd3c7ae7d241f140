"""Kinds of request in an evaluation: how many word sets each has, and their percentages."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from antiimit_jax.text.lexicon import Side, distances, sample_percents

MOST_ITEMS = 12  # of a word set


class Cell(NamedTuple):
    """Word sets of an evaluation that are asked alike."""

    k: int
    n_shots: int
    templates: tuple[int, ...]

    def n_items(self, sets: int, side: Side) -> int:
        """Items of so many word sets."""
        if self.k == 2:
            at_half = -(-sets // len(_far(side))) if 0 in distances(side) else 0
            return 4 * (2 * sets + at_half)
        return 4 * sets * self.times

    @property
    def times(self) -> int:
        """How often a set of more than two words gets percentages: each time has a shot set."""
        return 2 if self.n_shots else 1

    def percents(
        self, sets: int, side: Side, rng: np.random.Generator
    ) -> list[list[tuple[int, ...]]]:
        """The percentages of each set: those of pairs in strata, others as the sampler draws them.

        A pair is asked at two distances from 50, a small one beside a large one. All distances of
        the side are as frequent, to within one, and 0 is put to as many sets besides as the sampler
        would put it to.
        """
        if self.k > 2:
            return [
                [sample_percents(rng, self.k, side) for _ in range(self.times)] for _ in range(sets)
            ]
        far, at_half = _far(side), 0 in distances(side)
        slots = np.repeat(far, apportion(np.ones(len(far)), 2 * sets, rng))
        found = []
        for i in range(sets):
            levels = [slots[i], slots[i + sets]] + [0] * (at_half and i % len(far) == 0)
            signed = rng.permutation(levels) * rng.choice((-1, 1), len(levels))
            found.append([(50 + int(d), 50 - int(d)) for d in signed])
        return found


def _far(side: Side) -> tuple[int, ...]:
    return tuple(distance for distance in distances(side) if distance)


def apportion(
    weights: np.ndarray, total: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Whole numbers of sum `total` by largest remainder; equal remainders in an order of `rng`."""
    exact = normal(weights) * total
    counts = np.floor(exact + 1e-9).astype(int)
    order = np.arange(len(exact)) if rng is None else rng.permutation(len(exact))
    largest = order[np.argsort((counts - exact)[order], kind="stable")]
    counts[largest[: total - counts.sum()]] += 1
    return counts


def normal(weights: Sequence[float]) -> np.ndarray:
    """Weights as shares of their sum."""
    array = np.asarray(weights, float)
    return array / array.sum()
