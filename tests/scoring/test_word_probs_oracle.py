"""Packed word probabilities equal enumeration, one plain sequence at a time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.scoring.packing import check_window, shared_beginning
from antiimit_jax.scoring.terminators import build_terminators
from antiimit_jax.scoring.trie import word_query
from antiimit_jax.scoring.word_probs import word_log_probs
from antiimit_jax.text.formats import Message, build_prompt, text_prompt
from tests.enumeration import PlainModel, word_probabilities
from tests.random_decoder import random_params, tiny_config
from tests.scoring.layouts import fill, pack, roomy

TOLERANCE = 1e-4  # in log q
WORDS = (
    "apple apples applesauce rock rock'n'roll rock' car carpet cart naïve café xylophone "
    "3 3.5 3.55 33"
).split()
REAL_WORDS = (
    "apple naïve café xylophone car carpet cart 3 3.5 33 rock rock'n'roll rock'n "
    "antidisestablishmentarianism supercalifragilistic"
).split()
CHAT = (
    Message("user", "Say one word: apple 30%, river 70%."),
    Message("assistant", "river"),
    Message("user", "Again: rock or car or 3?"),
    Message("assistant", "Word:"),
)


def surface_paths(tokenizer, text: str, words, spaces=("", " ")) -> list[list[tuple[int, ...]]]:
    """Each word's forms behind the prompt's text, as the tokenizer reads the whole."""
    start = tokenizer.hf.encode(text, add_special_tokens=False)
    paths = []
    for word in words:
        whole = [tokenizer.hf.encode(text + s + word, add_special_tokens=False) for s in spaces]
        assert all(ids[: len(start)] == start for ids in whole)
        paths.append([tuple(ids[len(start) :]) for ids in whole])
    return paths


def log_q_of(decoder, variables, stops, query, trunk=()) -> np.ndarray:
    limits = roomy([query], stops)
    rows = fill([(trunk, [0])], [query], limits, stops)
    score = jax.jit(word_log_probs, static_argnums=0)
    out = score(decoder, variables, jnp.asarray(stops), pack(rows, limits))
    return np.asarray(out.log_q)[0]


@pytest.mark.parametrize("tied_head", [True, False])
def test_tiny_model_equals_enumeration(tiny, tied_head):
    text = "Pick a word: a rock or 3 apples?\n\nAnswer:"
    cfg = tiny_config(330, tied_head=tied_head)
    decoder, variables = Decoder(cfg), {"params": random_params(cfg, 5)}
    query = word_query(tiny.tokenizer, text_prompt(tiny.tokenizer, text), WORDS)
    paths = surface_paths(tiny.tokenizer, text, WORDS)
    plain = PlainModel(decoder, variables, 64)
    expected = word_probabilities(plain, query.prompt_ids, paths, tiny.stops)
    np.testing.assert_allclose(
        log_q_of(decoder, variables, tiny.stops, query), np.log(expected), atol=TOLERANCE
    )


def test_tiny_model_with_adapter_and_lenient_forms_equals_enumeration(tiny):
    text = "river or café:"
    words = ["apple", "rock'N'roll", "rock", "3.5", "3"]
    query = word_query(tiny.tokenizer, text_prompt(tiny.tokenizer, text), words, forms="lenient")
    spelled = [
        dict.fromkeys((w, w.lower(), w[0].upper() + w[1:], w.upper()))  # a form counts once
        for w in words
    ]
    spaces = ("", " ", "\n")
    paths = [sum(surface_paths(tiny.tokenizer, text, forms, spaces), []) for forms in spelled]
    assert [len(p) for p in paths] == [9, 12, 9, 3, 3]
    plain = PlainModel(tiny.decoder, tiny.variables, 64)
    expected = word_probabilities(plain, query.prompt_ids, paths, tiny.stops)
    found = log_q_of(tiny.decoder, tiny.variables, tiny.stops, query)
    np.testing.assert_allclose(found, np.log(expected), atol=TOLERANCE)


def test_all_tokenisations_of_a_word_add_up(tiny):
    text, word = "Answer:", "apple"
    query = word_query(
        tiny.tokenizer, text_prompt(tiny.tokenizer, text), [word], max_tokenisations=10_000
    )
    pieces = tiny.tokenizer.pieces
    paths = [p for form in (b"apple", b" apple") for p in spellings(form, pieces)]
    assert len(paths) == 15 and {p.tokens for p in query.paths} == set(paths)
    plain = PlainModel(tiny.decoder, tiny.variables, 32)
    expected = word_probabilities(plain, query.prompt_ids, [paths], tiny.stops)
    found = log_q_of(tiny.decoder, tiny.variables, tiny.stops, query)
    np.testing.assert_allclose(found, np.log(expected), atol=TOLERANCE)


def spellings(data: bytes, pieces) -> list[tuple[int, ...]]:
    """All token strings that spell `data`, by recursion over the whole vocabulary."""
    if not data:
        return [()]
    return [
        (token, *rest)
        for token, piece in enumerate(pieces)
        if piece and data.startswith(piece)
        for rest in spellings(data[len(piece) :], pieces)
    ]


@pytest.fixture(scope="module")
def real(smollm2):
    """The real model: decoder, weights, terminators, and itself as a plain reader."""
    decoder, variables = Decoder(smollm2.cfg), {"params": jax.tree.map(jnp.asarray, smollm2.params)}
    return decoder, variables, smollm2.terminators.standard, PlainModel(decoder, variables, 80)


def test_words_of_these_tests_span_one_to_six_tokens(smollm2):
    lengths = {len(smollm2.tokenizer.encode_plain(s + w)) for w in REAL_WORDS for s in ("", " ")}
    assert lengths >= {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize("style", ["chat", "base"])
def test_real_model_equals_enumeration(smollm2, real, style):
    decoder, variables, stops, plain = real
    prompt = build_prompt(smollm2.tokenizer, CHAT, style)
    text = smollm2.tokenizer.decode(prompt.ids)
    query = word_query(smollm2.tokenizer, prompt, REAL_WORDS)
    check_window([query], 80)
    paths = surface_paths(smollm2.tokenizer, text, REAL_WORDS)
    expected = word_probabilities(plain, prompt.ids, paths, stops)
    without_collisions = [
        word_probabilities(plain, prompt.ids, [of_word], stops)[0] for of_word in paths
    ]
    found = log_q_of(decoder, variables, stops, query)
    np.testing.assert_allclose(found, np.log(expected), atol=TOLERANCE)
    # The collisions matter here: 3/3.5 and rock/rock'n/rock'n'roll lie inside each other.
    shorter = [w for w, a, b in zip(REAL_WORDS, expected, without_collisions) if a < b * (1 - 1e-9)]
    assert shorter == ["3", "rock", "rock'n"]

    trunk = shared_beginning([query], 10_000)
    assert len(trunk) == len(prompt.ids) - 1
    shared = log_q_of(decoder, variables, stops, query, trunk)
    np.testing.assert_allclose(np.exp(shared), np.exp(found), atol=1e-5)
    np.testing.assert_allclose(shared, found, atol=TOLERANCE)


def test_more_terminators_end_more_words(tiny):
    query = word_query(tiny.tokenizer, text_prompt(tiny.tokenizer, "Answer:"), ["apple", "car"])
    sets = build_terminators(tiny.tokenizer, len(tiny.stops))
    by_set = [
        log_q_of(tiny.decoder, tiny.variables, sets.mask(policy), query)
        for policy in ("narrow", "standard", "wide")
    ]
    assert (np.diff(by_set, axis=0) > 0).all()
