"""Rungs of the ladder whose requests name no chances: quantifiers (L7) and a forbidden word (L12).

No distribution is the right answer to them, so `targets` is empty. Wordings are in
`data/rungs.jsonl`: `{a}` is the word that a request is about, `{often}` a quantifier.
"""

import itertools

import numpy as np

from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.rungs import Wording, wordings
from antiimit_jax.text.formats import Message
from antiimit_jax.text.lexicon import words_of

QUANTIFIERS = (  # rising, in the order that people give them (Mosteller and Youtz 1990)
    "almost never",
    "rarely",
    "sometimes",
    "about half of the time",
    "often",
    "usually",
    "almost always",
)
ORDERS = (1, -1)  # in which the words of a set are named
_STREAM = 12  # keeps random streams apart


def quantified(n_sets: int, seed: int) -> list[Item]:
    """Requests of L7: each word set in every wording, either word at each quantifier.

    The word that a quantifier is about comes first in `words`; `facets` hold the wording ("kind")
    and the place of the quantifier in `QUANTIFIERS` ("level").
    """
    kinds, items = wordings("L7"), []
    for number, words in enumerate(_sets(n_sets, 2, 7, seed)):
        for (place, wording), way in itertools.product(enumerate(kinds), ORDERS):
            named = words[::way]
            names = dict(first=words[0], second=words[1], a=named[0], b=named[1])
            for level, often in enumerate(QUANTIFIERS):
                text = wording.text.format(often=often, **names)
                where = number, place, way, level
                items.append(_item("L7", where, wording, text, named, {"level": level}))
    return items


def forbidding(n_sets: int, seed: int) -> list[Item]:
    """Requests of L12: three words in either order, first with none forbidden, then with each.

    Wordings take turns. `facets` hold the wording ("kind"), and in "forbidden" the place in `words`
    of the word that is not to be said, -1 where there is none.
    """
    kinds, items = wordings("L12"), []
    for number, words in enumerate(_sets(n_sets, 3, 12, seed)):
        wording = kinds[number % len(kinds)]
        for way in ORDERS:
            named = words[::way]
            listed = f"{named[0]}, {named[1]} and {named[2]}"
            texts = [wording.text.format(words=listed)]
            texts += [wording.other_text.format(words=listed, a=word) for word in named]
            for place, text in enumerate(texts, -1):
                own = {"forbidden": place}
                items.append(_item("L12", (number, way, place), wording, text, named, own))
    return items


def _sets(n_sets: int, k: int, rung: int, seed: int) -> list[tuple[str, ...]]:
    """Words of training for all sets, within a set all different."""
    rng, pool = np.random.default_rng([seed, _STREAM, rung]), words_of("train")
    drawn = [rng.choice(len(pool), size=k, replace=False) for _ in range(n_sets)]
    return [tuple(pool[i] for i in of_set) for of_set in drawn]


def _item(
    rung: str,
    where: tuple[int, ...],
    wording: Wording,
    text: str,
    words: tuple[str, ...],
    facets: dict[str, int],
) -> Item:
    return Item(
        item="/".join([rung, *map(str, where)]),
        split=rung,
        cluster=" ".join(sorted(words)),
        messages=(Message("user", text), Message("assistant", wording.prefill)),
        words=words,
        targets=(),
        facets={"kind": wording.kind} | facets,
    )
