"""Control on a user's own items: one split, facets as slices, what they lack said in a note."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.suites import control
from antiimit_jax.tasks.output_control import SPLITS
from tests.suites.small import as_read, small_config
from tests.suites.test_control_suite import found

SETS = (("dog", "cat"), ("sun", "rain"), ("red", "blue"))


def asked(words, percents, **more) -> dict:
    listed = ", ".join(f"{word} {percent}%" for word, percent in zip(words, percents))
    return {"prompt": f"One word: {listed}.", "words": words, "targets": percents} | more


PAIRS = [
    asked(words, (p, 100 - p), facets={"topic": words[0], "clear": p > 60 or p < 40})
    for words in SETS
    for p in (70, 30, 55, 45)
]
THREE = asked(("one", "two", "three"), (50, 30, 20), facets={"topic": "dice"})
BARE = asked(("up", "down"), (60, 40))


def scored(asker, file: Path, records: list[dict], **changes) -> list[dict]:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    cfg = dataclasses.replace(small_config().control, items_file=str(file), **changes)
    return control.score(as_read(control.measure(asker(), cfg)), cfg, Bootstrap(n_boot=0))


@pytest.fixture(scope="module")
def rows(asker, tmp_path_factory):
    file = tmp_path_factory.mktemp("own") / "items.jsonl"
    return scored(asker, file, [*PAIRS, THREE, BARE])


def test_items_are_one_split_and_their_facets_are_slices(rows):
    assert {row["split"] for row in rows} == {"items"}
    count = {row["slice"]: row["n"] for row in rows if row["metric"] == "tvd_res" and row["n"]}
    assert (count["all"], count["k=2"], count["k=3"]) == (14, 13, 1)
    assert {n: c for n, c in count.items() if n.startswith("topic=")} == {
        "topic=dog": 4,
        "topic=sun": 4,
        "topic=red": 4,
        "topic=dice": 1,
    }
    assert count["clear=true"] == count["clear=false"] == 6
    assert not [name for name in count if name.startswith(("template", "shots"))]


def test_the_slope_is_there_where_the_same_words_are_asked_both_ways(rows, asker, tmp_path):
    assert found(rows, "items", "k=2", "gamma")["value"] is not None
    one_way = scored(asker, tmp_path / "one_way.jsonl", PAIRS[::4])
    lacking = found(one_way, "items", "k=2", "gamma")
    assert lacking["value"] is None and "exchanged" in lacking["note"]


def test_word_sets_of_one_cluster_are_resampled_together_and_not_mixed(rows, asker, tmp_path):
    together = [record | {"cluster": "all"} for record in PAIRS]
    made = scored(asker, tmp_path / "together.jsonl", [*together, THREE, BARE])
    for metric in ("gamma", "gamma_within", "preference_sd", "request_gain"):
        one, other = (found(r, "items", "k=2", metric) for r in (rows, made))
        assert one["value"] == pytest.approx(other["value"], abs=1e-9)
        assert (one["clusters"], other["clusters"]) == (4, 2)


def test_baselines_that_need_other_prompts_are_null_with_a_note(rows):
    for name, why in (("prior", "no prompt without percentages"), ("few_shot_copy", "examples")):
        row = found(rows, "items", "all", stage=f"baseline:{name}")
        assert (row["value"], row["n"]) == (None, 0) and why in row["note"]
    assert found(rows, "items", "all", stage="baseline:uniform")["value"] > 0


def test_a_limit_counts_items_in_all(asker, tmp_path):
    few = scored(asker, tmp_path / "few.jsonl", [*PAIRS, THREE], limit=5)
    assert found(few, "items", "all")["n"] == 5
    ours = control.Config(limit=10, splits=SPLITS[:4], n_items=8)
    splits = [item.split for item in control.items_of(ours, 0)]
    assert [splits.count(split) for split in SPLITS[:4]] == [3, 3, 2, 2]
    every = control.items_of(dataclasses.replace(ours, limit=0), 0)
    assert control.items_of(dataclasses.replace(ours, limit=10**6), 0) == every


def test_other_suites_take_the_two_word_items(asker, tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in [THREE, *PAIRS]))
    cfg = control.Config(items_file=str(file))
    assert [len(i.words) for i in control.plain_pairs(cfg, 0, 5)] == [2] * 5
    assert np.unique([i.item for i in control.plain_pairs(cfg, 0, 100)]).size == len(PAIRS)
