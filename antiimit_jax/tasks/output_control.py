"""Output control with the words given: the request states words and percentages.

Items are functions of (seed, indices) alone. Training items stream without end, row by row;
evaluation items come in counterbalanced word sets: each in both orders and with both assignments
of its percentages.
"""

import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.fields import between, free, shared, unweighed
from antiimit_jax.tasks.cells import MOST_ITEMS, Cell, apportion, normal
from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.material import OURS, Material
from antiimit_jax.tasks.templates import TEMPLATES, TRAIN_TEMPLATES
from antiimit_jax.text.formats import Message
from antiimit_jax.text.lexicon import Side, Split, sample_percents

_SIDES: dict[str, tuple[Split, Side]] = {  # of a split's words and percentages
    "train": ("train", "train"),
    "heldout_words": ("test", "train"),
    "heldout_percent": ("train", "heldout"),
    "heldout_both": ("test", "heldout"),
    "dev_words": ("dev", "train"),  # what recipes are chosen by, so no result is told of it
}
SPLITS = tuple(_SIDES)
REPORTED = tuple(split for split in SPLITS if split != "dev_words")
N_SHOT_SETS = 8
_EVAL_STREAM, _SHOT_STREAM, _SET_STREAM = 2, 3, 5  # keep random streams apart


class Kind(NamedTuple):
    """What an item is besides its words; its facets."""

    template: int
    n_shots: int
    shot_set: int  # -1 without shots
    order: int = 0  # place among the items of its word set


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """What is asked for, and how often: a weight for each word count and each number of shots.

    In training they are drawn apart. In an evaluation a word set departs from a plain request, one
    of the first word count and number of shots in a phrasing that training may use, in one respect
    at most, so that each slice has many word sets; the weights are shares of all sets.
    """

    words_file: str = shared("words_file")
    templates_file: str = shared("templates_file")
    # Of a user's file all are used, in training those it may see.
    templates: tuple[int, ...] = between(
        0, len(TEMPLATES) - 1, TRAIN_TEMPLATES, "numbers among our phrasings", filled=True
    )
    ks: tuple[int, ...] = between(2, 10, (2,), "word counts")
    k_weights: tuple[float, ...] = between(0.0, 1e6, (1.0,), "how often each word count is asked")
    shots: tuple[int, ...] = between(0, 1000, (0,), "numbers of example turns")
    shot_weights: tuple[float, ...] = between(
        0.0, 1e6, (1.0,), "how often each number of them is asked"
    )
    heldout_weight: float = between(0.0, 1.0, 0.0, "of held-out phrasings in an evaluation")
    percents_per_set: int = between(
        1, 64, 1, "percentages of a word set in training, each with both assignments"
    )
    word_sets: int = between(
        0, 10_000_000, 0, "different word sets in training, of each word count; 0: no end of them"
    )
    both_orders: bool = free(False, "train each word set in both orders, as evaluation always asks")

    def problems(self, path: str) -> list[str]:
        """Weights that do not fit what they weigh."""
        return unweighed(self, path, ks="k_weights", shots="shot_weights")

    @property
    def material(self) -> Material:
        """What requests are made of."""
        return Material(self.words_file or "", self.templates_file or "")

    def _numbers(self, *, training: bool) -> tuple[int, ...]:
        """Of the phrasings."""
        if not self.templates_file:
            return self.templates
        known = enumerate(self.material.templates)
        return tuple(i for i, template in known if not (training and template.heldout))

    def training(self, rng: np.random.Generator) -> Iterator[Item]:
        """The endless items of one group of a training step: one template and shot set, many words.

        Every word set is asked twice for each of its percentages, the second time turned by one
        place, so that what tells the two apart is the request and not the words; with `both_orders`
        all these requests come once more, named from the last word to the first. A shot set has
        one word count, so items with shots all have the same.
        """
        template = int(rng.choice(self._numbers(training=True)))
        n_shots = int(rng.choice(self.shots, p=normal(self.shot_weights)))
        kind = Kind(template, n_shots, int(rng.integers(N_SHOT_SETS)) if n_shots else -1)
        number = k = 0
        while True:
            if not (k and n_shots):
                k = int(rng.choice(self.ks, p=normal(self.k_weights)))
            words, asked = self._trained_words(rng, k), [sample_percents(rng, k, "train")]
            asked += [sample_percents(rng, k, "train") for _ in range(self.percents_per_set - 1)]
            requests = [(words, p) for one in asked for p in (one, (*one[1:], one[0]))]
            if self.both_orders:
                requests += [(named[::-1], asked[::-1]) for named, asked in requests]
            for named, asked in requests:
                yield _make_item(self.material, f"train/{number}", "train", named, asked, kind)
                number += 1

    def _trained_words(self, rng: np.random.Generator, k: int) -> tuple[str, ...]:
        """Any word set, or one of the first `word_sets` of a list that all runs share."""
        if self.word_sets:
            rng = np.random.default_rng([_SET_STREAM, k, int(rng.integers(self.word_sets))])
        return _draw_words(self.material, rng, "train", k)

    @property
    def plain(self) -> "Mixture":
        """Plain requests alone."""
        one = dict(k_weights=(1.0,), shot_weights=(1.0,), heldout_weight=0.0)
        return dataclasses.replace(self, ks=self.ks[:1], shots=self.shots[:1], **one)

    def evaluation(self, split: str, n_items: int, seed: int) -> list[Item]:
        """Counterbalanced items of a split: as many word sets as make `n_items`, or a few more.

        Each set has a template, words and percentages of its own; with each of these percentages
        (`Cell.percents`) it has four items, in both orders and both assignments, after one shot
        set. Kinds of request follow their weights by largest remainder; templates take turns, and
        so do shot sets, of which each word set meets several.

        Raises:
          UserError: unknown split, or more word sets than its words make.
        """
        if split not in SPLITS:
            raise UserError(f"split {split!r} unknown; use some of {', '.join(SPLITS)}")
        rng = np.random.default_rng([seed, _EVAL_STREAM, SPLITS.index(split)])
        side = _SIDES[split][1]
        counts = self._counts(n_items, side)
        self._check_words(split, counts)
        sets = [(c, asked) for c, n in counts.items() for asked in c.percents(n, side, rng)]
        items, seen, turns = [], set(), collections.Counter()
        for number, i in enumerate(rng.permutation(len(sets))):
            cell, asked = sets[i]
            words = _draw_words(self.material, rng, split, cell.k)
            while frozenset(words) in seen:
                words = _draw_words(self.material, rng, split, cell.k)
            seen.add(frozenset(words))
            lap, place = divmod(turns[cell], len(cell.templates))
            turns[cell] += 1
            orders = itertools.product(asked, (words, words[::-1]), (1, -1))
            for order, (percents, named, way) in enumerate(orders):
                meets = (lap + place + order // 4) % N_SHOT_SETS  # all templates, in its turn
                shot_set = meets if cell.n_shots else -1
                kind = Kind(cell.templates[place], cell.n_shots, shot_set, order)
                name = f"{split}/{number}/{order}"
                items.append(_make_item(self.material, name, split, named, percents[::way], kind))
        return items

    def _counts(self, n_items: int, side: Side) -> dict[Cell, int]:
        """How many word sets of each kind make so many items."""
        cells = self._cells()
        for sets in itertools.count(-(-n_items // MOST_ITEMS)):
            counts = apportion(np.array(list(cells.values())), sets)
            if sum(cell.n_items(n, side) for cell, n in zip(cells, counts)) >= n_items:
                return dict(zip(cells, counts.tolist()))

    def _check_words(self, split: str, counts: dict[Cell, int]) -> None:
        """Raises UserError where so many word sets are not drawn from a split's words soon."""
        n, sets = len(self.material.words(_SIDES[split][0])), collections.Counter()
        for cell, count in counts.items():
            sets[cell.k] += count
        if scarce := [k for k in sets if 2 * sets[k] > math.comb(n, k)]:
            asked = f"{sets[scarce[0]]} sets of {scarce[0]} words"
            raise UserError(
                f"{split}: {asked} cannot be made of {n} words without repeats; lower "
                "control.n_items or give more words in words_file"
            )

    def _cells(self) -> dict[Cell, float]:
        """The kinds of request of an evaluation with their weights, plain requests first."""
        trained, heldout = [], []
        for template in self._numbers(training=False):
            (heldout if self.material.templates[template].heldout else trained).append(template)
        plain = Cell(self.ks[0], self.shots[0], tuple(trained or heldout))
        k_shares, shot_shares = normal(self.k_weights), normal(self.shot_weights)
        found = {plain: 0.0}
        found |= {plain._replace(k=k): w for k, w in zip(self.ks[1:], k_shares[1:])}
        found |= {plain._replace(n_shots=n): w for n, w in zip(self.shots[1:], shot_shares[1:])}
        if trained and heldout:
            found[plain._replace(templates=tuple(heldout))] = self.heldout_weight
        found[plain] = max(1 - sum(found.values()), 0)
        return found

    def longest(self) -> Iterator[list[Item]]:
        """Groups of two items that differ from their first word on, one of every kind there is.

        What a group shares is the common beginning that items of its kind have.
        """
        words, numbers = self.material.words("train"), self._numbers(training=True)
        for template, n_shots, k in itertools.product(numbers, self.shots, self.ks):
            percents = [100 // k] * (k - 1) + [100 - (k - 1) * (100 // k)]
            for shot_set in range(N_SHOT_SETS) if n_shots else (-1,):
                kind = Kind(template, n_shots, shot_set)
                yield [
                    _make_item(self.material, f"longest/{i}", "train", chosen, percents, kind)
                    for i, chosen in enumerate((words[:k], words[-k:]))
                ]


def _draw(
    material: Material, rng: np.random.Generator, split: str, k: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """k distinct words and k percentages from the sides this split stands on."""
    return _draw_words(material, rng, split, k), sample_percents(rng, k, _SIDES[split][1])


def _draw_words(
    material: Material, rng: np.random.Generator, split: str, k: int
) -> tuple[str, ...]:
    pool = material.words(_SIDES[split][0])
    return tuple(pool[i] for i in rng.choice(len(pool), size=k, replace=False))


@functools.lru_cache(maxsize=1024)
def few_shot_turns(
    template: int, k: int, n_shots: int, shot_set: int, material: Material = OURS
) -> tuple[tuple[Message, ...], tuple[float, ...] | None]:
    """Question and answer turns of a shot set, and the shares asked in the last one.

    Words and percentages are from the training side; each answer is one word drawn from what was
    asked. A set is a function of its arguments, the same in every run.
    """
    if not n_shots:
        return (), None
    phrasing = material.templates[template]
    rng = np.random.default_rng([_SHOT_STREAM, template, k, shot_set])
    turns: list[Message] = []
    shares: tuple[float, ...] = ()
    for _ in range(n_shots):
        words, percents = _draw(material, rng, "train", k)
        shares = tuple(p / 100 for p in percents)
        answer = words[int(rng.choice(k, p=shares))]
        turns.append(Message("user", phrasing.request(words, percents)))
        turns.append(Message("assistant", f"{phrasing.prefill} {answer}".lstrip()))
    return tuple(turns), shares


def _make_item(
    material: Material,
    name: str,
    split: str,
    words: Sequence[str],
    percents: Sequence[int],
    kind: Kind,
) -> Item:
    phrasing = material.templates[kind.template]
    turns, _ = few_shot_turns(kind.template, len(words), kind.n_shots, kind.shot_set, material)
    request = Message("user", phrasing.request(words, percents))
    return Item(
        item=name,
        split=split,
        cluster=" ".join(sorted(words)),
        words=tuple(words),
        targets=tuple(p / 100 for p in percents),
        messages=(*turns, request, Message("assistant", phrasing.prefill)),
        facets=kind._asdict() | {"template_heldout": phrasing.heldout},
        material=material,
    )


def without_percents(item: Item) -> tuple[Message, ...]:
    """The same request without percentages, after the same examples."""
    phrasing = item.material.templates[item.facets["template"]]
    turns, _ = _turns_of(item)
    request = Message("user", phrasing.prior_request(item.words))
    return (*turns, request, Message("assistant", phrasing.prefill))


def last_shot(item: Item) -> tuple[float, ...] | None:
    """The shares asked in an item's last few-shot turn; None without shots."""
    return _turns_of(item)[1]


def _turns_of(item: Item) -> tuple[tuple[Message, ...], tuple[float, ...] | None]:
    template, n_shots, shot_set = (item.facets[f] for f in ("template", "n_shots", "shot_set"))
    return few_shot_turns(template, len(item.words), n_shots, shot_set, item.material)
