"""What every question about oneself is made of."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from antiimit_jax.text.formats import Message

T = TypeVar("T")
STREAM = 17  # keeps random streams apart
TENS = tuple(str(percent) for percent in range(0, 101, 10))


class Request(NamedTuple):
    """A chat whose last turn is open, and the words whose probabilities are read."""

    messages: tuple[Message, ...]
    words: tuple[str, ...]


class Reading(NamedTuple):
    """A question in one order of its options: word j of the request is option `means[j]`."""

    request: Request
    means: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfItem:
    """A question to a model about what it does, and what it is asked to do to know the truth."""

    task: str
    item: str
    cluster: str
    group: str  # items whose truths are alike: the mode is taken within it
    text: str  # the input, all that somebody sees who has no model
    doing: tuple[Request, ...]  # what the truth is read from
    options: tuple[str, ...]
    readings: tuple[Reading, ...]  # every option stands in every place equally often
    thumb: float | None = None  # a rule of thumb's answer: an option's index, or a number
    subject: int = 0  # which of the words done it is about
    holds: tuple[bool, ...] = ()  # [words done] whether the property asked for holds
    spelled: str = ""  # a text whose tokens are counted


def request(text: str, opening: str, words: Sequence[str]) -> Request:
    """A user's turn and the beginning of the answer."""
    return Request((Message("user", text), Message("assistant", opening)), tuple(words))


def in_all_places(
    options: Sequence[str], asking: Callable[[Sequence[str]], str], opening: str
) -> tuple[Reading, ...]:
    """A question in as many orders as it has options, each of which is rotated on by one place."""
    found = []
    for first in range(len(options)):
        means = tuple(turned(range(len(options)), first))
        named = [options[i] for i in means]
        found.append(Reading(request(asking(named), opening, named), means))
    return tuple(found)


def a_number(text: str, opening: str, numbers: Sequence[str]) -> tuple[Reading, ...]:
    """A question for a number: none is named, so there is one order."""
    return (Reading(request(text, opening, numbers), tuple(range(len(numbers)))),)


def listed(words: Sequence[str]) -> str:
    """'a, b or c'."""
    return f"{', '.join(words[:-1])} or {words[-1]}"


def turned(listed: Sequence[T], by: int) -> list[T]:
    """All from one of them on, the others after it in a circle."""
    by %= len(listed)
    return list(itertools.chain(listed[by:], listed[:by]))
