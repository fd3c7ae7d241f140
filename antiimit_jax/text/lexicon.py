"""The words and percentages of the control task, and which of them training may see.

All sides of a split are decided here and nowhere else: words by a hash of their lemma, percentages
by a fixed set that is closed under p -> 100 - p, so the complement of a held-out percentage never
stands in a training prompt. Words that training never sees are `dev`, on which settings are chosen,
or `test`, on which results are told. The words are `data/words.tsv`, made by
`tests/text/build_lexicon.py`.
"""

import collections
import dataclasses
import functools
import hashlib
import importlib.resources
import typing
from pathlib import Path
from typing import Literal

import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.json_files import UserFile, read_lines
from antiimit_jax.text.words import own_words_problem

Side = Literal["train", "heldout"]  # of percentages
Split = Literal["train", "dev", "test"]  # of lemmas

TRAIN_SHARE, TEST_SHARE = 0.7, 0.15  # dev has the rest
TRAIN_PERCENTS: tuple[int, ...] = tuple(p for p in range(5, 100, 5) if p not in (15, 35, 65, 85))
HELDOUT_PERCENTS: tuple[int, ...] = tuple(p for p in range(1, 100) if p not in TRAIN_PERCENTS)
LEAST_WORDS = 20  # of each split of a user's words
MOST_PERCENTS = 100  # of which a hundred can be the sum


@dataclasses.dataclass(frozen=True, kw_only=True)
class LexiconWord:
    """One base form. `tokens` counts " word" under the embedded tokenizer."""

    word: str
    lemma: str
    split: Split
    tokens: int = 0  # 0: not counted


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
def words_of(split: Split, words_file: str = "") -> tuple[str, ...]:
    """The words of a split, ours or a user's; training may use those of `train` alone."""
    entries = load_words(words_file).entries if words_file else load_lexicon()
    return tuple(entry.word for entry in entries if entry.split == split)


@functools.cache
def load_words(path: str) -> UserFile[LexiconWord]:
    """A user's words, one a line, or each with its lemma behind a tab; read once in a process.

    A word without a lemma is its own. Splits are those of our words, by the same hash.

    Raises:
      UserError: no such file, the first line that is no word or repeats one, or too few words.
    """
    file, entries = Path(path).expanduser(), dict[str, LexiconWord]()
    held = read_lines(file, hint="give a file with a word a line")
    for number, line in enumerate(held.entries, 1):
        word, *lemma = line.split("\t")
        problem = own_words_problem([word]) or own_words_problem(lemma)
        if len(lemma) > 1:
            problem = f"{len(lemma)} tabs; give a word, or a word, a tab and its lemma"
        if problem or word in entries:
            raise UserError(f"{file}: line {number}: {problem or f'word {word!r} is there twice'}")
        split = lemma_split(*lemma or [word])
        entries[word] = LexiconWord(word=word, lemma=(*lemma, word)[0], split=split)
    counts = collections.Counter(entry.split for entry in entries.values())
    if least := [split for split in typing.get_args(Split) if counts[split] < LEAST_WORDS]:
        raise UserError(
            f"{file}: {counts[least[0]]} of the {len(entries)} words are {least[0]} words (a hash "
            f"of the lemma decides), {LEAST_WORDS} are needed; give about 200 words or more"
        )
    return held.holding(entries.values())


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
    of ways in which the rest can still be completed (`_next_part`). So shares are Dirichlet(1, ..,
    1), flat over all that sum to one, on the grid of a side's percentages: nothing is rounded,
    equal shares are as likely as any other composition, and one share follows Beta(1, k - 1) as
    nearly as the grid allows. k is 2 to 20 on the train side, 2 to 100 on the held-out side.

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
