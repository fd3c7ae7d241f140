"""Training on a user's own items: epochs that visit each once, as functions of (seed, step)."""

from __future__ import annotations

import dataclasses
import json

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.tasks.user_items import load_items
from antiimit_jax.text.formats import build_prompt
from tests.training.small_model import TRAIN
from tests.training.test_batches import by_group, held, same

WORDS = ("river", "lantern", "walnut", "saddle", "copper", "meadow")
N_ITEMS = 23


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Training on items of two and three words, with a prompt of its own each."""
    file = tmp_path_factory.mktemp("own") / "items.jsonl"
    records = [
        {"prompt": f"Request {i}" + " please" * (i % 4), "words": WORDS[: 2 + i % 2]}
        | {"targets": ([3 + i, 97 - i], [0.5, 0.3, 0.2])[i % 2]}
        for i in range(N_ITEMS)
    ]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return dataclasses.replace(TRAIN, items_file=str(file))


def groups_of(small, cfg, steps: int, **how) -> list[list]:
    """(prompt ids, words, targets) of the items of each group, step by step."""
    source, found = small.source(cfg, **how), []
    for step in range(steps):
        groups = by_group(held(source(step), small, cfg))
        found += [groups[number] for number in sorted(groups)]
    return found


def test_every_epoch_holds_each_item_once(small, own):
    prompts = {
        build_prompt(small.tokenizer, item.messages, "base").ids: (item.words, item.targets)
        for item in load_items(own.items_file).entries
    }
    epochs, seen = [], []
    for group in groups_of(small, own, 20):
        seen += group
        if len({prompt for prompt, *_ in seen}) == N_ITEMS:
            epochs.append([prompt for prompt, *_ in seen])
            assert len(seen) == N_ITEMS
            for prompt, words, targets in seen:
                assert (words, pytest.approx(targets, rel=1e-6)) == prompts[prompt]
            seen = []
    assert len(epochs) >= 3 and len(set(map(tuple, epochs))) > 1


def test_batches_are_functions_of_seed_and_step(small, own):
    first, second = small.source(own), small.source(own)
    in_order = [first(step) for step in range(4)]
    for step in (3, 1, 2):
        assert same(second(step), in_order[step])
    assert not same(small.source(own, seed=1)(0), in_order[0])


def test_the_placebo_permutes_targets_within_a_group(small, own):
    tuned, placebo = (groups_of(small, own, 2, placebo=placebo) for placebo in (False, True))
    moved = 0
    for one, other in zip(tuned, placebo, strict=True):
        assert [item[:2] for item in one] == [item[:2] for item in other]
        assert sorted(item[2] for item in one) == sorted(item[2] for item in other)
        moved += [item[2] for item in one] != [item[2] for item in other]
    assert moved


def test_a_limit_takes_the_first_items(small, own):
    cfg = dataclasses.replace(own, limit=5)
    prompts = {prompt for group in groups_of(small, cfg, 3) for prompt, *_ in group}
    first = load_items(own.items_file).entries[:5]
    assert prompts == {build_prompt(small.tokenizer, item.messages, "base").ids for item in first}
    assert dataclasses.replace(TRAIN, limit=5).problems("train") == [
        "train.limit = 5: it counts your own items; set train.items_file"
    ]


def test_an_item_that_no_row_holds_is_refused(small, own, tmp_path):
    long = {"prompt": "Word " * 400, "words": WORDS[:2], "targets": [50, 50]}
    short = {"prompt": "Word", "words": WORDS[:2], "targets": [50, 50]}
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(r) + "\n" for r in (short, long)))
    cfg = dataclasses.replace(own, items_file=str(tmp_path / "long.jsonl"))
    with pytest.raises(UserError, match="does not fit a row: raise train.row_tokens"):
        small.source(cfg)(0)
