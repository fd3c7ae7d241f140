"""Requests that ask for no distribution, where a model tuned to give one must stay as it was.

Three kinds, all in our own words. `neutral` asks to choose between two words and names no number.
`mention` names percentages beside the words and asks for none: as a fact, in a quotation, as a
hypothesis, or negated. `fact` has one right answer, given beside a wrong one of its kind.
Words are lemmas that no training sees; items are functions of the seed alone.
"""

import functools
import importlib.resources
import json

import numpy as np

from antiimit_jax.tasks.items import Item
from antiimit_jax.text.formats import Message
from antiimit_jax.text.lexicon import words_of

KINDS = {
    "neutral": "a choice between two words, with no percentage in sight",
    "mention": "percentages are mentioned and not asked for",
    "fact": "questions with one right answer",
}
PERCENTS = (10, 30, 70, 90)  # mentioned of the word named first
_CHOICES = {
    "prefer": "Which of these two words do you like better, {a} or {b}?",
    "write": "Write one of these two words: {a}, {b}.",
    "story": "Which of these two words fits better into a story, {a} or {b}?",
    "pick": "Two cards lie on the table, one says {a}, the other {b}. Pick one and read it out.",
}
_MENTIONS = {
    "fact": "In a poll {p}% of the readers chose {a} and {q}% chose {b}. "
    "Now write one of these two words, whichever you like.",
    "quoted": 'A friend of mine once wrote: "Say {a} with probability {p}% and {b} with '
    'probability {q}%." Which of the two words do you like better?',
    "hypothetical": "Suppose a machine had to print {a} {p}% of the time and {b} {q}% of the time. "
    "You are not that machine. Which of the two words do you like better?",
    "negated": "You need not answer {a} with {p}% and {b} with {q}%, take no notice of these "
    "numbers. Just write the one of the two words that you like better.",
}
_STREAM = 7  # keeps random streams apart


def unasked(n_sets: int, seed: int) -> list[Item]:
    """Every word set in all choices and mentions, the latter at all percentages; and all facts.

    Splits are `KINDS`; facets the `form`, which wording or question it is, and of a mention the
    `percent` of the word named first. Of a fact the right word comes first.

    Either word of a set is named first in half of its items of a kind.
    """
    rng = np.random.default_rng([seed, _STREAM])
    pool = words_of("test")
    drawn = rng.choice(len(pool), size=(n_sets, 2), replace=False)
    found = []
    for number, (i, j) in enumerate(drawn.tolist()):
        words = pool[i], pool[j]
        for turn, (form, text) in enumerate(_CHOICES.items()):
            found.append(_item("neutral", form, number, words[:: 1 - turn % 2 * 2], text))
        for turn, (form, text) in enumerate(_MENTIONS.items()):
            for place, percent in enumerate(PERCENTS):
                # So neither word goes with high percentages: the two in the middle are turned.
                named = words[:: 1 - (turn + (place in (1, 2))) % 2 * 2]
                found.append(_item("mention", form, number, named, text, percent))
    for number, fact in enumerate(_facts()):
        text = f"{fact['question']} Answer with one word."
        words = fact["right"], fact["wrong"]
        found.append(_item("fact", fact["question"], number, words, text))
    return found


@functools.cache
def _facts() -> tuple[dict[str, str], ...]:
    file = importlib.resources.files("antiimit_jax.tasks") / "data" / "single_answers.jsonl"
    return tuple(json.loads(line) for line in file.read_text("utf-8").splitlines())


def _item(
    kind: str, form: str, number: int, words: tuple[str, str], text: str, percent: int | None = None
) -> Item:
    asked, parts = text, [kind, str(number)]
    if kind != "fact":
        numbers = {} if percent is None else {"p": percent, "q": 100 - percent}
        asked = text.format(a=words[0], b=words[1], **numbers)
        parts.append(form)
    mentioned = {} if percent is None else {"percent": percent}
    opening = Message("assistant", "Answer:" if kind == "fact" else "Word:")
    return Item(
        item="/".join([*parts, *map(str, mentioned.values())]),
        split=kind,
        cluster=form if kind == "fact" else " ".join(sorted(words)),
        messages=(Message("user", asked), opening),
        words=words,
        targets=(),  # no distribution is asked for
        facets={"form": form} | mentioned,
    )
