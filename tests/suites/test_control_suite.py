"""Output control: which items a figure stands on, and figures from the table alone."""

from __future__ import annotations

import collections
import runpy
from pathlib import Path

import numpy as np
import pytest

from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.results import Stage
from antiimit_jax.run_config import from_dict
from antiimit_jax.suites import control
from antiimit_jax.suites.control.lead import UNLIKE_TRAINING
from antiimit_jax.tasks.output_control import Mixture
from antiimit_jax.tasks.templates import HELDOUT_TEMPLATES
from tests.metrics.test_control import results_of
from tests.suites.small import as_read, small_config

CFG = small_config().control
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tables(asker):
    return as_read(control.measure(asker(), CFG))


@pytest.fixture(scope="module")
def rows(tables):
    return control.score(tables, CFG, Bootstrap(n_boot=0))


def found(rows, split: str, where: str, metric: str = "tvd_res", stage: str = "base") -> dict:
    key = (stage, split, where, metric)
    (row,) = [r for r in rows if (r["stage"], r["split"], r["slice"], r["metric"]) == key]
    return row


def test_main_figures_stand_on_plain_requests(rows):
    items = CFG.mixture.evaluation("heldout_words", CFG.n_items, 0)
    is_heldout = lambda item: item.facets["template"] in HELDOUT_TEMPLATES
    shots = lambda item: item.facets["n_shots"]
    plain = [i for i in items if shots(i) == 0 and not is_heldout(i)]
    count = lambda where: found(rows, "heldout_words", where)["n"]
    assert count("all") == len(plain)
    assert count("k=2") == sum(len(i.words) == 2 for i in plain)
    assert count("templates=heldout") == sum(shots(i) == 0 and is_heldout(i) for i in items)
    assert count("shots=2") == sum(shots(i) == 2 and not is_heldout(i) for i in items)


def test_an_evaluation_has_twenty_word_sets_for_every_slice_and_24_for_every_other_split():
    items = control.items_of(control.Config(), 0)
    assert len(items) * 3 <= 9000
    sets = {split: {i.cluster for i in items if i.split == split} for split in control.SPLITS}
    assert min(map(len, sets.values())) >= 24
    asked = [item for item in items if item.split == "heldout_words"]
    k = np.array([len(item.words) for item in asked])
    target = np.array([np.pad(item.targets, (0, 5 - len(item.words))) for item in asked])
    facets = {name: [i.facets[name] for i in asked] for name in ("shot_set", "n_shots", "template")}
    cluster = np.array([item.cluster for item in asked])
    made = results_of(target, target, k=k, cluster=cluster, **facets)
    heldout = np.array([item.facets["template_heldout"] for item in asked])
    slices = control.item_slices(made, heldout)
    wanted = {"k=2", "k=3", "k=4", "k=5", "templates=heldout", "k=2,few-shot", "shots=2"}
    wanted |= {f"k=2,distance={region}" for region in ("0-15", "16-30", "31-49")}
    for name in wanted:
        assert len(set(cluster[slices[name]])) >= 20, name


def test_two_to_ten_words_have_twenty_word_sets_each_and_a_name():
    config = runpy.run_path(str(ROOT / "configs" / "words.py"))["get_config"]()
    cfg = from_dict(config.to_dict()).control
    items = control.items_of(cfg, 0)
    sets = {k: {i.cluster for i in items if len(i.words) == k} for k in range(2, 11)}
    assert min(map(len, sets.values())) >= 20 and sum(map(len, sets.values())) < 205
    assert all(sum(item.targets) == pytest.approx(1) and min(item.targets) > 0 for item in items)
    assert {f"k={k}" for k in sets} <= UNLIKE_TRAINING.keys()


def test_other_splits_hold_plain_pairs_and_follow_a_small_number_of_items():
    items = control.items_of(control.Config(n_items=16), 0)
    counts = collections.Counter(item.split for item in items)
    assert counts.keys() == set(control.SPLITS) and set(counts.values()) <= {16, 20}
    for item in items:
        if item.split != "heldout_words":
            assert len(item.words) == 2 and item.facets["n_shots"] == 0
            assert item.facets["template"] not in HELDOUT_TEMPLATES


def test_the_table_holds_every_item_and_its_facets(tables):
    table = tables["items"]
    items = {item.item: item for item in control.items_of(CFG, 0)}
    assert set(table["item"]) == set(items) and set(table["stage"]) == {"base"}
    for i, name in enumerate(table["item"]):
        item, word = items[name], table["word_index"][i]
        assert table["word"][i] == item.words[word] and table["target"][i] == item.targets[word]
        assert all(table[facet][i] == value for facet, value in item.facets.items())
    assert set(table["scoring"]) == {"strict/standard/1"} and set(table["dtype"]) == {"float32"}


def test_the_prior_is_asked_of_the_base_alone(tables, asker):
    assert np.isfinite(tables["items"]["prior"]).all()
    other = control.measure(asker(Stage(name="tuned", kind="tuned")), CFG)
    assert set(other["items"]["prior"]) == {None}
    np.testing.assert_array_equal(other["items"]["q"], tables["items"]["q"])


def test_tvd_can_be_had_from_the_item_table_alone(tables, rows):
    table = tables["items"]
    tvd: dict[str, float] = {}
    columns = ("split", "item", "k", "template", "n_shots", "target", "q", "residual")
    for split, item, k, template, shots, target, q, residual in zip(*(table[c] for c in columns)):
        if (split, k, shots) == ("heldout_both", 2, 0) and template not in HELDOUT_TEMPLATES:
            tvd[item] = tvd.get(item, residual / 2) + abs(q - target) / 2
    value = found(rows, "heldout_both", "k=2")["value"]
    assert value == pytest.approx(np.mean(list(tvd.values())), abs=1e-6)


def test_baselines_come_with_the_base_alone(tables):
    other = {"items": tables["items"] | {"stage": np.full(len(tables["items"]["q"]), "tuned")}}
    stages = {row["stage"] for row in control.score(other, CFG, Bootstrap(n_boot=0))}
    differences = {f"diff:tuned-baseline:{name}" for name in ("uniform", "two_level")}
    assert stages == {"tuned", *differences}
    stages = {row["stage"] for row in control.score(tables, CFG, Bootstrap(n_boot=0))}
    differences = {f"diff:base-baseline:{name}" for name in ("uniform", "two_level")}
    assert stages == {"base", *control.BASELINES, *differences}


def test_the_base_is_paired_with_lazy_answers_as_an_adapter_is(rows):
    for split, where in (("heldout_words", "k=2"), ("heldout_both", "all")):
        for name in ("uniform", "two_level"):
            less = found(rows, split, where, stage=f"diff:base-baseline:{name}")
            lazy = found(rows, split, where, stage=f"baseline:{name}")
            base = found(rows, split, where)
            assert less["value"] == pytest.approx(base["value"] - lazy["value"])
            assert less["n"] == base["n"]


def test_slices_of_results_without_plain_requests_hold_all(asker):
    mixture = Mixture(templates=HELDOUT_TEMPLATES, ks=(2,), k_weights=(1.0,))
    cfg = control.Config(mixture=mixture, splits=("train",), n_items=12)
    stage = Stage(name="tuned", kind="tuned")
    tables = as_read(control.measure(asker(stage), cfg))
    made = control.score(tables, cfg, Bootstrap(n_boot=0))
    assert found(made, "train", "all", stage="tuned")["n"] == 12
