"""Regular expressions from a foreign file: matched without trusting that the matching ends.

Run as a program, this file matches what standard input holds; it imports the standard library only.
"""

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterable, Sequence

_PLAIN = re.compile(r"[\w.\\^$-]*")  # neither repeats nor choices: matching is quick
_SECONDS = 2.0
_MOST_CHARACTERS, _MOST_PAIRS = 200_000, 4_000_000  # of all patterns; of a pattern and a name


def match_names(
    patterns: Iterable[str], names: Sequence[str], *, before: str = "", after: str = ""
) -> list[list[str | None]]:
    """Matches each pattern, between `before` and `after`, from the beginning of each name.

    Returns:
      For each pattern and name the group `idx` (or "") where it matches, else None.

    Raises:
      ValueError: one of them is no regular expression, there is too much to match, or all take
        longer than two seconds.
    """
    patterns = list(patterns)
    if sum(map(len, patterns)) > _MOST_CHARACTERS or len(patterns) * len(names) > _MOST_PAIRS:
        raise ValueError("too many or too long patterns")
    whole = [before + pattern + after for pattern in patterns]
    try:
        with warnings.catch_warnings(action="ignore"):  # "[[" may mean a set of sets one day
            for pattern in whole:
                re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"no regular expression ({error})") from error
    if all(_PLAIN.fullmatch(pattern) for pattern in patterns):
        return _match(whole, names)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", __file__],
            input=json.dumps([whole, list(names)]),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError("too slow to match; write it more simply") from error
    return json.loads(done.stdout)


def _match(patterns: Sequence[str], names: Sequence[str]) -> list[list[str | None]]:
    rows = []
    for compiled in map(re.compile, patterns):
        hits = [compiled.match(name) for name in names]
        rows.append([hit and hit.groupdict().get("idx", "") for hit in hits])
    return rows


if __name__ == "__main__":
    json.dump(_match(*json.load(sys.stdin)), sys.stdout)
