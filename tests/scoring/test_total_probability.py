"""Over a small vocabulary everything adds up to one: words, the empty word, and what has not ended.

Events are read one token at a time: a text ends a word at its first terminator.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.scoring.packing import SequenceLimits
from antiimit_jax.scoring.terminators import build_terminators
from antiimit_jax.scoring.trie import FormPath, WordQuery, word_query
from antiimit_jax.text.formats import text_prompt
from tests.enumeration import PlainModel
from tests.random_decoder import char_tokenizer, random_params, tiny_config
from tests.scoring.layouts import Tiny, fill, pack, roomy

PIECES = ["a", "b", "c", " ", "."]
LETTERS = "abc"
DEPTH = 3


@pytest.fixture(scope="module")
def spoken() -> Tiny:
    """A model of six tokens: three letters, a space, a full stop and the end of the turn."""
    tokenizer = char_tokenizer(PIECES)
    cfg = tiny_config(tokenizer.size)
    stops = build_terminators(tokenizer, cfg.vocab_size).standard
    assert list(stops) == [False, False, False, True, True, True]
    return Tiny(tokenizer, stops, Decoder(cfg), {"params": random_params(cfg, 3)})


@pytest.fixture(scope="module")
def plain(spoken) -> PlainModel:
    return PlainModel(spoken.decoder, spoken.variables, 16)


def strings(depth: int, tokens) -> list[tuple[int, ...]]:
    return [z for n in range(1, depth + 1) for z in itertools.product(tokens, repeat=n)]


def packed_q(model: Tiny, query: WordQuery) -> tuple[np.ndarray, float]:
    """q of every word, and the residual."""
    limits = roomy([query], model.stops)
    rows = fill([((), [0])], [query], limits, model.stops)
    out = model.score(pack(rows, limits))
    return np.exp(np.asarray(out.log_q, np.float64))[0], float(out.residual[0, 0])


def unended(plain: PlainModel, prompt, depth: int, stops, first=None) -> float:
    """P(no terminator among the first `depth` tokens), or from the second on if `first` is free."""
    letters = np.flatnonzero(~stops)
    total = 0.0
    for head in first if first is not None else letters:
        for rest in itertools.product(letters, repeat=depth - 1):
            total += np.exp(plain.log_path(prompt, (int(head), *map(int, rest))))
    return total


def test_ended_words_empty_word_and_unended_remainder_are_everything(spoken, plain):
    prompt = (0, 1, 3, 2)
    letters = np.flatnonzero(~spoken.stops).tolist()
    paths = [FormPath("", z, i) for i, z in enumerate(strings(DEPTH, letters))]
    q, residual = packed_q(spoken, WordQuery(prompt, tuple(paths), len(paths)))
    assert len(q) == 3 + 9 + 27
    empty = np.exp(plain.log_next(prompt))[spoken.stops].sum()
    left = unended(plain, prompt, DEPTH + 1, spoken.stops)
    assert q.sum() + empty + left == pytest.approx(1.0, abs=1e-5)
    assert residual == pytest.approx(empty + left, abs=1e-5)
    assert min(empty, left, q.sum()) > 1e-3  # no part is idle


def test_words_from_their_spelling_are_disjoint_and_leave_the_rest(spoken, plain):
    """The same through `word_query`: every word has a form with a space and one without."""
    text = "ab c."
    words = ["".join(w) for n in (1, 2) for w in itertools.product(LETTERS, repeat=n)]
    prompt = text_prompt(spoken.tokenizer, text)
    q, residual = packed_q(spoken, word_query(spoken.tokenizer, prompt, words))
    lost = unended(plain, prompt.ids, 3, spoken.stops)
    lost += np.exp(plain.log_next(prompt.ids))[[4, 5]].sum()  # nothing said, and no space either
    space = (PIECES.index(" "),)
    after = np.exp(plain.log_path(prompt.ids, space))
    behind_space = prompt.ids + space
    lost += after * np.exp(plain.log_next(behind_space))[spoken.stops].sum()
    lost += after * unended(plain, behind_space, 3, spoken.stops)
    assert residual == pytest.approx(lost, abs=1e-5)
    assert q.sum() + lost == pytest.approx(1.0, abs=1e-5)


def test_every_string_as_a_word_leaves_what_never_stops(spoken, plain):
    """All strings, terminators inside them too: the hardest nesting, still nothing twice."""
    prompt = (1, 3)
    everything = range(spoken.tokenizer.size)
    paths = [FormPath("", z, i) for i, z in enumerate(strings(DEPTH, everything))]
    q, residual = packed_q(spoken, WordQuery(prompt, tuple(paths), len(paths)))
    assert len(q) == 6 + 36 + 216 and (q > 0).all()
    left = unended(plain, prompt, DEPTH + 1, spoken.stops, first=everything)
    assert q.sum() + left == pytest.approx(1.0, abs=1e-5)
    assert residual == pytest.approx(left, abs=1e-5)


def test_words_of_one_item_never_exceed_one(spoken):
    rng = np.random.default_rng(0)
    everything = strings(DEPTH, range(spoken.tokenizer.size))
    limits = SequenceLimits(tokens=50, readouts=40, paths=12, steps=DEPTH, words=4, terms=24)
    for _ in range(20):
        chosen = rng.choice(len(everything), size=12, replace=False)
        paths = [FormPath("", everything[z], n % 4) for n, z in enumerate(chosen)]
        query = WordQuery((2, 0), tuple(paths), 4)
        rows = fill([((), [0])], [query], limits, spoken.stops)
        out = spoken.score(pack(rows, limits))
        assert -1e-6 <= out.residual[0, 0] <= 1.0
