"""Whatever a tokenizer's file asks for ends in one line within seconds, and costs no program."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from antiimit_jax.models.gguf import GgufCheckpoint
from antiimit_jax.text.limited_process import PROCESS
from antiimit_jax.text.tokenizer import load_tokenizer
from tests.models.mutated_files import F32, LIST, STRING, encode_gguf, sound_gguf
from tests.models.mutated_json import mutated
from tests.models.refusals import refused
from tests.random_decoder import byte_tokenizer

SECONDS, TEXT = 5, "A word: 3 naïve\n"
Document = dict[str, Any]


@pytest.fixture
def document(tmp_path) -> Document:
    """A sound `tokenizer.json`, whose folder is tmp_path; the child process is there."""
    byte_tokenizer(["a small text of some words, and more"] * 4, 290).hf.save_pretrained(tmp_path)
    return json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Little processor time of this process and its child is taken, the child's start included."""
    taken = lambda: sum(os.times()[:4])  # that of children counts when they have ended
    PROCESS.stop()
    began = taken()
    yield
    PROCESS.stop()
    assert taken() - began < SECONDS


@pytest.fixture(autouse=True)
def quiet(capfd) -> Iterator[None]:
    """Nothing is printed: a panic in Rust writes a page."""
    yield
    assert capfd.readouterr() == ("", "")


def _replace(pattern: str, content: str) -> Document:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def _many(steps: list[Document]) -> Document:
    return {"type": "Sequence", "normalizers": steps}


HOSTILE: dict[str, tuple[str, Any]] = {
    "5 MB before a text": ("normalizer", {"type": "Prepend", "prepend": "xy " * 1_700_000}),
    "every letter doubled, 40 times": ("normalizer", _many([_replace("a", "aa")] * 40)),
    "a slow expression": (
        "pre_tokenizer",
        {
            "type": "Split",
            "pattern": {"Regex": "(?:[A-Za-z ]|[a-z]|[A-Z])+[0-2]"},
            "behavior": "Isolated",
            "invert": False,
        },
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_time(name, document, tmp_path):
    key, value = HOSTILE[name]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document | {key: value}))
    with in_time(), refused(str(tmp_path), "tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_trap_for_one_text_is_sprung_in_the_child(name, document, tmp_path):
    """No probe finds it: it waits for a letter."""
    trap = {
        "5 MB before a text": _replace("ж", "xy " * 1_700_000),
        "every letter doubled, 40 times": _many([_replace("ж", "жж")] * 40),
        "a slow expression": {
            "type": "Replace",
            "pattern": {"Regex": "ж(?:[A-Za-z ]|[a-z]|[A-Z])+[0-2]"},
            "content": "",
        },
    }[name]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document | {"normalizer": trap}))
    tokenizer = load_tokenizer(tmp_path)
    plain = tokenizer.encode_plain("a word")
    with in_time(), refused("tokenizer"):
        tokenizer.encode_text("ж" + "many words " * 4 + "ж" * 40)
    assert tokenizer.encode_text("a word") == list(plain)


def test_control_tokens_without_end_are_refused(tmp_path):
    size, (values, tensors) = 200_000, sound_gguf("gpt2")
    values["tokenizer.ggml.tokens"] = LIST, (STRING, [f"<|{i}|>" for i in range(size)])
    values["tokenizer.ggml.token_type"] = LIST, (5, [3] * size)
    values["tokenizer.ggml.scores"] = LIST, (F32, [0.0] * size)
    file = tmp_path / "m.gguf"
    file.write_bytes(encode_gguf(values, tensors)[0])
    with in_time(), refused(str(file), "tokenizer.ggml.token_type", str(size)):
        load_tokenizer(GgufCheckpoint(file))


@pytest.mark.parametrize("seed", [4309, 10767])
def test_a_panic_is_one_line(seed, document, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(mutated(document, random.Random(seed)))
    with refused("tokenizer"):
        load_tokenizer(tmp_path).encode_text(TEXT)


def test_a_tokenizer_outlives_its_process(document, tmp_path):
    tokenizers = [load_tokenizer(tmp_path) for _ in range(6)]  # more than the child keeps
    PROCESS.stop()
    for number, tokenizer in enumerate(tokenizers):
        assert tokenizer.encode_plain(f"word {number}") == load_tokenizer(tmp_path).encode_plain(
            f"word {number}"
        )
