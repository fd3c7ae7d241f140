"""How work tells what is done: a function from (what, how many) to one told of each."""

from collections.abc import Callable
from typing import Protocol


class Done(Protocol):
    """Told that `count` more are done, and in a few words how it goes."""

    def __call__(self, count: int, how: str = "", /) -> None: ...


Progress = Callable[[str, int], Done]


def silent(what: str, total: int) -> Done:
    """Tells nobody."""
    return lambda done, how="": None
