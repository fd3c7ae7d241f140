"""Answers in many words (L9 of the ladder): each word has the same chances, whatever came before.

The words said so far stand in the open turn; `facets` hold the place of the next one ("place", from
1 on), and how often the word named first was said before it ("said").
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from antiimit_jax.tasks.items import Item
from antiimit_jax.text.formats import Message

PLACES = (1, 2, 4, 8, 16)  # of the words that are asked
_STREAM = 14  # keeps random streams apart


def at_places(item: Item, seed: int) -> list[Item]:
    """A request at all places of its answer, after words drawn from its targets."""
    where = map(int, item.item.split("/")[1:])
    rng = np.random.default_rng([seed, _STREAM, *where])
    said = rng.choice(item.words, size=PLACES[-1] - 1, p=item.targets).tolist()
    return [after(item, said[: place - 1]) for place in PLACES]


def after(item: Item, said: Sequence[str]) -> Item:
    """A request whose answer has begun with these words."""
    request, opened = item.messages
    place = len(said) + 1
    where = dict(kind=f"place {place}", place=place, said=said.count(item.words[0]))
    return dataclasses.replace(
        item,
        item=f"{item.item}/{place}",
        messages=(request, Message("assistant", " ".join([opened.content, *said]))),
        facets=dict(item.facets) | where,
    )
