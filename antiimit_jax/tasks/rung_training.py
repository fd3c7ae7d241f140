"""Requests of the ladder's rungs to train on, for adapters whose training is broad."""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.rungs import (
    Wording,
    asked_plainly,
    draw_words,
    make_item,
    unequal_percents,
    wordings,
)
from antiimit_jax.tasks.templates import TRAIN_TEMPLATES
from antiimit_jax.text.lexicon import words_of

TRAINABLE = ("L4", "L5", "L6", "L8")  # L10 and L11, which F6 compares, are never trained on
_PERCENTS = (40, 60)


@dataclasses.dataclass(frozen=True)
class RungTask:
    """The kinds of request of one rung, with words and percentages that training may see."""

    rung: str  # of TRAINABLE

    def training(self, rng: np.random.Generator) -> Iterator[Item]:
        """The endless items of one group of a training step: one kind of request, many words.

        Every word set is asked in both orders with both assignments of its percentages.
        """
        kinds = wordings(self.rung)
        wording = kinds[int(rng.integers(len(kinds)))]
        template = int(rng.choice(TRAIN_TEMPLATES))
        for number in itertools.count():
            percents, words = unequal_percents(2, rng), draw_words(wording, 2, rng)
            yield from _items(wording, f"train/{number}", words, percents, template)

    def longest(self) -> Iterator[list[Item]]:
        """Groups of items that differ from their first word on, one of every kind there is.

        Those of a kind that has words of its own hold all of these.
        """
        for wording in wordings(self.rung):
            words = wording.words or (*words_of("train")[:2], *words_of("train")[-2:])
            pairs = list(zip(words[::2], words[1::2]))
            for template in (0,) if wording.text else TRAIN_TEMPLATES:
                asked = (_items(wording, "longest", pair, _PERCENTS, template) for pair in pairs)
                yield [next(items) for items in asked]


def _items(
    wording: Wording, name: str, words: tuple[str, ...], percents: tuple[int, ...], template: int
) -> Iterator[Item]:
    asked = asked_plainly(wording, words, [percents], template)
    for order, one in enumerate(asked):
        yield make_item(one, f"{name}/{order}", "train", order, wording.kind)
