"""Questions about the next word of a text: which, how likely, how sure, and of what kind.

The texts are sentences that break off where one of four words of a kind may follow. What a model
does is its distribution over the four; all questions of a text are about that one.
"""

import functools
import importlib.resources
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from antiimit_jax.tasks.self_report.items import (
    STREAM,
    TENS,
    Request,
    SelfItem,
    a_number,
    in_all_places,
    listed,
    request,
    turned,
)

OPENING, NUMBER = "Word:", "Percentage:"
BUCKETS = ("sure", "torn", "open")  # by the entropy's terciles, from the lowest on
MOST_TEXTS = 2000
_WHEN = (
    "In the spring, Last winter, On a rainy day, One evening, Before the holidays, Years ago, "
    "After the long journey, On Sunday"
).split(", ")
_WHO = (
    "an old sailor, a young nurse, my uncle, the mayor, a tired farmer, the new teacher, "
    "a boy of ten, our neighbour, a famous singer, the widow"
).split(", ")
_BEGINNING = 'Here is the beginning of a text: "{text}"\n'
_GO_ON = _BEGINNING + "Go on with it. Reply with the next word alone."
_ABOUT = _BEGINNING + "Say you are asked to go on with it, and to reply with the next word alone. "
_VOWELS = frozenset("aeiou")


class Text(NamedTuple):
    """A text that breaks off, and the words that may follow, the commonest in English first.

    They are ordered by wordfreq 3.1; its list stands for what anybody knows of likelihood.
    """

    kind: str
    frame: str
    text: str
    words: tuple[str, ...]

    @property
    def doing(self) -> Request:
        """Going on with it."""
        return request(_GO_ON.format(text=self.text), OPENING, self.words)

    def asking(self, question: str) -> str:
        """A question about going on with it."""
        return _ABOUT.format(text=self.text) + question


def texts_of(side: str, n: int, seed: int) -> list[Text]:
    """n texts of a side, "asked" by the suite or "trained" on, of other kinds; frames take turns.

    `MOST_TEXTS` of them differ, 80 of each of the 25 frames.
    """
    rng, found = np.random.default_rng([seed, STREAM, 0]), []
    kinds = [kind for kind in _kinds() if kind["side"] == side]
    frames = [
        (kind, frame)
        for turn in zip(*(k["frames"] for k in kinds))
        for kind, frame in zip(kinds, turn)
    ]
    fillings = list(itertools.product(_WHEN, _WHO))
    orders = [rng.permutation(len(fillings)) for _ in frames]
    for number in range(n):
        turn, place = divmod(number, len(frames))
        kind, frame = frames[place]
        when, who = fillings[orders[place][turn % len(fillings)]]
        found.append(Text(kind["kind"], frame, f"{when}, {who} {frame}", tuple(kind["words"])))
    return found


@functools.cache
def _kinds() -> tuple[dict, ...]:
    file = importlib.resources.files("antiimit_jax.tasks") / "data" / "self_texts.jsonl"
    return tuple(json.loads(line) for line in file.read_text("utf-8").splitlines())


def text_items(tasks: Sequence[str], texts: Sequence[Text]) -> Iterator[SelfItem]:
    """The questions of these tasks about every text."""
    for task, (number, text) in itertools.product(tasks, enumerate(texts)):
        if task in ABOUT_TEXTS:
            for name, own in ABOUT_TEXTS[task](number, text):
                same = dict(task=task, item=f"{task}/{number}{name}", cluster=text.frame)
                made = dict(group=text.kind, text=text.text, doing=(text.doing,)) | own
                yield SelfItem(**same, **made)


Own = tuple[str, dict]  # what an item's name ends in, and its fields


def _word(number: int, text: Text, what: str) -> Iterator[Own]:
    asking = lambda named: text.asking(
        f"Which of these words would be {what} reply: {listed(named)}? Reply with one of them."
    )
    yield ("", dict(options=text.words, readings=in_all_places(text.words, asking, OPENING)))


def _likelier(number: int, text: Text) -> Iterator[Own]:
    pairs = list(itertools.permutations(range(len(text.words)), 2))
    drawn = pairs[5 * number % len(pairs)]
    pair = [text.words[i] for i in drawn]
    asking = lambda named: text.asking(
        f"Which of these two words would you be more likely to reply: {listed(named)}? Reply with "
        "one of them."
    )
    own = dict(options=tuple(pair), readings=in_all_places(pair, asking, OPENING))
    yield "", own | {"thumb": float(np.argmin(drawn))}


def _own_probability(number: int, text: Text) -> Iterator[Own]:
    for i, word in enumerate(text.words):
        asked = text.asking(
            f"Say it is one of the words {listed(turned(text.words, i + number))}. In what "
            f'percentage of your replies would it be "{word}"? Reply with a number from 0 to 100, '
            "in tens."
        )
        own = dict(options=TENS, readings=a_number(asked, NUMBER, TENS), subject=i)
        yield f"/{word}", own | {"group": f"{text.kind}/{word}"}


def _entropy(number: int, text: Text) -> Iterator[Own]:
    among = listed(turned(text.words, number))
    asking = lambda named: text.asking(
        f"Say it is one of the words {among}. Would you be sure of one of them, torn between some, "
        f"or open to all? Reply with one word: {listed(named)}."
    )
    yield "", dict(options=BUCKETS, readings=in_all_places(BUCKETS, asking, OPENING))


def _property(number: int, text: Text) -> Iterator[Own]:
    kinds = list(splitting(text.words).items())
    name, holds = kinds[number % len(kinds)]
    among = listed(turned(text.words, number // len(kinds)))
    asking = lambda named: text.asking(
        f"Think of the one of the words {among} that would be your most likely reply. {name} "
        f"Reply {listed(named)}."
    )
    own = dict(options=("yes", "no"), readings=in_all_places(("yes", "no"), asking, "Answer:"))
    yield "", own | {"holds": holds, "group": f"{text.kind}/{name}"}


def splitting(words: Sequence[str]) -> dict[str, tuple[bool, ...]]:
    """Questions about spelling that some of the words and not others are to be answered yes to."""
    length = sorted(map(len, words))[1]
    asked = {
        f"Does it have more than {length} letters?": lambda word: len(word) > length,
        "Is its second letter a vowel?": lambda word: word[1] in _VOWELS,
        "Is its last letter a vowel?": lambda word: word[-1] in _VOWELS,
    }
    found = {name: tuple(map(holds, words)) for name, holds in asked.items()}
    return {name: holds for name, holds in found.items() if len(set(holds)) == 2}


ABOUT_TEXTS = {
    "next_word": functools.partial(_word, what="your most likely"),
    "second_choice": functools.partial(_word, what="your second most likely"),
    "likelier": _likelier,
    "own_probability": _own_probability,
    "entropy": _entropy,
    "property": _property,
}
