"""The same words get the same probabilities and gradients however they are packed."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiimit_jax.scoring.batching import pack_batches
from antiimit_jax.scoring.packing import (
    BatchShape,
    PackedBatch,
    SequenceLimits,
    shared_beginning,
    stack,
)
from antiimit_jax.scoring.trie import FormPath, WordQuery, word_query
from antiimit_jax.scoring.word_probs import from_logits, word_log_probs
from antiimit_jax.text.formats import text_prompt
from tests.scoring.layouts import Tiny, alone, by_word, fill, pack, roomy

VALUES = dict(rtol=1e-5, atol=1e-5)
GRADIENTS = 1e-4  # relative to the gradient's norm
OPENING = "Say a word of the river. "
ASKED = {
    "Pick a word: apple or rock?\n\nAnswer:": ["apple", "apples", "rock", "rock'n'roll"],
    "Pick a word: a car or 3?\n\nAnswer:": ["car", "3", "3.5", "carpet", "café"],
    "Pick a word:": ["naïve", "river"],
    "Pick a rock.\n\nWord:": ["rock", "cart", "applesauce"],
}


@pytest.fixture(scope="module")
def queries(tiny) -> list[WordQuery]:
    tokenizer = tiny.tokenizer
    prompts = [text_prompt(tokenizer, OPENING + text) for text in ASKED]
    return [word_query(tokenizer, p, words) for p, words in zip(prompts, ASKED.values())]


@pytest.fixture(scope="module")
def expected(tiny, queries) -> dict[tuple[int, int], float]:
    return alone(tiny, queries)


def check(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    values = np.array([[found[key], expected[key]] for key in expected])
    np.testing.assert_allclose(values[:, 0], values[:, 1], **VALUES)


def scored(tiny: Tiny, rows, batch: PackedBatch) -> dict[tuple[int, int], float]:
    return by_word(rows, batch, np.asarray(tiny.score(batch).log_q))


def weights(rows, batch: PackedBatch) -> np.ndarray:
    """A different weight for each (query, word), 0 on padding."""
    out = np.zeros(batch.word_item.shape, np.float32)
    for b, row in enumerate(rows):
        slots = np.flatnonzero(batch.word_item[b] >= 0)
        for w in slots:
            word = (batch.word_item[b, slots] == batch.word_item[b, w])[: w - slots[0]].sum()
            out[b, w] = np.cos(1 + row.queries[batch.word_item[b, w]] + 5 * word)
    return out


def gradient(tiny: Tiny, rows, batch: PackedBatch) -> np.ndarray:
    """d sum(weight * log q) / d adapter, flat."""
    weight = weights(rows, batch)

    @jax.jit
    @jax.grad
    def slope(lora, params, batch):
        out = word_log_probs(tiny.decoder, {"params": params, "lora": lora}, tiny.stops, batch)
        return jnp.where(batch.word_item >= 0, out.log_q * weight, 0).sum()

    grads = slope(tiny.variables["lora"], tiny.variables["params"], batch)
    return np.concatenate([np.ravel(g) for g in jax.tree.leaves(grads)])


def layout(tiny: Tiny, queries, name: str):
    """(rows, batch) of the named way to pack the queries; "dense" computes no padding."""
    name, dense = name.removeprefix("dense, "), name.startswith("dense, ")
    everything = list(range(len(queries)))
    pick = shared_beginning(queries, 10_000)
    assert len(pick) >= 4
    plans = {
        "alone": [((), [i]) for i in everything],
        "one row": [((), everything)],
        "one row, other order": [((), everything[::-1])],
        "more padding": [((), [i]) for i in everything],
        "short trunk": [(pick[:1], everything[:2]), (pick[:1], everything[2:])],
        "whole trunk": [(pick, everything[:1]), (pick, everything[1:])],
        "trunk of one row": [(pick, everything[:3]), ((), everything[3:])],
        "own trunks": [(queries[i].prompt_ids[:-1], [i]) for i in everything],
    }
    limits = roomy(queries, tiny.stops, times=len(queries))
    if name == "alone":
        limits = roomy(queries, tiny.stops)
    if name == "more padding":
        bigger = {f: 2 * v + 3 for f, v in limits._asdict().items()}
        limits = SequenceLimits(**bigger)
    rows = fill(plans[name], queries, limits, tiny.stops)
    room = dict(spare=3, longer=5) if name in ("more padding", "trunk of one row") else {}
    if dense:
        room["dense"] = 7 if room else 0
    return rows, pack(rows, limits, **room)


LAYOUTS = (
    "one row",
    "one row, other order",
    "more padding",
    "short trunk",
    "whole trunk",
    "trunk of one row",
    "own trunks",
    "dense, alone",
    "dense, more padding",
    "dense, whole trunk",
    "dense, trunk of one row",
    "dense, own trunks",
)


@pytest.mark.parametrize("name", LAYOUTS)
def test_values_do_not_depend_on_the_layout(tiny, queries, expected, name):
    check(scored(tiny, *layout(tiny, queries, name)), expected)


@pytest.fixture(scope="module")
def reference(tiny, queries) -> np.ndarray:
    return gradient(tiny, *layout(tiny, queries, "alone"))


@pytest.mark.parametrize(
    "name",
    ["one row", "more padding", "whole trunk", "dense, more padding", "dense, trunk of one row"],
)
def test_gradients_do_not_depend_on_the_layout(tiny, queries, reference, name):
    found = gradient(tiny, *layout(tiny, queries, name))
    assert np.linalg.norm(reference) > 0.1
    assert np.linalg.norm(found - reference) <= GRADIENTS * np.linalg.norm(reference)


def test_word_order_does_not_matter(tiny, queries, expected):
    turned = [
        WordQuery(
            query.prompt_ids,
            tuple(
                dataclasses.replace(path, word=query.n_words - 1 - path.word)
                for path in reversed(query.paths)
            ),
            query.n_words,
        )
        for query in queries
    ]
    found = alone(tiny, turned)
    check({(i, queries[i].n_words - 1 - w): v for (i, w), v in found.items()}, expected)


def test_padding_on_the_left_does_not_matter(tiny, queries, expected):
    rows, batch = layout(tiny, queries, "short trunk")
    forest, by = batch.forest, 4
    room = ((0, 0), (by, 0))
    ends = np.pad(forest.subtree_end, room)
    moved = batch._replace(
        forest=forest._replace(
            tokens=np.pad(forest.tokens, room, constant_values=7),
            positions=np.pad(forest.positions, room, constant_values=9),
            subtree_end=np.where(ends > 0, ends + by, 0),
        ),
        read_at=batch.read_at + by * (1 + batch.read_at // forest.tokens.shape[1]),
    )
    check(scored(tiny, rows, moved), expected)


def test_what_padding_holds_does_not_matter(tiny, queries, expected):
    rows, batch = layout(tiny, queries, "trunk of one row")
    forest, rng = batch.forest, np.random.default_rng(0)
    noise = lambda array, free: np.where(free, rng.integers(0, 300, array.shape), array)
    beyond = np.arange(forest.trunk_tokens.shape[1]) >= forest.trunk_length[:, None]
    dirty = batch._replace(
        forest=forest._replace(
            tokens=noise(forest.tokens, forest.subtree_end == 0).astype(np.int32),
            positions=noise(forest.positions, forest.subtree_end == 0).astype(np.int32),
            trunk_tokens=noise(forest.trunk_tokens, beyond).astype(np.int32),
        )
    )
    assert (dirty.forest.tokens != forest.tokens).any() and beyond.any()
    check(scored(tiny, rows, dirty), expected)


LIMITS = SequenceLimits(tokens=64, readouts=40, paths=16, steps=3, words=16, terms=8)
TOKENS = st.integers(2, 9)  # spaces and marks of the tiny vocabulary among them


@st.composite
def any_query(draw) -> WordQuery:
    prompt = draw(st.lists(TOKENS, min_size=2, max_size=8))
    path = st.lists(TOKENS, min_size=1, max_size=3).map(tuple)
    paths = draw(st.lists(path, min_size=1, max_size=4, unique=True))
    forms = tuple(FormPath("", z, i) for i, z in enumerate(paths))
    return WordQuery(tuple(prompt), forms, len(paths))


@settings(derandomize=True, deadline=None, max_examples=25)
@given(asked=st.lists(any_query(), min_size=1, max_size=4), data=st.data())
def test_random_queries_in_random_rows_behind_random_trunks(tiny, asked, data):
    shape = BatchShape(LIMITS, sequences=4, trunks=4, trunk_tokens=8)  # one shape: compiled once
    rows = fill([((), [i]) for i in range(len(asked))], asked, LIMITS, tiny.stops)
    reference = scored(tiny, rows, stack(rows, shape))
    home = [data.draw(st.integers(0, 1)) for _ in asked]
    plan = []
    for number in (0, 1):
        members = [i for i in range(len(asked)) if home[i] == number]
        if members:
            longest = shared_beginning([asked[i] for i in members], data.draw(st.integers(0, 8)))
            plan.append((longest, members))
    rows = fill(plan, asked, LIMITS, tiny.stops)
    check(scored(tiny, rows, stack(rows, shape)), reference)


def test_batches_of_one_part_are_traced_once(tiny):
    asked = [WordQuery((i, *range(50)), (FormPath("", (4,), 0),), 1) for i in range(6)]
    for part in pack_batches(asked, tiny.stops, batch_tokens=128):
        assert len(part.batches) > 1
        once = jax.jit(chex.assert_max_traces(from_logits, 1))
        for batch in (*part.batches, part.empty):
            once(jnp.zeros((len(batch.read_at), len(tiny.stops))), tiny.stops, batch)
