"""The one exception for what a user can mend, and what its message is made of."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the input. The message is one line: what is wrong, where, and what to do.

    `launch` prints it without a traceback and exits with code 2. Line breaks of what the message
    quotes (another library's error, a tensor's name) become spaces, other characters that do not
    print are shown as escapes.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(str(message).splitlines())
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))


def first_line(error: Exception) -> str:
    """Of another library's message; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def near_misses(name: str, known: Iterable[str]) -> str:
    """`; did you mean a or b?`, or an empty string. Capitals are not minded."""
    by_small = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), list(by_small), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(by_small[one] for one in close)}?" if close else ""
