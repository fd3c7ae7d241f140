"""Byte-level vocabularies as packages carry them: tokens and their ranks."""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers.convert_slow_tokenizer import TikTokenConverter

Ids = list[int]
Ranks = dict[bytes, int]


def data_of(package: str, name: str) -> Path:
    """A file of an installed package, which need not be importable; skips the test without it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed: make test installs it, with --no-deps")
    return Path(spec.submodule_search_locations[0]) / name


def tiktoken_ranks(file: Path) -> Ranks:
    lines = (line.split() for line in file.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def tekken_ranks() -> tuple[Ranks, str]:
    """Mistral's tekken: ranks and its own expression; ids begin behind 1000 control tokens."""
    file = json.loads(data_of("mistral_common", "data/tekken_240718.json").read_text("utf-8"))
    size = file["config"]["default_vocab_size"] - file["config"]["default_num_special_tokens"]
    tokens = [base64.b64decode(token["token_bytes"]) for token in file["vocab"][:size]]
    return {token: rank for rank, token in enumerate(tokens)}, file["config"]["pattern"]


def reader_of_ranks(ranks: Ranks, split: str, first_id: int = 0) -> Callable[[str], Ids]:
    """tiktoken's own reading."""
    tiktoken = pytest.importorskip("tiktoken")
    encoding = tiktoken.Encoding("t", pat_str=split, mergeable_ranks=ranks, special_tokens={})
    return lambda text: [first_id + i for i in encoding.encode_ordinary(text)]


def vocab_and_merges(ranks: Ranks) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """transformers' conversion of ranks to byte-level strings."""
    converter = TikTokenConverter()
    converter.load_tiktoken_bpe = lambda _: ranks  # what it would read from a file
    return converter.extract_vocab_merges_from_model("")
