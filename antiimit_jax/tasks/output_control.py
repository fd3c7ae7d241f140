"""Output control with the words given: the request states words and percentages.

Items are functions of (seed, indices) alone. Training items stream without end, row by row;
evaluation items come in counterbalanced blocks: each word set in both orders and with both
assignments of its percentages.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.fields import between, free, shared
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
_EVAL_STREAM, _SHOT_STREAM = 2, 3  # keep random streams apart


class Kind(NamedTuple):
    """What an item is besides its words; its facets."""

    template: int
    n_shots: int
    shot_set: int  # -1 without shots
    order: int = 0  # place in the counterbalanced block


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """What is asked for, and how often: a weight for each word count and each number of shots."""

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
    both_orders: bool = free(False, "train each word set in both orders, as evaluation always asks")

    def problems(self, path: str) -> list[str]:
        """Weights that do not fit what they weigh."""
        return [
            f"{path}.{values} {given} and {path}.{weights} {weight} do not match"
            for values, weights in (("ks", "k_weights"), ("shots", "shot_weights"))
            for given, weight in ((getattr(self, values), getattr(self, weights)),)
            if not given or len(given) != len(weight) or sum(map(abs, weight)) == 0
        ]

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

        Every word set is asked twice, the second time with the percentages turned by one place, so
        that what tells the two apart is the request and not the words; with `both_orders` twice
        more, the same two requests named from the last word to the first. A shot set has one word
        count, so items with shots all have the same.
        """
        template = int(rng.choice(self._numbers(training=True)))
        n_shots = int(rng.choice(self.shots, p=_normal(self.shot_weights)))
        kind = Kind(template, n_shots, int(rng.integers(N_SHOT_SETS)) if n_shots else -1)
        number = k = 0
        while True:
            if not (k and n_shots):
                k = int(rng.choice(self.ks, p=_normal(self.k_weights)))
            words, percents = _draw(self.material, rng, "train", k)
            requests = [(words, percents), (words, (*percents[1:], percents[0]))]
            if self.both_orders:
                requests += [(named[::-1], asked[::-1]) for named, asked in requests]
            for named, asked in requests:
                yield _make_item(self.material, f"train/{number}", "train", named, asked, kind)
                number += 1

    def evaluation(self, split: str, n_items: int, seed: int) -> list[Item]:
        """`n_items` (rounded up to whole blocks of four) counterbalanced items of a split.

        Block b has its own word set, percentages, word count, template and shot set; word counts
        and shots follow their weights by largest remainder, templates and shot sets take turns.

        Raises:
          UserError: unknown split.
        """
        if split not in SPLITS:
            raise UserError(f"split {split!r} unknown; use some of {', '.join(SPLITS)}")
        blocks = -(-n_items // 4)
        rng = np.random.default_rng([seed, _EVAL_STREAM, SPLITS.index(split)])
        cells = _allocate(self, blocks)
        rng.shuffle(cells)
        items, seen, numbers = [], set(), self._numbers(training=False)
        for block, (k, n_shots) in enumerate(cells):
            words, percents = _draw(self.material, rng, split, k)
            while frozenset(words) in seen:
                words, percents = _draw(self.material, rng, split, k)
            seen.add(frozenset(words))
            lap, place = divmod(block, len(numbers))
            template = numbers[place]
            shot_set = (lap + place) % N_SHOT_SETS if n_shots else -1  # meets all templates
            orders = itertools.product((words, words[::-1]), (percents, percents[::-1]))
            for order, (named, asked) in enumerate(orders):
                kind = Kind(template, n_shots, shot_set, order)
                items.append(
                    _make_item(self.material, f"{split}/{block}/{order}", split, named, asked, kind)
                )
        return items

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


def _allocate(mixture: Mixture, blocks: int) -> list[tuple[int, int]]:
    """(k, n_shots) for every block, proportional to the product of their weights."""
    cells = [(k, n) for k in mixture.ks for n in mixture.shots]
    weights = np.outer(_normal(mixture.k_weights), _normal(mixture.shot_weights)).ravel()
    exact = weights * blocks
    counts = np.floor(exact).astype(int)
    for i in np.argsort(counts - exact, kind="stable")[: blocks - counts.sum()]:
        counts[i] += 1
    return [cell for cell, count in zip(cells, counts) for _ in range(count)]


def _normal(weights: Sequence[float]) -> np.ndarray:
    array = np.asarray(weights, float)
    return array / array.sum()


def _draw(
    material: Material, rng: np.random.Generator, split: str, k: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """k distinct words and k percentages from the sides this split stands on."""
    words, side = _SIDES[split]
    pool = material.words(words)
    chosen = rng.choice(len(pool), size=k, replace=False)
    return tuple(pool[i] for i in chosen), sample_percents(rng, k, side)


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
