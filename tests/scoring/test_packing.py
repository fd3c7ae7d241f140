"""Rows: nothing is lost, refused queries change nothing, trunks are shared, windows are kept."""

from __future__ import annotations

import collections

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiimit_jax.errors import UserError
from antiimit_jax.scoring.packing import (
    BatchShape,
    PackedSequence,
    SequenceLimits,
    check_window,
    common_prefix,
    empty_batch,
    needed,
    shared_beginning,
    stack,
)
from antiimit_jax.scoring.trie import FormPath, WordQuery
from tests.scoring.layouts import by_word, fill, pack, roomy
from tests.unpack import unpack

QUICK = settings(derandomize=True, deadline=None, max_examples=100)
STOPS = np.array([False, False, True, True])
FIELDS = SequenceLimits._fields
TOKENS = st.integers(0, 3)


def query_of(prompt, *words) -> WordQuery:
    """Words given by their token paths."""
    paths = [FormPath("", tuple(z), i) for i, word in enumerate(words) for z in word]
    return WordQuery(tuple(prompt), tuple(paths), len(words))


@st.composite
def queries(draw) -> WordQuery:
    prompt = draw(st.lists(TOKENS, min_size=1, max_size=6))
    paths = draw(
        st.lists(
            st.lists(TOKENS, min_size=1, max_size=4).map(tuple), min_size=1, max_size=6, unique=True
        )
    )
    n_words = draw(st.integers(1, len(paths)))
    return query_of(prompt, *(paths[i::n_words] for i in range(n_words)))


def expected_terms(query: WordQuery) -> list[collections.Counter]:
    """Signed paths of every word, from the meaning of the events."""
    terms = [collections.Counter() for _ in range(query.n_words)]
    word_of = {path.tokens: path.word for path in query.paths}
    for z, word in word_of.items():
        terms[word][(1.0, z)] += 1
        around = [o for o in word_of if len(o) < len(z) and z[: len(o)] == o and STOPS[z[len(o)]]]
        if around:
            terms[word_of[max(around, key=len)]][(-1.0, z)] += 1
    return terms


@QUICK
@given(
    asked=st.lists(queries(), min_size=1, max_size=5), cut=st.integers(0, 5), spare=st.booleans()
)
def test_every_word_of_every_query_can_be_read_back(asked, cut, spare):
    """One row behind the longest shared trunk (or less), the other half behind none."""
    shared = shared_beginning(asked, cut)
    limits = roomy(asked, STOPS, times=len(asked))
    plan = [(shared, range(len(asked)))] + [((), [i]) for i in range(len(asked))]
    rows = fill(plan, asked, limits, STOPS)
    batch = pack(rows, limits, spare=2 * spare, longer=3 * spare)
    found = unpack(batch)
    assert len(found) == 2 * sum(query.n_words for query in asked)
    at: collections.Counter = collections.Counter()
    for slot in found:
        index = rows[slot.row].queries[slot.item]
        word = at[slot.row, index]
        at[slot.row, index] += 1
        assert slot.prompt == asked[index].prompt_ids
        assert collections.Counter(slot.terms) == expected_terms(asked[index])[word]
    values = np.zeros(batch.word_item.shape)
    assert len(by_word(rows[:1], batch, values)) == sum(query.n_words for query in asked)


@QUICK
@given(query=queries())
def test_a_query_needs_exactly_what_it_takes_up(query):
    need = needed(query, STOPS)
    assert PackedSequence(need, STOPS).add(0, query)
    for name in FIELDS:
        less = need._replace(**{name: getattr(need, name) - 1})
        assert not PackedSequence(less, STOPS).add(0, query), name


FIRST = query_of([0, 1], [[0], [1, 0]], [[0, 2, 1]])
SECOND = query_of([0, 1, 1], [[1, 1, 0], [2]], [[3]], [[0], [0, 3], [0, 2, 0]])


@pytest.mark.parametrize("name", FIELDS)
def test_a_refused_query_changes_nothing(name):
    limits = roomy([FIRST, SECOND], STOPS, times=2)
    taken = {"steps": 3, "terms": needed(SECOND, STOPS).terms}.get(name)
    if taken is None:  # what both take together, less one
        full = PackedSequence(limits, STOPS)
        assert full.add(0, FIRST) and full.add(1, SECOND)
        batch = stack([full], BatchShape(limits, 1, 1, 0))
        taken = {
            "tokens": (batch.forest.subtree_end > 0).sum(),
            "readouts": 1 + max(batch.path_readout.max(), batch.path_end.max()),
            "paths": (batch.path_token >= 0).any(-1).sum(),
            "words": (batch.word_item >= 0).sum(),
        }[name]
    limits = limits._replace(**{name: int(taken) - 1})
    if name == "steps":
        first = query_of([0, 1], [[0], [1, 0]], [[0, 2]])
    else:
        first = FIRST
    row, untouched = PackedSequence(limits, STOPS), PackedSequence(limits, STOPS)
    assert row.add(7, first) and untouched.add(7, first)
    assert not row.add(8, SECOND)
    assert row.queries == [7]
    after, before = (stack([r], BatchShape(limits, 1, 1, 0)) for r in (row, untouched))
    jax.tree.map(np.testing.assert_array_equal, after, before)
    third = query_of([0, 1, 0], [[1]])
    assert row.add(9, third) == untouched.add(9, third)
    after, before = (stack([r], BatchShape(limits, 1, 1, 0)) for r in (row, untouched))
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_shared_tokens_are_stored_once():
    asked = [query_of([0, 1, 2, w], [[1, 0]], [[1, 1]]) for w in (0, 1)]
    limits = roomy(asked, STOPS, times=2)._replace(tokens=9)  # and not one to spare
    rows = fill([((0, 1), [0, 1])], asked, limits, STOPS)
    batch = pack(rows, limits)
    used = batch.forest.subtree_end[0] > 0
    # 2, then per item: its last prompt token, 1, and 0 and 1 behind it.
    assert used.sum() == 1 + 2 * (1 + 1 + 2)
    assert batch.forest.tokens[0, used].tolist() == [2, 0, 1, 0, 1, 1, 1, 0, 1]
    assert batch.forest.positions[0, used].tolist() == [2, 3, 4, 5, 5, 3, 4, 5, 5]
    assert batch.forest.subtree_end[0, used].tolist() == [9, 5, 5, 4, 5, 9, 9, 8, 9]
    assert batch.forest.trunk_tokens.tolist() == [[0, 1]] and batch.forest.trunk_length == [2]


def test_rows_with_the_same_trunk_share_it_and_others_do_not():
    asked = [query_of([0, 1, w], [[1]]) for w in (0, 1, 2)]
    limits = roomy(asked, STOPS)
    rows = fill([((0, 1), [0]), ((0,), [1]), ((0, 1), [2])], asked, limits, STOPS)
    forest = stack(rows, BatchShape(limits, 4, 3, 5)).forest
    assert forest.trunk_of[:3].tolist() == [0, 1, 0]
    assert forest.trunk_length.tolist() == [2, 1, 0]
    assert forest.trunk_tokens[:2].tolist() == [[0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_an_empty_batch_is_seen_by_nobody_and_says_nothing():
    limits = SequenceLimits(tokens=4, readouts=3, paths=3, steps=2, words=2, terms=2)
    batch = empty_batch(BatchShape(limits, sequences=2, trunks=1, trunk_tokens=3))
    assert not batch.forest.subtree_end.any() and not batch.forest.trunk_length.any()
    assert (batch.word_item == -1).all() and not batch.word_sign.any()
    assert unpack(batch) == []


@QUICK
@given(
    prompts=st.lists(st.lists(TOKENS, min_size=1, max_size=8), min_size=1, max_size=5),
    limit=st.integers(0, 8),
)
def test_the_shared_beginning_is_the_longest_proper_one_within_the_limit(prompts, limit):
    found = shared_beginning([query_of(p, [[0]]) for p in prompts], limit)
    fits = lambda n: n <= limit and all(len(p) > n and p[:n] == prompts[0][:n] for p in prompts)
    assert found == tuple(prompts[0][: max(n for n in range(9) if fits(n))])


def test_common_prefix_counts_equal_first_elements():
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2, 3]) == 2
    assert common_prefix([1], [2]) == common_prefix([], [1]) == 0


def test_a_prompt_with_words_beyond_the_window_is_refused():
    query = query_of([0] * 6, [[1]], [[1, 2, 3]])
    check_window([query], 9)
    with pytest.raises(UserError, match="9 tokens, the model's window is 8.*shorten the prompt"):
        check_window([query_of([0], [[1]]), query], 8)
