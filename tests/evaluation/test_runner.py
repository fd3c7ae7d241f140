"""Data-parallel scoring: the same numbers on any number of devices, nothing lost or doubled."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.models.lora import LoraConfig, init_adapter
from antiimit_jax.parallel import DataParallel, layout_of, make_mesh
from antiimit_jax.scoring.batching import pack_batches, share_trunks
from antiimit_jax.scoring.packing import common_prefix
from antiimit_jax.scoring.trie import WordQuery, word_query
from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.output_control import Mixture
from tests.tiny_model import write_tiny_model

MIXTURE = Mixture(
    templates=(0, 3, 5),
    ks=(2, 3, 5),
    k_weights=(2.0, 1.0, 1.0),
    shots=(0, 2),
    shot_weights=(2.0, 1.0),
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> LanguageModel:
    return load_language_model(str(write_tiny_model(tmp_path_factory.mktemp("tiny"))))


@pytest.fixture(scope="module")
def queries(tiny):
    items = MIXTURE.evaluation("heldout_words", 44, seed=3)
    return [query(tiny, item) for item in items]


def query(lm: LanguageModel, item: Item) -> WordQuery:
    return word_query(lm.tokenizer, lm.prompt(item.messages), item.words)


def random_adapter(lm: LanguageModel):
    fresh = init_adapter(jax.random.key(1), lm.cfg, LoraConfig(rank=4))
    keys = iter(jax.random.split(jax.random.key(2), 100))
    return jax.tree.map(lambda x: 0.3 * jax.random.normal(next(keys), x.shape), fresh)


@pytest.fixture(scope="module")
def alone(tiny, queries):
    """What one device answers, without an adapter and with one."""
    runner, adapter = Runner(tiny, jax.local_devices()[:1]), random_adapter(tiny)
    return [
        runner.word_probs(variant, queries)
        for variant in (runner.base, runner.adapted(adapter, 2.0))
    ]


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_eight_devices_give_the_q_of_one(tiny, queries, alone, shards):
    """Copies under `pmap`, and every mesh of rows that share the weights."""
    assert len(jax.local_devices()) == 8
    eight = Runner(dataclasses.replace(tiny, mesh=make_mesh(jax.local_devices(), shards)))
    for variant, expected in zip((eight.base, eight.adapted(random_adapter(tiny), 2.0)), alone):
        together = eight.word_probs(variant, queries)
        for a, b in zip(expected, together, strict=True):
            np.testing.assert_allclose(b.q, a.q, rtol=1e-5, atol=1e-12)
            np.testing.assert_allclose(b.path_mass, a.path_mass, rtol=1e-5, atol=1e-12)


def test_every_query_is_answered_once_and_alone_as_in_company(tiny, queries):
    runner = Runner(tiny, jax.local_devices()[:3])
    told = []
    answers = runner.word_probs(runner.base, queries, progress=told.append)
    assert sum(told) == len(queries) == len(answers)
    for i in (0, 7, len(queries) - 1):
        (alone,) = runner.word_probs(runner.base, [queries[i]])
        np.testing.assert_allclose(alone.q, answers[i].q, rtol=1e-5, atol=1e-12)
        assert len(answers[i].q) == queries[i].n_words


def test_an_adapter_changes_the_answer_and_a_fresh_one_does_not(tiny, queries):
    runner = Runner(tiny, jax.local_devices()[:2])
    base = runner.word_probs(runner.base, queries[:4])
    fresh = init_adapter(jax.random.key(0), tiny.cfg, LoraConfig(rank=4))
    same = runner.word_probs(runner.adapted(fresh, 2.0), queries[:4])
    other = runner.word_probs(runner.adapted(random_adapter(tiny), 2.0), queries[:4])
    for a, b, c in zip(base, same, other):
        np.testing.assert_array_equal(a.q, b.q)
        assert np.abs(np.log(a.q) - np.log(c.q)).max() > 1e-3


def test_parameters_are_placed_once_on_each_device(tiny):
    devices = jax.local_devices()[:4]
    runner = Runner(tiny, devices)
    leaf = jax.tree.leaves(runner.base.params)[0]
    assert {shard.device for shard in leaf.addressable_shards} == set(devices)
    pointers = lambda: [shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards]
    before = pointers()
    arguments = (runner.base.params, runner.layout.place(np.ones(2, np.float32)))
    echo = runner.map(
        lambda decoder, params, x, batch: batch, runner.base, arguments, [np.ones(3)], np.ones(3)
    )
    assert len(list(echo)) == 1
    assert pointers() == before


@pytest.mark.parametrize("shards", [1, 2])
def test_a_ragged_last_round_is_filled_and_dropped(shards):
    layout = layout_of(make_mesh(jax.local_devices()[: 4 * shards], shards))
    assert layout.n_batches == 4
    double = DataParallel(lambda placed, x: placed * x, layout)
    batches = [np.full(2, float(i), np.float32) for i in range(6)]
    factor = layout.place(np.full(2, 2.0, np.float32))
    results = list(double(factor, batches, np.full(2, np.nan, np.float32)))
    np.testing.assert_array_equal(np.stack(results), 2 * np.stack(batches))


def test_a_prompt_beyond_the_window_is_refused(tiny):
    runner = Runner(tiny, jax.local_devices()[:1])
    items = MIXTURE.evaluation("heldout_words", 4, seed=0)
    asked = query(tiny, items[0])
    long = type(asked)(asked.prompt_ids * 100, asked.paths, asked.n_words)
    with pytest.raises(UserError, match="window is 2048"):
        runner.word_probs(runner.base, [long])


def test_trunks_are_proper_beginnings_and_save_what_the_best_cut_saves(queries):
    groups = share_trunks(queries)
    assert sorted(i for group, _ in groups for i in group) == list(range(len(queries)))
    for group, trunk in groups:
        for i in group:
            ids = queries[i].prompt_ids
            assert ids[: len(trunk)] == trunk and len(trunk) < len(ids)
    few = queries[:9]
    saved = sum((len(group) - 1) * len(trunk) for group, trunk in share_trunks(few))
    assert saved == _best_saving(sorted(q.prompt_ids for q in few))


def _best_saving(ids: list[tuple[int, ...]]) -> int:
    """All ways to cut the sorted prompts, one by one."""
    best = 0
    for cuts in range(1 << (len(ids) - 1)):
        total, start = 0, 0
        for i in range(1, len(ids) + 1):
            if i == len(ids) or cuts >> (i - 1) & 1:
                run = ids[start:i]
                if len(run) > 1:
                    shared = min(common_prefix(run[0], other) for other in run)
                    total += (len(run) - 1) * min(shared, min(map(len, run)) - 1)
                start = i
        best = max(best, total)
    return best


def test_batches_hold_every_query_once_and_report_their_padding(tiny, queries):
    work = pack_batches(queries, tiny.terminators.standard)
    held = [i for part in work for rows in part.queries for row in rows for i in row]
    assert sorted(held) == list(range(len(queries)))
    for part in work:
        real = sum(
            int((batch.forest.subtree_end > 0).sum() + batch.forest.trunk_length.sum())
            for batch in part.batches
        )
        shapes = {
            tuple(leaf.shape for leaf in jax.tree.leaves(b)) for b in (*part.batches, part.empty)
        }
        assert len(shapes) == 1
        assert part.used_tokens == real <= part.all_tokens
