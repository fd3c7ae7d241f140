"""Questions to a model about itself, in our own words, and what it is asked to do beside.

The truth of each is what the model that is asked does itself, read from exact probabilities or from
its tokenizer. Every item is a function of the seed.
"""

from collections.abc import Sequence

import numpy as np

from antiimit_jax.tasks.self_report.items import STREAM, Request, SelfItem
from antiimit_jax.tasks.self_report.others import OTHERS
from antiimit_jax.tasks.self_report.texts import ABOUT_TEXTS, MOST_TEXTS, Text, text_items, texts_of

ASKED = (*ABOUT_TEXTS, *OTHERS)

__all__ = [
    "ASKED",
    "MOST_TEXTS",
    "Request",
    "SelfItem",
    "Text",
    "self_items",
    "text_items",
    "texts_of",
]


def self_items(tasks: Sequence[str], n_texts: int, n_other: int, seed: int) -> list[SelfItem]:
    """The items of some tasks of `ASKED`.

    Args:
      n_texts: texts; every task about texts asks about all of them.
      n_other: items of every other task.
    """
    found = list(text_items(tasks, texts_of("asked", n_texts, seed)))
    for number, (task, make) in enumerate(OTHERS.items()):
        if task in tasks:
            found += make(n_other, np.random.default_rng([seed, STREAM, 1 + number]))
    return found
