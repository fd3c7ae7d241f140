"""Which texts can be words that a model is asked for."""

import collections
import unicodedata
from collections.abc import Sequence

from antiimit_jax.errors import quoted

MOST_CHARS = 100  # of a name
NO_NAME = f"is empty, longer than {MOST_CHARS} or has control characters"  # what `is_name` refuses


def words_problem(words: Sequence[str]) -> str:
    """What keeps texts from being the answers of one request; empty where nothing does."""
    for word in words:
        if not word.strip():
            return f"word {quoted(word)} is empty; leave it out"
        if word != word.strip():
            return f"word {quoted(word)} begins or ends with white space; leave it out"
    twice = [word for word, count in collections.Counter(words).items() if count > 1]
    return f"word {quoted(twice[0])} is there twice" if twice else ""


def own_words_problem(words: Sequence[str]) -> str:
    """The same of words in a user's file, which are names in tables and on the page too."""
    unfit = [f"word {quoted(word)} {NO_NAME}" for word in words if not is_name(word)]
    return words_problem(words) or "".join(unfit[:1])


def is_name(text: str) -> bool:
    """Whether a text has characters that show, at most `MOST_CHARS`, and none that control."""
    control = any(unicodedata.category(char) == "Cc" for char in text)
    return bool(text.strip()) and len(text) <= MOST_CHARS and not control
