"""Which tokens end a word: the contract's list, on pieces made by hand and on real vocabularies."""

from __future__ import annotations

import re

import numpy as np
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.scoring.terminators import POLICIES, build_terminators
from tests.random_decoder import END_OF_TURN, byte_tokenizer, char_tokenizer

ENDS = [
    *(" ", " the", "  ", "\n", "\n\n", "\t", "\r\n", "\u2581", "\u2581the", "\u3000"),
    *(".", ".\n", "...", ",", ", and", ";", ":", "!", "?", "?!", "…", "—"),
    *(")", "]", "}", ">", ")."),
    *('"', "'", "“", "”", "‘", "’", "«", "»", "`", "```", "*", "**", "_", "~~", '",', "'."),
    *("。", "、", "，", "！", "？", "：", "；", "）", "】", "」", "』", "〉"),
]
GOES_ON = [
    *("s", "pet", "A", "é", "ß", "ing", "ing.", "字", "の", "ы", "\u0301"),
    *("'s", "'t", "'re", "’s", "’ll", "-like", "-a", "‑a", "‐a"),
    *("0", "5", "12", "½", "٣"),
]


@pytest.mark.parametrize("piece", ENDS)
def test_these_pieces_end_a_word(piece):
    tokenizer = char_tokenizer(["a", piece])
    assert list(build_terminators(tokenizer, 2 + 1).standard[:2]) == [False, True]


@pytest.mark.parametrize("piece", GOES_ON)
def test_these_pieces_never_end_a_word(piece):
    sets = build_terminators(char_tokenizer([piece, "?"]), 3)
    assert [sets.mask(policy)[0] for policy in POLICIES] == [False] * 3


@pytest.mark.parametrize("piece", ["<0xE2>", "<0xC3>", "<0x80>"])
def test_a_part_of_a_character_never_ends_a_word(piece):
    sets = build_terminators(char_tokenizer([piece, "?"]), 3)
    assert not sets.wide[0]


def test_a_space_before_a_part_of_a_character_ends_a_word():
    tokenizer = byte_tokenizer([" é ü", "a.é", "a-é"], 256 + 2)
    begins = {b" \xc3": 0, b".\xe2\x80": 1, b"-\xc3": 3, b"\xa9 ": 3, b"'\xc3": 3, b"+\xc3": 2}
    pieces = (*tokenizer.pieces, *begins)
    tokenizer.__dict__["pieces"] = pieces  # the cached property
    sets = build_terminators(tokenizer, len(pieces))
    for token, level in enumerate(begins.values(), len(pieces) - len(begins)):
        ends = [bool(sets.mask(policy)[token]) for policy in POLICIES]
        assert ends == [level <= 0, level <= 1, level <= 2], pieces[token]


@pytest.mark.parametrize("piece", ["<0x0A>", "<0x20>", "<0x2E>"])
def test_a_byte_that_is_a_whole_character_counts_as_that_character(piece):
    assert build_terminators(char_tokenizer([piece, "a"]), 3).standard[0]


def test_end_of_turn_is_in_all_sets_and_other_control_tokens_and_spare_rows_in_none():
    tokenizer = byte_tokenizer(["a word, another word."], 270)
    sets = build_terminators(tokenizer, 290)
    start, end = tokenizer.hf.convert_tokens_to_ids(["<|im_start|>", END_OF_TURN])
    for policy in POLICIES:
        assert sets.mask(policy).shape == (290,)
        assert sets.mask(policy)[end] and not sets.mask(policy)[start]
        assert not sets.mask(policy)[tokenizer.size :].any()


def test_an_unknown_set_is_refused():
    with pytest.raises(UserError, match="narrow, standard, wide"):
        build_terminators(char_tokenizer(["a"]), 2).mask("broad")


END_NAMES = ("<|im_end|>", "<|endoftext|>")


@pytest.fixture(scope="module", params=["embedded", "trained here"])
def vocabulary(request):
    """(terminators, token texts, end tokens); part of a character reads as U+FFFD."""
    if request.param == "embedded":
        model = request.getfixturevalue("smollm2")
        tokenizer, sets = model.tokenizer, model.terminators
    else:
        text = "it's an idea-rich text, isn't it? “Yes” (he said)…\n"
        tokenizer = byte_tokenizer([text] * 3, 330)
        sets = build_terminators(tokenizer, tokenizer.size)
    names = tokenizer.hf.convert_ids_to_tokens(range(tokenizer.size))
    apart = [*tokenizer.hf.added_tokens_decoder, *(i for i, n in enumerate(names) if n == "ï¿½")]
    texts = [tokenizer.hf.decode([i]) for i in range(tokenizer.size)]
    for i in apart:  # control tokens, and the character U+FFFD itself
        texts[i] = ""
    ends = [i for i, t in tokenizer.hf.added_tokens_decoder.items() if str(t) in END_NAMES]
    return sets, texts, ends


_OPENS = r"""[ \n\t\r.,;:!?…—)\]}>"'“”‘’«»`*_~。、，！？：；）】」』]"""
_CONTINUES = r"['’][^\W\d_]|[-‐‑][^\W\d_]"


def test_a_whole_vocabulary_follows_the_contract(vocabulary):
    sets, texts, ends = vocabulary
    must, must_not = np.zeros((2, len(texts)), bool)
    for i, text in enumerate(texts):
        partial = text.startswith("\ufffd")
        must[i] = bool(re.match(_OPENS, text)) and not re.match(_CONTINUES, text)
        must[i] &= "\ufffd" not in text[1:2] or text[0] not in "'’-‐‑"  # it may be a letter's
        must_not[i] = partial or bool(re.match(rf"\w(?<!_)|{_CONTINUES}", text))
    must[ends] = True
    assert must.sum() > 20 and must_not.sum() > 100
    wrong = np.flatnonzero(must & ~sets.standard[: len(texts)])
    assert [texts[i] for i in wrong] == []
    wrong = np.flatnonzero(must_not & sets.wide[: len(texts)])
    assert [texts[i] for i in wrong] == []


def test_sets_are_nested_and_each_is_larger(vocabulary):
    sets, texts, ends = vocabulary
    assert (sets.narrow <= sets.standard).all() and (sets.standard <= sets.wide).all()
    assert sets.narrow.sum() < sets.standard.sum() < sets.wide.sum()
    narrow = [texts[i] for i in np.flatnonzero(sets.narrow) if i not in ends]
    assert narrow and all(text[0].isspace() for text in narrow)
