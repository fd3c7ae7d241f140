"""The open-vocabulary search: exact probabilities, best first, and an honest bound on the rest."""

from __future__ import annotations

import collections

import jax
import numpy as np
import pytest

from antiimit_jax.scoring.packing import BatchShape, PackedSequence, SequenceLimits, stack
from antiimit_jax.scoring.top_words import Search, continuations
from antiimit_jax.text.formats import text_prompt
from tests.enumeration import PlainModel

LIMITS = SequenceLimits(tokens=200, readouts=120, paths=24, steps=12, words=24, terms=24)
ROUNDS = 6


@pytest.fixture(scope="module")
def searched(tiny):
    """(search after some rounds, the paths it asked for in each, all paths still open)."""
    prompt = text_prompt(tiny.tokenizer, "Pick a word: apple or rock?\n\nAnswer:")
    search = Search(prompt, tiny.tokenizer)
    follow = jax.jit(continuations, static_argnums=0)
    asked = []
    for _ in range(ROUNDS):
        query = search.query()
        row = PackedSequence(LIMITS, tiny.stops)
        assert row.add(0, query)
        batch = stack([row], BatchShape(LIMITS, 1, 1, 0))
        out = follow(tiny.decoder, tiny.variables, tiny.stops, batch)
        paths = [path.tokens for path in query.paths]
        search.learn(*(np.asarray(x)[0, : len(paths)] for x in out))
        asked.append(paths)
    return prompt, search, asked


@pytest.fixture(scope="module")
def plain(tiny) -> PlainModel:
    return PlainModel(tiny.decoder, tiny.variables, 48)


def stop_chance(plain, tiny, prompt, path) -> float:
    """P(the answer is this path, then a terminator)."""
    reach = np.exp(plain.log_path(prompt.ids, path))
    return reach * np.exp(plain.log_next(prompt.ids + path))[tiny.stops].sum()


def test_words_found_have_their_exact_probabilities(tiny, searched, plain):
    prompt, search, asked = searched
    expected = collections.Counter()
    for path in (path for paths in asked for path in paths if path):
        expected[tiny.tokenizer.decode(path)] += stop_chance(plain, tiny, prompt, path)
    first = np.exp(plain.log_next(prompt.ids))
    expected[""] += sum(first[end] for end in tiny.tokenizer.eos_ids)
    found = {word.text: word.p for word in search.words if word.text}
    assert len(found) > 50
    for text, p in found.items():
        assert p == pytest.approx(expected[text], rel=1e-3, abs=1e-8)
    chances = [word.p for word in search.words]
    assert chances == sorted(chances, reverse=True)


def test_found_and_unvisited_are_everything_and_bound_what_was_not_found(tiny, searched, plain):
    prompt, search, asked = searched
    assert sum(word.p for word in search.words) + search.unvisited == pytest.approx(1, abs=1e-6)
    assert 0 < search.unvisited < 1
    known = {path for paths in asked for path in paths}
    rng = np.random.default_rng(0)
    tokens = np.flatnonzero(~tiny.stops)
    strangers = [(int(a), int(b)) for a, b in rng.choice(tokens, size=(20, 2))]
    missed = [path for path in strangers if path not in known]
    assert missed
    assert sum(stop_chance(plain, tiny, prompt, path) for path in set(missed)) <= search.unvisited


def test_each_round_asks_for_the_likeliest_open_paths(tiny, searched, plain):
    prompt, _, asked = searched
    assert asked[0] == [()]
    reach = lambda path: plain.log_path(prompt.ids, path)
    open_paths: set = set()
    for before, paths in zip(asked, asked[1:]):
        open_paths -= set(before)
        for path in before:
            after = plain.log_next(prompt.ids + path)
            allowed = [t for t in range(len(after)) if not path or not tiny.stops[t]]
            best = sorted(allowed, key=lambda t: -after[t])[:48]
            ends = tiny.tokenizer.eos_ids
            open_paths |= {(*path, t) for t in best if t not in ends}
        assert len(paths) == 24 and set(paths) <= open_paths
        worst = min(map(reach, paths))
        assert all(reach(path) <= worst + 1e-4 for path in open_paths - set(paths))
