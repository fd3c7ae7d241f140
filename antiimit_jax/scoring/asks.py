"""What a suite puts to a model, and what it gets back: text in, exact probabilities out."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from antiimit_jax.tasks.neutral import NeutralPrompt
from antiimit_jax.text.formats import Message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
    """What counts as saying a word."""

    forms: str = "strict"
    terminators: str = "standard"
    tokenisations: int = 1  # of a form: the tokenizer's own, then those of the fewest tokens
    temperature: float = 1.0  # at which the tokens of words are drawn

    @property
    def name(self) -> str:
        """As the tables hold it."""
        drawn = f"/{self.temperature:g}" * (self.temperature != 1)
        return f"{self.forms}/{self.terminators}/{self.tokenisations}{drawn}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ask:
    """A chat, its last turn open, and the words whose probabilities are asked."""

    messages: tuple[Message, ...]
    words: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """One kind of work of a suite, as the memory plan must know it."""

    name: str
    kind: Literal[  # the asker's method
        "words", "first_tokens", "top_words", "lexicon_words", "texts", "generate"
    ]
    asks: tuple[Any, ...]  # all of them: each an `Ask`, or an unrelated text
    scorings: tuple[Scoring, ...] = ()  # of words
    paths: int = 0  # of lexicon_words, after each prompt
    n: int = 1  # of generate: continuations of each prompt, each of `max_tokens`
    max_tokens: int = 0
    weights: Literal["own", "rounded", "changed"] = "own"  # to bfloat16, or to a ruler's in float32
    of_base: int = 0  # how often the base alone is asked; 0: every stage, once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """A model's answer to one ask. `q_low` and `q_high` equal `q` where that is exact."""

    q: np.ndarray  # [words]
    q_low: np.ndarray
    q_high: np.ndarray
    residual: float  # probability of anything but the words
    prompt: str  # as the model read it
    prompt_ids: tuple[int, ...]
    form_counts: tuple[int, ...]  # [words]
    token_counts: tuple[int, ...]  # [words] of each word's shortest form


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirstToken:
    """How a model's answer to one ask begins: a distribution over its whole vocabulary."""

    p: np.ndarray  # float64 [V], sums to 1
    said: tuple[Mapping[int, float], ...]  # of it, what the words hold under each scoring: sum of q
    texts: Sequence[str]  # [V] what each token spells; "" where it ends the answer


class TextAnswer(NamedTuple):
    """The scored tokens of one text, and how the model differs from its base at each: [n]."""

    text: NeutralPrompt
    position: list[int]
    token: list[int]  # the one that follows
    differences: dict[str, list]  # field of `scoring.differences.Differences` -> values
