"""Which tokens end a word: published as data, built from token pieces, not from decoded text.

A word counts as said when its last token is followed by a terminator, so "car" and "carpet" are
disjoint events. Three nested sets are built: `narrow` (white space and end of turn), `standard`
(used everywhere) and `wide` (anything that is not plainly more of the same word); a sensitivity
figure says how much q moves between narrow and wide.
"""

import unicodedata
from typing import NamedTuple

import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.text.tokenizer import Tokenizer

SENTENCE = ".,;:!?…—)]}>"
QUOTES = "\"'“”‘’«»‹›„`"
EMPHASIS = "*_~"
CJK = "。、，．！？：；）】》」』〉…"
_JOINERS = "'’-‐‑"  # before a letter they go on with the word: 's, 't, 're, -bank


class Terminators(NamedTuple):
    """Boolean masks over the vocabulary, [V] each; narrow ⊂ standard ⊂ wide."""

    narrow: np.ndarray
    standard: np.ndarray
    wide: np.ndarray

    def mask(self, policy: str) -> np.ndarray:
        """[V] for a policy's name; UserError if there is none of that name."""
        if policy not in POLICIES:
            raise UserError(f"terminators {policy!r} unknown; use one of {', '.join(POLICIES)}")
        return getattr(self, policy)


POLICIES = Terminators._fields


def build_terminators(tokenizer: Tokenizer, vocab_size: int) -> Terminators:
    """The three sets for one tokenizer; rows beyond the tokenizer are in none."""
    rank = np.full(vocab_size, len(POLICIES))
    for token, piece in enumerate(tokenizer.pieces[:vocab_size]):
        rank[token] = _rank(piece)
    rank[list(tokenizer.eos_ids & set(range(vocab_size)))] = 0
    return Terminators(*(rank <= level for level in range(len(POLICIES))))


def _rank(piece: bytes) -> int:
    """0 narrow, 1 standard, 2 wide only, 3 never a terminator."""
    text = piece.decode(errors="surrogateescape")  # it may begin or end inside a character
    if not text:
        return 3  # control tokens; the end-of-turn ids are added by name
    first, second = text[0], text[1:2]
    if first in " \n\r\t\u3000\u00a0":
        return 0
    if _is_part(first) or first in _JOINERS and (second.isalpha() or _is_part(second)):
        return 3
    if first in SENTENCE + QUOTES + EMPHASIS + CJK:
        return 1
    return 3 if first.isalnum() or unicodedata.category(first).startswith("M") else 2


def _is_part(char: str) -> bool:
    """Whether it stands for a byte of a character that is not whole."""
    return "\udc80" <= char <= "\udcff"
