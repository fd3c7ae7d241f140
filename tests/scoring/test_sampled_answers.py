"""Exact probabilities against answers that the real model draws, read as text.

The reader knows nothing of tokens: of an answer it takes one leading space away and reads the word
up to the first sign that ends one, by the rule that `scoring.terminators` publishes. Counts and
exact values meet in intervals of Clopper and Pearson that hold for all words and prompts together
at 99%. Read as text a word counts in whatever tokens, so up to eight tokenisations of each form are
asked for. A run counts the tokenizer's own alone: for a word that the model often writes in other
tokens, that value lies outside, and the suite `scoring` measures by how much.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import jax
import numpy as np
import pytest
from scipy import stats

from antiimit_jax.evaluation.asker import LocalAsker
from antiimit_jax.evaluation.progress import silent
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.results import BASE
from antiimit_jax.scoring.asks import Ask, Scoring
from antiimit_jax.scoring.generate import Continuation
from antiimit_jax.scoring.terminators import CJK, EMPHASIS, QUOTES, SENTENCE
from antiimit_jax.text.formats import Message
from antiimit_jax.text.lexicon import load_lexicon

DRAWS, TOKENS, LEVEL = 2000, 3, 0.99
EVERY = Scoring(tokenisations=8)  # of a form; more of them hold less than one answer in 10,000
RARE = ("litter", "armor")
ENDS = " \n\r\t\u3000\u00a0" + SENTENCE + QUOTES + EMPHASIS + CJK


def read(answer: Continuation) -> tuple[str, bool]:
    """What an answer says before the first sign that ends a word, and whether there is one."""
    text = answer.text.removeprefix(" ")
    for i, char in enumerate(text):
        goes_on = char in "'’" and text[i + 1 : i + 2].isalpha()
        if char in ENDS and not goes_on:
            return text[:i], True
    return text, answer.ended


@pytest.mark.parametrize(
    "text, ended, said",
    [
        (" river, or", False, ("river", True)),
        ("river", True, ("river", True)),
        ("river", False, ("river", False)),
        ("river's bank", False, ("river's", True)),
        ("  river", False, ("", True)),
        ("rivers", True, ("rivers", True)),
        ("", True, ("", True)),
    ],
)
def test_answers_are_read_as_text(text, ended, said):
    assert read(Continuation((), text, ended)) == said


@pytest.fixture(scope="module")
def asker(smollm2) -> LocalAsker:
    runner = Runner(smollm2, jax.local_devices()[:1])
    return LocalAsker(
        runner=runner, variant=runner.base, stage=BASE, scoring=Scoring(), seed=0, progress=silent
    )


CHANCES = (
    "Control the probabilities of your answer, which is a single word: "
    '"{}" with probability 40%, "{}" with probability 60%.'
)
DIE = (
    "A weighted die has a word on each face. Roll it once and read out the word that lies on top, "
    "nothing else. Weights: {} 30%, {} 70%."
)
SHOWN = "The die shows:"
FEW = 5  # prompts of a common length


def asks(first: int, last: int) -> list[Ask]:
    """Requests for two words, after the first few also behind an example."""
    short = [entry.word for entry in load_lexicon() if entry.tokens < TOKENS]
    words = np.random.default_rng(0).choice(short, (last, 2, 2), replace=False)
    made = []
    for number, (asked, example) in enumerate(words[first:].tolist(), first):
        said = Message("assistant", f"{SHOWN} {example[0]}")
        shot = (Message("user", DIE.format(*example)), said) if number >= FEW else ()
        turns = (Message("user", DIE.format(*asked)), Message("assistant", SHOWN))
        made.append(Ask(messages=shot + turns, words=tuple(asked)))
    if first == 0:  # the model writes "armor" in other tokens more often than in its own
        turns = (Message("user", CHANCES.format(*RARE)), Message("assistant", "Answer:"))
        made[0] = Ask(messages=turns, words=RARE)
    return made


def bounds(drawn: Sequence[list[Continuation]], asked: Sequence[Ask]) -> np.ndarray:
    """Ends of the intervals, [2, prompts, words]. An answer cut inside a word may be the word."""
    tail = (1 - LEVEL) / sum(len(ask.words) for ask in asked) / 2
    counts = [Counter(map(read, answers)) for answers in drawn]
    count = lambda whole: np.array(
        [[c[word, whole] for word in ask.words] for c, ask in zip(counts, asked)]
    )
    sure = count(True)
    most = sure + count(False)
    low = np.where(sure > 0, stats.beta.ppf(tail, sure, DRAWS - sure + 1), 0.0)
    high = np.where(most < DRAWS, stats.beta.ppf(1 - tail, most + 1, DRAWS - most), 1.0)
    return np.stack([low, high])


@pytest.mark.parametrize(
    "first, last", [(0, FEW), pytest.param(FEW, FEW + 20, marks=pytest.mark.large)]
)
def test_words_are_drawn_as_often_as_their_exact_probability_says(asker, first, last):
    asked = asks(first, last)
    prompts = [ask.messages for ask in asked]
    low, high = bounds(asker.generate(prompts, what="drawn", max_tokens=TOKENS, n=DRAWS), asked)

    def inside(scoring: Scoring, n: int = len(asked)) -> np.ndarray:
        q = np.array([a.q for a in asker.words(asked[:n], what="exact", scoring=scoring)])
        return (low[:n] <= q) & (q <= high[:n])

    assert inside(EVERY).all()
    if first == 0:  # the intervals are tight enough to tell other rules apart
        assert not inside(dataclasses.replace(EVERY, terminators="narrow")).all()
        assert not inside(Scoring(), n=1)[0, 1]
