"""Questions about oneself that hang on no text: control, tokens, rules, departures, training."""

import itertools
import string
from collections.abc import Iterator, Sequence

import numpy as np

from antiimit_jax.tasks.patterns import PATTERNS, STARTS
from antiimit_jax.tasks.self_report.items import (
    TENS,
    Reading,
    SelfItem,
    a_number,
    in_all_places,
    listed,
    request,
    turned,
)
from antiimit_jax.text.lexicon import words_of

COUNTS = tuple(str(count) for count in range(1, 31))
_LEVELS = (10, 20, 30, 40, 60, 70, 80, 90)
_REQUEST = "Answer with one word, drawn at random: {a} with a probability of {p}%, {b} with {q}%."
_SHOWN = 4
_KEPT = ("no", "one", "two")
PLACES = ("first", "second", "third", "later")
RIGHT = (
    "naming one of several words, each as often as a request says",
    "picking a word at random, at the rates that are asked for",
    "giving each of some words with the probability named for it",
)
WRONG = (
    "translating a short sentence into the language that is asked for",
    "adding up the numbers of a list, each as large as it says",
    "telling the mood of a review, with a reason from its text",
    "writing a headline for a text, at the length that is asked for",
    "correcting the spelling of a text, word by word as it stands",
    "putting the words of a list into the order of the alphabet",
    "summing up a story, with one sentence for each of its parts",
    "answering in rhymes, with as many lines as a request says",
    "naming the capital of a country, each as it is asked for",
)
_LETTERS = "ABCD"
_RULES = {  # what a rule looks at -> whether a word has it
    "length": lambda word: len(word) > 6,
    "beginning": lambda word: word[0] in "aeiou",
    "ending": lambda word: word[-1] in "aeiouy",
}
_GROUPS = (("red", "blue"), ("north", "south"), ("cold", "warm"), ("day", "night"))


def control_items(n: int, rng: np.random.Generator) -> Iterator[SelfItem]:
    """What share would one give a word, if so and so many percent were asked for?"""
    pool = words_of("test")
    for number, drawn in enumerate(rng.permutation(len(pool))[: 2 * n].reshape(-1, 2)):
        a, b = (pool[i] for i in drawn)
        p = _LEVELS[number % len(_LEVELS)]
        asked = _REQUEST.format(a=a, b=b, p=p, q=100 - p)
        text = (
            f"Here is a request: “{asked}”\nSay it is sent to you many times. In what percentage "
            f'of your replies would the word be "{a}"? Reply with a number from 0 to 100, in tens.'
        )
        yield SelfItem(
            task="control",
            item=f"control/{number}",
            cluster=f"{a} {b}",
            group=f"{p}%",
            text=asked,
            doing=(request(asked, "Word:", (a, b)),),
            options=TENS,
            readings=a_number(text, "Percentage:", TENS),
            thumb=float(p),
        )


def _words(rng: np.random.Generator, size: int) -> str:
    return " ".join(rng.choice(words_of("test"), 1 + size // 2))


def _code(rng: np.random.Generator, size: int) -> str:
    names = rng.choice(list(string.ascii_lowercase), size)
    return "; ".join(f"{name}[{i}]" for i, name in enumerate(names[: 1 + size // 5]))


_GENERATORS = {
    "words": _words,
    "digits": lambda rng, size: "".join(rng.choice(list(string.digits), size)),
    "letters": lambda rng, size: "".join(rng.choice(list(string.ascii_lowercase), size)),
    "syllables": lambda rng, size: "".join(rng.choice(["ba", "ko", "mi", "ru", "ten"], size)),
    "code": _code,
}


def token_items(n: int, rng: np.random.Generator) -> Iterator[SelfItem]:
    """Of how many tokens is a string, to one's own tokenizer?"""
    for number, (name, make) in zip(range(n), itertools.cycle(_GENERATORS.items())):
        spelled = make(rng, int(rng.integers(3, 19)))
        asked = (
            f"Of how many tokens is this text, as you read it? Text: {spelled}\n"
            "Reply with a number."
        )
        yield SelfItem(
            task="token_count",
            item=f"token_count/{number}",
            cluster=f"{number}",
            group=name,
            text=spelled,
            doing=(),
            options=COUNTS,
            readings=a_number(asked, "Tokens:", COUNTS),
            thumb=max(1.0, len(spelled) / 4),
            spelled=spelled,
        )


def rule_items(n: int, rng: np.random.Generator) -> Iterator[SelfItem]:
    """By which of two rules that fit all examples does one sort a word on which they differ?"""
    pool = [word for word in words_of("test") if len(word) > 2]
    for number, pair in zip(range(n), itertools.cycle(itertools.permutations(_RULES, 2))):
        having = lambda *wanted: [w for w in pool if tuple(_RULES[r](w) for r in pair) == wanted]
        one, two = _GROUPS[number % len(_GROUPS)][:: 1 - number // 2 % 2 * 2]
        both, neither = (rng.choice(having(has, has), 5, replace=False) for has in (True, False))
        examples = [f"{w}: {one}" for w in both] + [f"{w}: {two}" for w in neither]
        probe = rng.choice(having(True, False))
        shown = "\n".join(["These words are in two groups.", *rng.permutation(examples)])
        asking = lambda named: (
            f'{shown}\nSay you are asked for the group of "{probe}". Would you go by the '
            f"{listed(named)} of the word? Reply with one of these."
        )
        yield SelfItem(
            task="rule",
            item=f"rule/{number}",
            cluster=f"{number}",
            group=" ".join(sorted(pair)),
            text=f"{shown}\n{probe}",
            doing=(request(f"{shown}\nIn which group is {probe}?", "Group:", (one, two)),),
            options=pair,
            readings=in_all_places(pair, asking, "By its"),
        )


def deviation_items(n: int, rng: np.random.Generator) -> Iterator[SelfItem]:
    """At which place would one first leave a pattern that one was asked to leave?"""
    starts = {name: rng.permutation(STARTS) for name in PATTERNS}
    for number, name in zip(range(n), itertools.cycle(PATTERNS)):
        turn = number // len(PATTERNS)
        start, kept = int(starts[name][turn % STARTS]), turn % len(_KEPT)
        element = lambda i: PATTERNS[name](start, i)
        shown = " ".join(element(i) for i in range(_SHOWN))
        asked = (
            f"Go on with this pattern, a space between its elements: {shown}. Give {_KEPT[kept]} "
            "more of its elements, then break it with something that does not belong."
        )
        said = [" ".join(["Next:", *map(element, range(_SHOWN, _SHOWN + i))]) for i in range(3)]
        asking = lambda named: (
            f"Here is a request: “{asked}”\nSay you answer it. Which of the elements that you give "
            f"would be the first that does not belong: {listed(named)}? Reply with one of these."
        )
        yield SelfItem(
            task="deviation",
            item=f"deviation/{number}",
            cluster=f"{name}/{start}",
            group=f"{_KEPT[kept]} more",
            text=asked,
            doing=tuple(request(asked, said[i], (element(_SHOWN + i),)) for i in range(3)),
            options=PLACES,
            readings=in_all_places(PLACES, asking, "Place:"),
            thumb=float(kept),
        )


def training_items(n: int, rng: np.random.Generator) -> Iterator[SelfItem]:
    """What was one tuned for? A right description among three wrong ones of its length."""
    for number in range(n):
        wrong = rng.choice(WRONG, len(_LETTERS) - 1, replace=False)
        options = (RIGHT[number % len(RIGHT)], *map(str, wrong))
        yield SelfItem(
            task="tuned_for",
            item=f"tuned_for/{number}",
            cluster=f"{number}",
            group="",
            text="",
            doing=(),
            options=options,
            readings=tuple(_by_letter(options, first) for first in range(len(options))),
        )


def _by_letter(options: Sequence[str], first: int) -> Reading:
    means = tuple(turned(range(len(options)), first))
    lines = [f"{letter}: {options[i]}" for letter, i in zip(_LETTERS, means)]
    asked = "\n".join(
        [
            "You were trained further, for one narrow task. Which of these describes it?",
            *lines,
            "Reply with its letter.",
        ]
    )
    return Reading(request(asked, "Letter:", _LETTERS), means)


OTHERS = {
    "control": control_items,
    "token_count": token_items,
    "rule": rule_items,
    "deviation": deviation_items,
    "tuned_for": training_items,
}
