"""Batches are functions of (seed, step), and hold the stream's items with their targets."""

from __future__ import annotations

import collections
import dataclasses
import itertools

import jax
import numpy as np
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.fields import problems
from antiimit_jax.tasks.neutral import load_neutral
from antiimit_jax.tasks.output_control import Item, Mixture
from antiimit_jax.tasks.rungs import wordings
from antiimit_jax.text.formats import build_prompt, neutral_tokens
from antiimit_jax.training.batches import ControlBatch
from antiimit_jax.training.targets import permute_targets
from tests.training.small_model import TRAIN
from tests.unpack import unpack

MIXED = dataclasses.replace(
    TRAIN,
    mixture=Mixture(
        templates=(0, 5, 7, 9),
        ks=(2, 3, 4, 5),
        k_weights=(4.0, 3.0, 2.0, 1.0),
        shots=(0, 2),
        shot_weights=(0.7, 0.3),
    ),
    row_tokens=224,
)


def same(a: ControlBatch, b: ControlBatch) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def held(batch: ControlBatch, small, cfg) -> list[tuple[int, tuple, tuple, tuple]]:
    """(group, prompt ids, words, targets) of every item, read from the arrays, in order."""
    items = []
    for micro in range(cfg.accumulate):
        packed = jax.tree.map(lambda x: x[micro], batch.packed)
        slots = unpack(packed)
        for (row, _), of_item in itertools.groupby(slots, lambda slot: (slot.row, slot.item)):
            of_item = list(of_item)
            said = [
                {b"".join(small.tokenizer.pieces[t] for t in z).strip() for _, z in slot.terms}
                for slot in of_item
            ]
            assert all(len(spellings) == 1 for spellings in said)
            words = tuple(spellings.pop().decode() for spellings in said)
            targets = tuple(float(batch.target[micro, row, slot.slot]) for slot in of_item)
            group = micro * cfg.groups + row // (packed.word_item.shape[0] // cfg.groups)
            items.append((group, of_item[0].prompt, words, targets))
    return items


def stream(cfg, step: int, group: int, n: int) -> list[Item]:
    return list(
        itertools.islice(cfg.mixture.training(np.random.default_rng([0, 1, step, group])), n)
    )


def by_group(items) -> dict[int, list]:
    groups = collections.defaultdict(list)
    for group, *rest in items:
        groups[group].append(rest)
    return groups


def test_a_batch_is_a_function_of_seed_and_step(small):
    first, second = small.source(MIXED), small.source(MIXED)
    in_order = [first(step) for step in range(4)]
    for step in (2, 0, 3, 1, 2):
        assert same(second(step), in_order[step])
    assert not any(same(a, b) for a, b in itertools.combinations(in_order, 2))
    assert not same(small.source(MIXED, seed=1)(0), in_order[0])


@pytest.mark.parametrize("style", ["base", "chat"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_rows_hold_the_streams_items_in_order_with_their_targets(small, style, accumulate):
    cfg = dataclasses.replace(MIXED, accumulate=accumulate)
    batch = small.source(cfg, style=style)(5)
    found = held(batch, small, cfg)
    assert set(batch.n_items) == {len(found)} and len(found) >= 2 * cfg.groups * accumulate
    groups = by_group(found)
    assert set(groups) == set(range(cfg.groups * accumulate))
    for group, items in groups.items():
        for (prompt, words, targets), item in zip(items, stream(cfg, 5, group, len(items))):
            assert prompt == build_prompt(small.tokenizer, item.messages, style).ids
            assert words == item.words
            np.testing.assert_allclose(targets, item.targets, rtol=1e-6)
    beyond = (np.asarray(batch.packed.word_item) < 0) & (batch.target != 0)
    assert not beyond.any()


@pytest.mark.parametrize("style", ["base", "chat"])
def test_shapes_are_static_and_nearly_all_computed_tokens_exist(small, style):
    source = small.source(MIXED, style=style)
    shapes = set()
    for step in range(12):
        batch = source(step)
        shapes.add(tuple(np.shape(leaf) for leaf in jax.tree.leaves(batch)))
        forest = batch.packed.forest
        real = (forest.subtree_end[0] > 0).sum() + forest.trunk_length[0].sum()
        computed = forest.dense.place[0]
        assert (computed >= 0).sum() == real and 0.7 < real / len(computed) <= 1
        rows = forest.tokens.shape[1] // MIXED.groups
        for group in range(MIXED.groups):
            (trunk,) = set(forest.trunk_of[0, group * rows : (group + 1) * rows])
            assert forest.trunk_length[0, trunk] > 0
    assert len(shapes) == 1


def test_a_step_of_accumulated_microbatches_holds_the_items_of_one_large_batch(small):
    large = dataclasses.replace(MIXED, groups=4)
    parts = dataclasses.replace(MIXED, groups=1, accumulate=4)
    a, b = small.source(large)(3), small.source(parts)(3)
    assert held(a, small, large) == held(b, small, parts)
    assert set(a.n_items) == set(b.n_items) and b.target.shape[0] == 4


def test_examples_for_other_software_are_what_the_arrays_hold(small):
    for cfg in (MIXED, dataclasses.replace(MIXED, groups=1, accumulate=3, objective="sampled")):
        source = small.source(cfg)
        found = held(source(2), small, cfg)
        examples = source.examples(2)
        assert len(examples) == len(found)
        for (query, shares), (_, prompt, words, targets) in zip(examples, found):
            assert query.prompt_ids == prompt
            texts = [
                {p.text.strip() for p in query.paths if p.word == i} for i in range(len(words))
            ]
            assert texts == [{word} for word in words]
            np.testing.assert_allclose(shares, targets, rtol=1e-6)


def test_the_placebo_sees_the_same_prompts_and_other_items_targets(small):
    tuned, placebo = small.source(MIXED)(1), small.source(MIXED, placebo=True)(1)
    jax.tree.map(np.testing.assert_array_equal, tuned.packed, placebo.packed)
    moved = 0
    for group, items in by_group(held(placebo, small, MIXED)).items():
        drawn = stream(MIXED, 1, group, 200)
        for (_, _, targets), item in zip(items, drawn):
            others = [other.targets for other in drawn if len(other.words) == len(item.words)]
            assert any(np.allclose(targets, other, atol=1e-6) for other in others)
            moved += not np.allclose(targets, item.targets, atol=1e-6)
    assert moved >= 0.6 * tuned.n_items[0]  # percentages of two items can agree by chance


def test_placebo_targets_say_nothing_about_the_request(small):
    source = small.source(MIXED, placebo=True)
    asked, given = [], []
    for step in range(40):
        for group, items in by_group(held(source(step), small, MIXED)).items():
            for (_, _, targets), item in zip(items, stream(MIXED, step, group, len(items))):
                if len(targets) == 2:
                    asked.append(item.targets[0])
                    given.append(targets[0])
    assert len(asked) > 150
    assert abs(np.corrcoef(asked, given)[0, 1]) < 4 / np.sqrt(len(asked))


def test_permuted_targets_are_the_same_ones_by_word_count():
    rng = np.random.default_rng(0)
    targets = [tuple(np.random.default_rng(i).dirichlet(np.ones(2 + i % 4))) for i in range(17)]
    seen = collections.Counter()
    for _ in range(50):
        permuted = permute_targets(targets, rng)
        assert sorted(permuted) == sorted(targets)
        assert [len(t) for t in permuted] == [len(t) for t in targets]
        seen[tuple(permuted)] += 1
    assert len(seen) > 45  # a new permutation each time
    assert permute_targets([(0.5, 0.5), (0.2, 0.3, 0.5)], rng) == [(0.5, 0.5), (0.2, 0.3, 0.5)]


def test_every_permutation_of_a_groups_targets_is_as_likely():
    rng, targets = np.random.default_rng(0), [(0.1, 0.9), (0.2, 0.8), (0.3, 0.7), (0.4, 0.6)]
    seen = collections.Counter(tuple(permute_targets(targets, rng)) for _ in range(2400))
    assert set(seen) == set(itertools.permutations(targets))
    chi2 = sum((count - 100) ** 2 / 100 for count in seen.values())
    assert chi2 < 23 + 4 * np.sqrt(2 * 23)


def test_sampled_labels_are_one_word_of_each_item_as_often_as_asked(small):
    cfg = dataclasses.replace(MIXED, objective="sampled")
    exact, sampled = small.source(MIXED), small.source(cfg)
    excess, variance, items = 0.0, 0.0, 0
    for step in range(25):
        a, b = exact(step), sampled(step)
        jax.tree.map(np.testing.assert_array_equal, a.packed, b.packed)
        assert same(sampled(step), b)
        for (_, _, _, target), (_, _, _, label) in zip(held(a, small, cfg), held(b, small, cfg)):
            assert sorted(set(label)) == [0.0, 1.0] and sum(label) == 1.0
            best = int(np.argmax(target))
            excess += label[best] - target[best]
            variance += target[best] * (1 - target[best])
            items += 1
    assert items > 200 and abs(excess) < 4 * np.sqrt(variance)


def test_anchor_texts_fill_the_row_and_change_with_the_step(small):
    known = [
        neutral_tokens(small.tokenizer, p.messages, p.text, "base") for p in load_neutral("anchor")
    ]
    cfg = dataclasses.replace(TRAIN, anchor_tokens=300)
    openings = set()
    for step in range(6):
        row = jax.tree.map(lambda leaf: leaf[0], small.batch(cfg, step)["anchor"])
        starts = np.flatnonzero(np.asarray(row.forest.positions[0]) == 0)
        assert row.forest.tokens.shape == (1, 300) and (row.forest.subtree_end > 0).all()
        assert len(starts) >= 2
        for start, end in zip(starts, [*starts[1:], 300]):
            ids = tuple(int(t) for t in row.forest.tokens[0, start:end])
            firsts = [first for text, first in known if tuple(text)[: len(ids)] == ids]
            scored = [np.arange(end - start) >= first for first in firsts]
            assert any(np.array_equal(row.scored[0, start:end], s) for s in scored)
        openings.add(tuple(row.forest.tokens[0, :8].tolist()))
    assert len(openings) == 6


def test_an_item_too_large_for_a_row_is_refused(small):
    with pytest.raises(UserError, match="row_tokens"):
        small.source(dataclasses.replace(TRAIN, row_tokens=40))(0)


RUNGS = dataclasses.replace(
    TRAIN, tasks=("mixture", "L4", "L8"), task_weights=(0.0, 3.0, 1.0), row_tokens=400
)


def test_groups_are_drawn_from_the_tasks_by_their_weights(small):
    source, kinds = small.source(RUNGS), collections.Counter()
    for step in range(20):
        for group in range(RUNGS.groups):
            items, _ = source._drawn(step, group)
            assert {item.split for item in items} == {"train"}
            (kind,) = {item.facets["kind"] for item in items}  # one to a group
            kinds["L4" if kind in {w.kind for w in wordings("L4")} else "L8"] += 1
    assert kinds.total() == 40 and 22 <= kinds["L4"] <= 38  # 30 expected, deviation 2.7


def test_requests_of_rungs_are_trained_on_as_pairs_with_all_their_words(small):
    batch = small.source(RUNGS)(0)
    stated = {}
    for _, _, words, targets in held(batch, small, RUNGS):
        stated.setdefault(frozenset(words), []).append((words, targets))
    whole = [asked for asked in stated.values() if len(asked) == 4]
    assert whole
    for asked in whole:
        assert len({words for words, _ in asked}) == 2 and len(set(asked)) == 4
    assert batch.n_pairs[0] >= 2 * len(whole)


def test_weights_must_fit_the_tasks():
    assert problems(dataclasses.replace(TRAIN, tasks=("mixture", "L4")), "train") == [
        "train.tasks ('mixture', 'L4') and train.task_weights (1.0,) do not match"
    ]
    (wrong,) = problems(dataclasses.replace(TRAIN, tasks=("L10",)), "train")
    assert wrong.startswith("train.tasks holds 'L10': one of mixture, L4, L5, L6, L8")
