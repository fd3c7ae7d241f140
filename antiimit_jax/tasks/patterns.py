"""Patterns made by rule: name -> element i of the one from a start on."""

import string
from collections.abc import Callable

_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_MONTHS = (
    "January February March April May June July August September October November December"
).split()
_PAIRS = "red blue, left right, sun moon, salt sugar, north south, tea coffee, day night".split(
    ", "
)
PATTERNS: dict[str, Callable[[int, int], str]] = {
    "counting": lambda start, i: str(11 * start + i + 1),
    "doubling": lambda start, i: str((2 * start + 1) * 2**i),
    "alphabet": lambda start, i: string.ascii_uppercase[(3 * start + i) % 26],
    "weekdays": lambda start, i: _DAYS[(start + i) % 7],
    "months": lambda start, i: _MONTHS[(start + i) % 12],
    "alternating": lambda start, i: _PAIRS[start].split()[i % 2],
}
STARTS = 7
