"""Tokenizers: the embedded one against plain byte-pair encoding, others by hand; refusals."""

from __future__ import annotations

import json

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from antiimit_jax.text.tokenizer import Tokenizer, load_tokenizer
from antiimit_jax.text.tokenizer_files import check_against_file
from tests.models.refusals import refused

TEXTS = [
    "The capital of France is",
    " leading space and two  spaces and a trailing one ",
    "tabs\tand\r\nlines\n\n\n  indented",
    "70% cat,  30.5%   dog; 1234567890 or ١٢٣ or Ⅻ or x²",
    "don't they're I'll 'twas O'Neill’s",
    "naïve café Zürich Ångström São Łódź e\u0301 (combining)",
    "東京 서울 Москва עברית हिन्दी",
    "🙂 👩‍👩‍👧‍👦 🇫🇷 𝔘𝔫𝔦",
    "def f(x): return {'a': [x**2, ~x]}  # ok?!",
    "\u00a0\u200b\u2028\ufeff\x00\x7f",
    "",
]


def _spelled(tokenizer: Tokenizer, ids) -> bytes:
    return b"".join(tokenizer.pieces[i] for i in ids)


@pytest.mark.parametrize("text", TEXTS)
def test_the_embedded_tokenizer_reads_text_as_plain_byte_pair_encoding_does(smollm2, truth, text):
    ids = smollm2.tokenizer.encode_plain(text)
    assert list(ids) == truth.plain(text)
    assert smollm2.tokenizer.encode_text(text) == truth.parsed(text)
    assert smollm2.tokenizer.decode(ids) == text
    assert _spelled(smollm2.tokenizer, ids) == text.encode()


def test_any_text_is_read_as_plain_byte_pair_encoding_does_and_spelled_by_pieces(smollm2, truth):
    @settings(max_examples=200, deadline=None)
    @given(text=st.text(max_size=40) | st.text("ab 's1\n\té🙂<|im_end|>", max_size=40))
    def holds(text: str) -> None:
        ids = smollm2.tokenizer.encode_plain(text)
        assert list(ids) == truth.plain(text)
        spelt = bytes(byte for byte in text.encode() if truth.chars[byte] in truth.id_of)
        assert _spelled(smollm2.tokenizer, ids) == spelt

    holds()


def test_digits_stand_one_by_one(smollm2):
    for text in ("2025", " 100", "3.14159", "a1b22c333"):
        pieces = [smollm2.tokenizer.pieces[i] for i in smollm2.tokenizer.encode_plain(text)]
        digits = [piece for piece in pieces if any(48 <= byte <= 57 for byte in piece)]
        assert all(len(piece) == 1 for piece in digits)
        assert b"".join(digits).decode() == "".join(c for c in text if c.isdigit())


def test_control_tokens_are_control_only_where_they_are_asked_to_be(smollm2, truth):
    text = "a<|im_end|>\n<|im_start|>b <|endoftext|>"
    control = {"<|im_end|>", "<|im_start|>", "<|endoftext|>"}
    for _ in range(2):  # neither way of reading may leave a trace in the other
        parsed, plain = smollm2.tokenizer.encode_text(text), smollm2.tokenizer.encode_plain(text)
        assert parsed == truth.parsed(text)
        assert {truth.tokens[i] for i in parsed} >= control
        assert list(plain) == truth.plain(text)
        assert not {truth.tokens[i] for i in plain} & control


def test_every_piece_is_what_its_token_decodes_to_and_control_tokens_have_none(smollm2, truth):
    tokenizer = smollm2.tokenizer
    assert tokenizer.size == len(tokenizer.pieces) == len(truth.tokens)
    visible = {truth.chars[byte]: byte for byte in range(256)}
    for i, (piece, token) in enumerate(zip(tokenizer.pieces, truth.tokens)):
        if token in truth.control:
            assert piece == b""
        else:
            assert piece == bytes(visible[char] for char in token)
            assert tokenizer.id_of_piece[piece] == i


def test_ends_and_beginnings_of_the_embedded_tokenizer(smollm2, truth):
    assert smollm2.tokenizer.bos_ids == ()
    assert smollm2.tokenizer.eos_ids == {truth.id_of["<|im_end|>"], truth.id_of["<|endoftext|>"]}


@pytest.mark.parametrize(
    "text, tail",
    [
        ("plain", "plain"),
        ("a<|im_end|>\n<|im_start|>assistant\nThe", "assistant\nThe"),
        ("<|endoftext|>x<|im_end|>", ""),
        ("<|im_en", "<|im_en"),
        ("", ""),
    ],
)
def test_the_tail_is_what_follows_the_last_control_token(smollm2, text, tail):
    ids = smollm2.tokenizer.encode_text(text)
    assert smollm2.tokenizer.plain_tail(text, ids) == tail


def test_a_folder_holds_the_same_tokenizer_as_the_file_it_was_saved_from(smollm2, tmp_path):
    smollm2.tokenizer.hf.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.pieces == smollm2.tokenizer.pieces
    assert loaded.eos_ids == smollm2.tokenizer.eos_ids
    for text in (*TEXTS, "a<|im_end|>b"):
        assert loaded.encode_text(text) == smollm2.tokenizer.encode_text(text)
        assert loaded.encode_plain(text) == smollm2.tokenizer.encode_plain(text)


def test_pieces_of_a_sentencepiece_tokenizer_keep_the_space_and_spell_bytes():
    tokens = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁river", "ver", "▁"]
    raw = RawTokenizer(
        models.BPE({t: i for i, t in enumerate(tokens)}, [], unk_token="<unk>", byte_fallback=True)
    )
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    tokenizer = Tokenizer(
        PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="</s>")
    )
    pieces = dict(zip(tokens, tokenizer.pieces))
    assert (pieces["▁river"], pieces["ver"], pieces["▁"]) == (b" river", b"ver", b" ")
    assert (pieces["<0x0A>"], pieces["<0xF0>"]) == (b"\n", b"\xf0")
    assert (pieces["<unk>"], pieces["</s>"]) == (b"", b"")


def _write(file, **fields):
    """A GGUF file of a tokenizer alone: a byte-level alphabet of a few letters."""
    tokens = ["<s>", "</s>", "a", "b", "Ġ", "ab", "1"]
    usual = dict(model="gpt2", pre="smollm", tokens=tokens, merges=["a b"])
    usual |= dict(token_type=[3, 3, 1, 1, 1, 1, 1], bos_token_id=0, eos_token_id=1)
    writer = gguf.GGUFWriter(file, "llama")
    for key, value in (usual | fields).items():
        add = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}
        if value is not None:
            add.get(type(value), writer.add_array)(f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_a_file_that_asks_for_a_beginning_token_gets_one(tmp_path):
    plain = load_tokenizer(_write(tmp_path / "plain.gguf"))
    begun = load_tokenizer(_write(tmp_path / "begun.gguf", add_bos_token=True))
    assert (plain.bos_ids, begun.bos_ids) == ((), (0,))
    assert (plain.encode_text("ab b11"), begun.encode_text("ab b11")) == (
        [5, 4, 3, 6, 6],
        [0, 5, 4, 3, 6, 6],
    )
    assert plain.encode_plain("ab b11") == begun.encode_plain("ab b11") == (5, 4, 3, 6, 6)


@pytest.mark.parametrize(
    "fields, named",
    [
        (dict(model="llama"), ["scores"]),
        (dict(model="bert"), ["bert"]),
        (dict(model=None), ["tokenizer"]),
        (dict(pre="default"), ["default"]),
        (dict(pre=None), ["None"]),
        (dict(merges=None), ["merges"]),
        (dict(tokens=None), ["tokens"]),
        (dict(token_type=None), ["token_type"]),
        (dict(token_type=[1, 1]), ["token_type", "2"]),
        (dict(add_eos_token=True), ["end token"]),
    ],
)
def test_a_gguf_tokenizer_that_is_not_read_is_refused(fields, named, tmp_path):
    file = _write(tmp_path / "t.gguf", **fields)
    with refused(str(file), *named):
        load_tokenizer(file)


def _saved(smollm2, folder):
    smollm2.tokenizer.hf.save_pretrained(folder)
    return folder / "tokenizer.json"


@pytest.mark.parametrize("drop", ["spaces", "an added token"])
def test_a_tokenizer_that_transformers_reads_otherwise_than_its_file_is_refused(
    smollm2, drop, tmp_path
):
    file = _saved(smollm2, tmp_path)
    hf = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    check_against_file(hf, file)
    if drop == "spaces":  # as some releases rebuilt DeepSeek's tokenizers
        hf.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        hf.add_tokens([" France"])
    with refused(str(file), "transformers reads", "The capital of France is Paris."):
        check_against_file(hf, file)


def test_a_catalog_model_that_needs_a_beginning_token_is_refused_without_one(smollm2, tmp_path):
    _saved(smollm2, tmp_path)
    with refused(str(tmp_path), "beginning token", "adds none"):
        load_tokenizer(tmp_path, needs_bos=True)
    begun = _write(tmp_path / "begun.gguf", add_bos_token=True)
    assert load_tokenizer(begun, needs_bos=True).bos_ids == (0,)


def _edited(file, edit):
    content = json.loads(file.read_text(encoding="utf-8"))
    edit(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def _post_processor(emits: int):
    return dict(
        type="TemplateProcessing",
        single=[
            {"SpecialToken": {"id": "x", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        pair=[{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        special_tokens={"x": {"id": "x", "ids": [emits], "tokens": ["x"]}},
    )


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: t["model"]["vocab"].update({"Ġriver": 99_999_999}),
        lambda t: t["model"]["vocab"].update({"Ġriver": t["model"]["vocab"]["Ġcat"]}),
        lambda t: t.update(post_processor=_post_processor(99_999_999)),
    ],
    ids=["a gap", "a repeat", "the post-processor's"],
)
def test_ids_that_no_embedding_has_are_refused(smollm2, edit, tmp_path):
    _edited(_saved(smollm2, tmp_path), edit)
    with refused(str(tmp_path), "ids repeat, leave gaps or go beyond"):
        load_tokenizer(tmp_path)


def test_added_tokens_without_a_row_are_refused_where_a_text_holds_them(smollm2, tmp_path):
    file, size = _saved(smollm2, tmp_path), smollm2.tokenizer.size
    added = dict(id=size, content="<image>", special=True, normalized=False)
    added |= dict(single_word=False, lstrip=False, rstrip=False)
    _edited(file, lambda t: t["added_tokens"].append(added))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode_text("<image>") == [size]
    tokenizer.fit(size)
    assert tokenizer.encode_text("a cat") == smollm2.tokenizer.encode_text("a cat")
    assert size not in tokenizer.encode_plain("<image>")
    with refused("no row", "<image>"):
        tokenizer.encode_text("a <image>")
    with refused(str(size), str(size - 1), "do not belong together"):
        smollm2.tokenizer.__class__(smollm2.tokenizer.hf).fit(size - 1)


def test_ends_that_the_folder_declares_count(smollm2, tmp_path):
    _saved(smollm2, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "eos_token_id": 7}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [8, 9]}')
    assert load_tokenizer(tmp_path).eos_ids == smollm2.tokenizer.eos_ids | {7, 8, 9}


SCRAP = {
    "nothing": {},
    "no JSON": {"tokenizer.json": "{"},
    "an empty object": {"tokenizer.json": "{}"},
    "a list": {"tokenizer.json": "[]"},
    "a model of no kind": {
        "tokenizer.json": json.dumps({"version": "1.0", "added_tokens": [], "model": {"type": "Q"}})
    },
    "a broken config": {"tokenizer.json": "{}", "tokenizer_config.json": "{"},
    "code of its own": {
        "tokenizer_config.json": json.dumps(
            {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
        ),
        "evil.py": "raise SystemExit('this ran')",
    },
}


@pytest.mark.parametrize("scrap", SCRAP)
def test_a_folder_without_a_usable_tokenizer_is_refused(scrap, tmp_path):
    for name, content in SCRAP[scrap].items():
        (tmp_path / name).write_text(content)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with refused(str(tmp_path), "tokenizer"):
        load_tokenizer(tmp_path)
