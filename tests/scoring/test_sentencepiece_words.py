"""Words of SentencePiece vocabularies: exact by enumeration, whatever space a text begins with."""

from __future__ import annotations

import numpy as np
import pytest

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.scoring.terminators import build_terminators
from antiimit_jax.scoring.trie import word_query
from antiimit_jax.text.formats import Message, build_prompt, text_prompt
from tests.enumeration import PlainModel, word_probabilities
from tests.random_decoder import random_params, sentencepiece_tokenizer, tiny_config
from tests.scoring.test_word_probs_oracle import log_q_of, spellings, surface_paths

TEXT = "apple apples rock rock'n'roll car carpet pick a word: river or stone? answer: I say, 3.5\n"
WORDS = ["apple", "apples", "rock", "rock'n'roll", "naïve", "3", "3.5", "日本", "car"]


@pytest.fixture(scope="module", params=["always", "first", "never"])
def setting(request):
    """(tokenizer, terminators, decoder, weights)."""
    tokenizer = sentencepiece_tokenizer([TEXT] * 4, 90, request.param)
    cfg = tiny_config(tokenizer.size)
    stops = build_terminators(tokenizer, tokenizer.size).standard
    return tokenizer, stops, Decoder(cfg), {"params": random_params(cfg, 6)}


@pytest.mark.parametrize("text", ["pick a word: apple?\n\nanswer:", "apple", " river: I say,"])
def test_words_behind_a_text_equal_enumeration(setting, text):
    tokenizer, stops, decoder, variables = setting
    query = word_query(tokenizer, text_prompt(tokenizer, text), WORDS)
    paths = surface_paths(tokenizer, text, WORDS)
    assert [{p.tokens for p in query.paths if p.word == i} for i in range(len(WORDS))] == [
        set(of_word) for of_word in paths
    ]
    assert max(len(p.tokens) for p in query.paths) >= 6  # 日本 is six bytes
    plain = PlainModel(decoder, variables, 80)
    expected = word_probabilities(plain, query.prompt_ids, paths, stops)
    found = log_q_of(decoder, variables, stops, query)
    np.testing.assert_allclose(found, np.log(expected), atol=1e-4)


@pytest.mark.parametrize("tail", ["", "answer:"])
def test_words_behind_a_chat_equal_enumeration_over_every_tokenisation(setting, tail):
    tokenizer, stops, decoder, variables = setting
    messages = [Message("user", "a word?")] + [Message("assistant", tail)] * bool(tail)
    prompt = build_prompt(tokenizer, tuple(messages), "chat")
    query = word_query(tokenizer, prompt, ["car", "rock"], max_tokenisations=10_000)
    pieces = list(tokenizer.pieces)
    for i, token in enumerate(tokenizer.hf.convert_ids_to_tokens(range(tokenizer.size))):
        if token.startswith("<0x") and tokenizer.id_of_piece.get(pieces[i]) != i:
            pieces[i] = b""  # a byte that has a token of its own is spelled by that
    paths = [
        [p for form in (word, b" " + word) for p in spellings(form, pieces)]
        for word in (b"car", b"rock")
    ]
    found_paths = [{p.tokens for p in query.paths if p.word == i} for i in (0, 1)]
    assert found_paths == [set(of_word) for of_word in paths]
    plain = PlainModel(decoder, variables, 80)
    expected = word_probabilities(plain, query.prompt_ids, paths, stops)
    found = log_q_of(decoder, variables, stops, query)
    np.testing.assert_allclose(found, np.log(expected), atol=1e-4)
