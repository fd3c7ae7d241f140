"""The words and percentages of the control task, and which of them training may see.

All sides of a split are decided here and nowhere else: words by a hash of their lemma, percentages
by a fixed set that is closed under p -> 100 - p, so the complement of a held-out percentage never
stands in a training prompt. Words that training never sees are `dev`, on which settings are chosen,
or `test`, on which results are told. The words are `data/words.tsv`, made by
`tests/text/build_lexicon.py`.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
from typing import Literal

import numpy as np

from antiimit_jax.errors import UserError

Side = Literal["train", "heldout"]  # of percentages
Split = Literal["train", "dev", "test"]  # of lemmas

TRAIN_SHARE, TEST_SHARE = 0.7, 0.15  # dev has the rest
TRAIN_PERCENTS: tuple[int, ...] = tuple(p for p in range(5, 100, 5) if p not in (15, 35, 65, 85))
HELDOUT_PERCENTS: tuple[int, ...] = tuple(p for p in range(1, 100) if p not in TRAIN_PERCENTS)
MOST_PERCENTS = 100  # of which a hundred can be the sum


@dataclasses.dataclass(frozen=True, kw_only=True)
class LexiconWord:
    """One base form. `tokens` counts " word" under the embedded tokenizer."""

    word: str
    lemma: str
    split: Split
    tokens: int


def lemma_split(lemma: str) -> Split:
    """By the first 8 bytes of its SHA-256, read as a fraction: train, dev, test in this order."""
    fraction = int.from_bytes(hashlib.sha256(lemma.encode()).digest()[:8], "big") / 2**64
    if fraction < TRAIN_SHARE:
        return "train"
    return "dev" if fraction < 1 - TEST_SHARE else "test"


@functools.cache
def load_lexicon() -> tuple[LexiconWord, ...]:
    """All words in alphabetical order; splits are recomputed from the lemmas."""
    source = importlib.resources.files("antiimit_jax.text") / "data" / "words.tsv"
    lines = [line for line in source.read_text("utf-8").splitlines() if not line.startswith("#")]
    return tuple(
        LexiconWord(word=word, lemma=lemma, split=lemma_split(lemma), tokens=int(tokens))
        for word, lemma, _, tokens in (line.split("\t") for line in lines[1:])
    )


@functools.cache
def words_of(split: Split) -> tuple[str, ...]:
    """The words of a split; training may use those of `train` alone."""
    return tuple(entry.word for entry in load_lexicon() if entry.split == split)


@functools.cache
def distances(split_side: Side) -> tuple[int, ...]:
    """How far from 50 the two percentages of a pair can be, ascending."""
    percents = TRAIN_PERCENTS if split_side == "train" else HELDOUT_PERCENTS
    return tuple(sorted({abs(p - 50) for p in percents}))


def sample_percents(rng: np.random.Generator, k: int, split_side: Side) -> tuple[int, ...]:
    """k positive integer percentages that sum to 100, all on one side of the split.

    Raises:
      UserError: as `sample_many`.
    """
    return tuple(sample_many(rng, k, split_side, 1)[0].tolist())


def sample_many(rng: np.random.Generator, k: int, split_side: Side, n: int) -> np.ndarray:
    """n times k such percentages, [n, k] int.

    Uniform over the ordered admissible compositions: each part is drawn in proportion to the number
    of ways in which the rest can still be completed (`_next_part`). k is 2 to 20 on the train
    side, 2 to 100 on the held-out side.

    Raises:
      UserError: unknown side, or a k for which no such composition exists.
    """
    if split_side not in ("train", "heldout"):
        raise UserError(f"split side {split_side!r} is unknown; use train or heldout")
    percents = TRAIN_PERCENTS if split_side == "train" else HELDOUT_PERCENTS
    if k < 2 or _completions(percents, k)[k][100] == 0:
        raise UserError(f"no {k} percentages of the {split_side} side sum to 100; change k")
    parts, left = np.zeros((n, k), int), np.full(n, 100)
    for j in range(k):
        place = rng.random(n)
        for whole in np.unique(left):
            rows = left == whole
            admissible, reached = _next_part(percents, int(whole), k - j - 1)
            parts[rows, j] = admissible[np.searchsorted(reached, place[rows], side="right")]
        left -= parts[:, j]
    return parts


@functools.cache
def _next_part(percents: tuple[int, ...], left: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """What may come next of `left`, and the chances up to each, if `after` more are to follow."""
    ways, admissible = _completions(percents, after)[after], [p for p in percents if p <= left]
    reached = np.cumsum([ways[left - p] for p in admissible], dtype=float)
    return np.array(admissible), reached / reached[-1]


@functools.cache
def _completions(percents: tuple[int, ...], k: int) -> tuple[tuple[int, ...], ...]:
    """ways[j][s]: ordered ways to write s as j of these percentages, [k + 1, 101]."""
    ways = [(1, *([0] * 100))]
    for _ in range(k):
        last = ways[-1]
        ways.append(tuple(sum(last[s - p] for p in percents if p <= s) for s in range(101)))
    return tuple(ways)
