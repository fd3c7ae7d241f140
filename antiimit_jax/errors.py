"""The one exception for what a user can mend: a file, a key, a flag, a word."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in the input. The message is one line: what is wrong, where, and what to do.

    `launch` prints it without a traceback and exits with code 2. Line breaks of what the message
    quotes (another library's error, a tensor's name) become spaces, other characters that do not
    print are shown as escapes.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(str(message).splitlines())
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))
