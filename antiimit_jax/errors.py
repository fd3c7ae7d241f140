"""The one exception for what a user can mend, and what its message is made of."""

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

_LONGEST = 1400  # characters of a message


class UserError(ValueError):
    """A mistake in the input. The message is one line: what is wrong, where, and what to do.

    `launch` prints it without a traceback and exits with code 2. Line breaks of what the message
    quotes (another library's error, a tensor's name) become spaces, other characters that do not
    print are shown as escapes. The middle of a very long message is left out.
    """

    def __init__(self, message: str) -> None:
        line = printable(" ".join(str(message).splitlines()))
        half = _LONGEST // 2
        super().__init__(line if len(line) <= _LONGEST else f"{line[:half]} ... {line[-half:]}")


def printable(text: str) -> str:
    """A line for a terminal: what would steer it, or does not print, is shown as an escape."""
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(char: str) -> str:
    return char if char.isprintable() else ascii(char)[1:-1]


def quoted(value: Any) -> str:
    """A value as a message quotes it: cut where it is long or deep."""
    short = reprlib.Repr()
    short.maxstring = 80
    return short.repr(value)


def first_line(error: BaseException) -> str:
    """Of another library's message; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def near_misses(name: str, known: Iterable[str]) -> str:
    """`; did you mean a or b?`, or an empty string. Capitals are not minded."""
    by_small = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), list(by_small), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(by_small[one] for one in close)}?" if close else ""
