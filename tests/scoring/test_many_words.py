"""Many words at once are asked in parts, and the parts give what the whole would."""

from __future__ import annotations

import random

import numpy as np
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import load_language_model
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.scoring import trie
from antiimit_jax.scoring.trie import FormPath, WordQuery, event_parents, parts, word_query
from antiimit_jax.text.formats import text_prompt
from tests.enumeration import PlainModel, word_probabilities
from tests.tiny_model import write_tiny_model

VOCABULARY = 97


def random_query(rng: random.Random, words: int) -> WordQuery:
    """Words of one to four tokens, many of them beginning with another word."""
    paths: dict[tuple[int, ...], FormPath] = {}
    while len(paths) < 2 * words:
        begun = rng.choice(list(paths) or [()]) if rng.random() < 0.4 else ()
        tokens = (*begun[:3], rng.randrange(VOCABULARY))
        paths.setdefault(tokens, FormPath("", tokens, len(paths) // 2))
    return WordQuery((5, 6, 7), tuple(paths.values()), words)


def test_parts_hold_every_word_once_with_all_that_lies_inside_it():
    rng = random.Random(1)
    stops = np.array([rng.random() < 0.02 for _ in range(VOCABULARY)])
    query = random_query(rng, 900)
    found = parts(query, stops)
    assert len(found) > 2
    assert sorted(word for part in found for word in part.words) == list(range(900))
    parents = event_parents(query.paths, stops)
    nested = 0
    for part in found:
        for number, path in zip(part.paths, part.query.paths, strict=True):
            assert path.tokens == query.paths[number].tokens
            assert part.words[path.word] == query.paths[number].word
            if parents[number] >= 0:
                nested += 1
                assert parents[number] in part.paths
    assert nested == sum(parent >= 0 for parent in parents) > 10
    assert parts(random_query(rng, 20), stops)[0].words == list(range(20))


def test_twenty_thousand_words_are_asked_in_parts_of_bounded_size():
    paths = [FormPath("", (5, i // 200, i % 200), i) for i in range(20_000)]
    paths += [FormPath("", (6, i // 200, i % 200), i) for i in range(20_000)]
    found = parts(WordQuery((5, 6, 7), tuple(paths), 20_000), np.zeros(200, bool))
    assert sorted(word for part in found for word in part.words) == list(range(20_000))
    largest = max(sum(len(path.tokens) for path in part.query.paths) for part in found)
    assert largest <= trie._PART_TOKENS


def test_too_many_words_that_lie_inside_one_another_are_refused():
    chain = tuple(FormPath("", (1,) * n, n - 1) for n in range(1, 101))
    with pytest.raises(UserError, match="score fewer"):
        parts(WordQuery((5,), chain, 100), np.array([False, True]))


def test_a_query_asked_in_parts_equals_enumeration(tmp_path, monkeypatch):
    lm = load_language_model(str(write_tiny_model(tmp_path / "tiny")))
    words = "apple apples rock rock'n'roll car carpet 3 3.5 3.55 33 river rivers x-ray".split()
    query = word_query(lm.tokenizer, text_prompt(lm.tokenizer, "The word is"), words)
    stops = lm.terminators.mask("standard")
    monkeypatch.setattr(trie, "_PART_TOKENS", 8)
    assert len(parts(query, stops)) > 3
    runner = Runner(lm)
    whole, again = runner.word_probs(runner.base, [query, query])
    forms = [[path.tokens for path in query.paths if path.word == w] for w in range(len(words))]
    plain = PlainModel(Decoder(lm.cfg), {"params": lm.params}, 32)
    expected = word_probabilities(plain, query.prompt_ids, forms, stops)
    np.testing.assert_allclose(whole.q, expected, rtol=1e-4)
    np.testing.assert_allclose(again.q, expected, rtol=1e-4)
    assert whole.residual == pytest.approx(1 - expected.sum(), abs=1e-6)
