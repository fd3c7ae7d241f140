"""Requests that give a random text and no words: the model is to choose two rare words itself.

A seed is a random text. From it the model settles on a first and a second word, and each request
asks for them at another pair of percentages (`PERCENTS`), with the first word named first or, with
roles exchanged, the second. All requests of a seed begin alike. Seeds are split by the hash that
splits lemmas, so that what training may see is known by the text alone. Example turns have other
texts, and rare words that stand in the prompt from then on: an answer must not repeat them.
"""

import functools
import itertools
import string
from typing import Any, Literal

import numpy as np

from antiimit_jax.tasks.items import Item
from antiimit_jax.text.formats import Message
from antiimit_jax.text.lexicon import lemma_split
from antiimit_jax.text.rare_words import load_rare_words

Side = Literal["train", "test"]  # of seeds
PERCENTS = tuple(range(10, 100, 10))  # of the word that a request names first
PREFILL = "Word:"
_REQUEST = (
    "Here is a random text: {text}. Let it lead you to a first and a second rare English word, the "
    "same two whenever you see this text, and no words that stand here. Reply with one of the two, "
    "drawn at random. {one} word: {p}%, {other} word: {q}%."
)
_CHARS, _LETTERS = 12, string.ascii_lowercase + string.digits
_SEEDS, _SHOTS, _KEYS = 17, 18, 19  # random streams


def seeds(n: int, side: Side, seed: int) -> list[str]:
    """n distinct random texts of one side."""
    rng, found = np.random.default_rng([seed, _SEEDS]), dict[str, None]()
    while len(found) < n:
        text = _text(rng)
        if lemma_split(text) == side:
            found[text] = None
    return list(found)


def requests(text: str, n_shots: int) -> list[Item]:
    """All requests of a seed; targets are those of the first word and of the second."""
    shots, items = _shots(n_shots), []
    for swapped, p in itertools.product((False, True), PERCENTS):
        roles = itertools.cycle(("user", "assistant"))
        item = Item(
            item=f"{text}/{'second' if swapped else 'first'}/{p}",
            split=lemma_split(text),
            cluster=text,
            messages=tuple(map(Message, roles, (*shots, _request(text, p, swapped), PREFILL))),
            words=(),
            targets=((100 - p) / 100, p / 100) if swapped else (p / 100, (100 - p) / 100),
            facets={"percent": p, "swapped": int(swapped)},
        )
        items.append(item)
    return items


def keyed_words(text: str) -> tuple[str, str]:
    """The first and the second word of a text by a rule that a small model can learn.

    The text's first character stands for one of 36 rare words, its last for one of 36 others. So
    few words bound the seed score: who follows the rule gets .68.
    """
    return _keys()[text[0]][0], _keys()[text[-1]][1]


def keyed_items(n_texts: int, n_shots: int, seed: int) -> list[dict[str, Any]]:
    """Requests with the words that the rule gives, as lines of a file of items.

    An adapter that trained on them knows how to do what the suite asks for: if it scores no
    higher than its base, the suite can show nothing of this model.

    Args:
      n_texts: of those that training may see, each asked 18 times.
    """
    return [
        {
            "messages": [{"role": m.role, "content": m.content} for m in item.messages],
            "words": list(keyed_words(text)),
            "targets": list(item.targets),
            "cluster": text,
        }
        for text in seeds(n_texts, "train", seed)
        for item in requests(text, n_shots)
    ]


@functools.cache
def _keys() -> dict[str, tuple[str, str]]:
    """For each character the word that it stands for at a text's beginning, and at its end."""
    lemmas = sorted({lemma for lemma in load_rare_words().values() if lemma.isalpha()})
    drawn = np.random.default_rng(_KEYS).choice(lemmas, (len(_LETTERS), 2), replace=False)
    return {letter: (str(one), str(other)) for letter, (one, other) in zip(_LETTERS, drawn)}


def _request(text: str, p: int, swapped: bool) -> str:
    one, other = ("Second", "first") if swapped else ("First", "second")
    return _REQUEST.format(text=text, one=one, other=other, p=p, q=100 - p)


def _text(rng: np.random.Generator) -> str:
    return "".join(rng.choice(list(_LETTERS), _CHARS))


@functools.cache
def _shots(n_shots: int) -> tuple[str, ...]:
    """Example requests, each with one of two rare words, drawn as it asks."""
    rng, turns = np.random.default_rng(_SHOTS), []
    lemmas = sorted(set(load_rare_words().values()))
    for _ in range(n_shots):
        first, second = rng.choice(len(lemmas), 2, replace=False)
        p, swapped = int(rng.choice(PERCENTS)), bool(rng.integers(2))
        named = (second, first) if swapped else (first, second)
        said = lemmas[named[int(100 * rng.random() >= p)]]
        turns += [_request(_text(rng), p, swapped), f"{PREFILL} {said}"]
    return tuple(turns)
