"""Each fault of a GGUF file's token lists is one line that names the file and the key."""

from __future__ import annotations

import time

import pytest

from antiimit_jax.models.gguf import GgufCheckpoint
from antiimit_jax.text.tokenizer import load_tokenizer
from tests.models.mutated_files import BOOL, F32, LIST, STRING, U32, encode_gguf, sound_gguf
from tests.models.refusals import refused

FLOAT64, NUMBERS = 12, list(range(40))


def _strings(*values):
    return LIST, (STRING, values)


def _changed(key, place, value):
    """The sound list with another value at a place."""

    def change(values):
        kind, (inner, sound) = values[f"tokenizer.ggml.{key}"]
        sound = list(sound)
        sound[place] = value
        return kind, (inner, sound)

    return change


def _times(key, count):
    def change(values):
        kind, (inner, sound) = values[f"tokenizer.ggml.{key}"]
        return kind, (inner, sound * count)

    return change


# key -> a value or what makes one of the sound metadata; what must be named
BOTH = {
    "tokens a number": ("tokens", (U32, 40), "no list"),
    "tokens a text": ("tokens", (STRING, "a"), "no list"),
    "tokens numbers": ("tokens", (LIST, (U32, NUMBERS)), "place 0"),
    "tokens empty": ("tokens", _strings(), "no list"),
    "tokens missing": ("tokens", None, "no list"),
    "a token twice": ("tokens", _changed("tokens", 9, "a"), "twice"),
    "a token not UTF-8": ("tokens", _changed("tokens", 9, b"\xff\xfe"), "UTF-8"),
    "a token of a surrogate": ("tokens", _changed("tokens", 9, b"\xed\xa0\x80"), "UTF-8"),
    "a token without end": ("tokens", _changed("tokens", 9, "x" * 2_000), "1000"),
    "types missing": ("token_type", None, "no list"),
    "types too many": ("token_type", _times("token_type", 2), "80"),
    "types texts": ("token_type", _strings(*"x" * 40), "place 0"),
    "a type unknown": ("token_type", _changed("token_type", 4, 77), "77"),
    "a type negative": ("token_type", _changed("token_type", 4, -1), "-1"),
    "an id a text": ("bos_token_id", (STRING, "a"), "a"),
    "an id a list": ("eos_token_id", (LIST, (U32, [1])), "[1]"),
    "an id beyond": ("unknown_token_id", (U32, 40), "40"),
    "an id none": ("padding_token_id", (U32, 2**32 - 1), "4294967295"),
    "an id negative": ("eot_token_id", (5, -1), "-1"),
    "an id a float": ("eom_token_id", (F32, 1.0), "1.0"),
    "a flag a text": ("add_bos_token", (STRING, "no"), "true or false"),
    "a flag a list": ("add_eos_token", (LIST, (BOOL, [True])), "true or false"),
}
SENTENCEPIECE = {
    "scores missing": ("scores", None, "no list"),
    "scores too few": ("scores", (LIST, (F32, [0.0])), "1"),
    "scores texts": ("scores", _strings(*"x" * 40), "place 0"),
    "a score NaN": ("scores", _changed("scores", 3, float("nan")), "nan"),
    "a score infinite": ("scores", _changed("scores", 3, float("inf")), "inf"),
    "a prefix a number": ("add_space_prefix", (U32, 1), "true or false"),
}
BYTE_LEVEL = {
    "merges missing": ("merges", None, "no list"),
    "merges numbers": ("merges", (LIST, (FLOAT64, [1.0])), "1.0"),
    "a merge of one": ("merges", _changed("merges", 1, "ab"), "ab"),
    "a merge of three": ("merges", _changed("merges", 1, "a b c"), "a b c"),
    "a merge of strangers": ("merges", _changed("merges", 1, "a 東"), "東"),
    "a merge to a stranger": ("merges", _changed("merges", 1, "b a"), "b a"),
    "a merge not UTF-8": ("merges", _changed("merges", 1, b"a \xff"), "UTF-8"),
}
CASES = [("llama", fault) for fault in BOTH | SENTENCEPIECE]
CASES += [("gpt2", fault) for fault in BOTH | BYTE_LEVEL]


@pytest.mark.parametrize("kind, fault", CASES, ids="-".join)
def test_a_fault_of_the_token_lists_is_named(kind, fault, tmp_path):
    key, change, told = (BOTH | SENTENCEPIECE | BYTE_LEVEL)[fault]
    values, tensors = sound_gguf(kind)
    changed = change(values) if callable(change) else change
    values.pop(f"tokenizer.ggml.{key}", None)
    if changed is not None:
        values[f"tokenizer.ggml.{key}"] = changed
    file = tmp_path / "m.gguf"
    file.write_bytes(encode_gguf(values, tensors)[0])
    with refused(str(file), f"tokenizer.ggml.{key}", told):
        load_tokenizer(GgufCheckpoint(file))


def test_a_kind_or_template_that_is_no_text_is_refused(tmp_path):
    file = tmp_path / "m.gguf"
    for key in ("tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.chat_template"):
        values, tensors = sound_gguf("gpt2")
        values[key] = (LIST, (U32, NUMBERS))
        file.write_bytes(encode_gguf(values, tensors)[0])
        with refused(str(file), key.rpartition(".")[2] if "chat" in key else "tokenizer"):
            load_tokenizer(GgufCheckpoint(file))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_many_control_tokens_are_added_at_once(kind, tmp_path):
    """A call for each took minutes."""
    values, tensors = sound_gguf(kind)
    _, (_, tokens) = values["tokenizer.ggml.tokens"]
    tokens = [*tokens, *(f"<|{i}|>" for i in range(20_000))]
    size = len(tokens)
    values["tokenizer.ggml.tokens"] = _strings(*tokens)
    values["tokenizer.ggml.token_type"] = LIST, (5, [3] * size)
    values["tokenizer.ggml.scores"] = LIST, (F32, [0.0] * size)
    file = tmp_path / "m.gguf"
    file.write_bytes(encode_gguf(values, tensors)[0])
    began = time.process_time()
    tokenizer = load_tokenizer(GgufCheckpoint(file))
    assert tokenizer.encode_text("<|19999|>")[-1] == size - 1
    assert time.process_time() - began < 5
