"""The one exception for what a user can mend: a file, a key, a flag, a word."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in the input. The message is one line: what is wrong, where, and what to do.

    `launch` prints it without a traceback and exits with code 2.
    """
