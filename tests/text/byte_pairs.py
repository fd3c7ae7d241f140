"""Byte-level byte-pair encoding in plain Python, from the lists in a GGUF file."""

from __future__ import annotations

import functools
from pathlib import Path

import gguf
import regex

# GPT-2's split; SmolLM2 cuts every digit out before it.
_WORDS = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
_CONTROL = 3


def _stand_in(byte: int) -> str:
    """GPT-2's visible character of a byte: itself where it prints, else one above U+0100."""
    prints = lambda b: 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255
    return chr(byte) if prints(byte) else chr(256 + sum(not prints(b) for b in range(byte)))


class BytePairs:
    """The tokenizer of a GGUF file."""

    def __init__(self, file: Path) -> None:
        field = gguf.GGUFReader(file).fields.__getitem__
        self.tokens: list[str] = field("tokenizer.ggml.tokens").contents()
        self.template: str = field("tokenizer.chat_template").contents()
        types = field("tokenizer.ggml.token_type").contents()
        merges = field("tokenizer.ggml.merges").contents()
        self.id_of = {token: i for i, token in enumerate(self.tokens)}
        self.control = {token: i for i, token in enumerate(self.tokens) if types[i] == _CONTROL}
        self._rank = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
        self.chars = [_stand_in(byte) for byte in range(256)]

    def plain(self, text: str) -> list[int]:
        """Text without control tokens."""
        chunks = regex.findall(r"\p{N}|\P{N}+", text)
        return [i for chunk in chunks for word in _WORDS.findall(chunk) for i in self._word(word)]

    @functools.cache
    def _word(self, word: str) -> list[int]:
        parts = [self.chars[byte] for byte in word.encode()]
        parts = [char for char in parts if char in self.id_of]  # a few rare bytes have no token
        while len(parts) > 1:
            pairs = list(zip(parts, parts[1:]))
            first = min(pairs, key=lambda pair: self._rank.get(pair, len(self._rank)))
            if first not in self._rank:
                break
            joined, at = [], 0
            while at < len(parts):
                step = 2 if tuple(parts[at : at + 2]) == first else 1
                joined.append("".join(parts[at : at + step]))
                at += step
            parts = joined
        return [self.id_of[part] for part in parts]

    def parsed(self, text: str) -> list[int]:
        """Text whose control tokens count."""
        names = "|".join(map(regex.escape, self.control))
        parts = regex.split(f"({names})", text)
        read = lambda part: [self.control[part]] if part in self.control else self.plain(part)
        return [i for part in parts for i in read(part)]
