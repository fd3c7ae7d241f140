"""Rows of metrics.json: schema, slices, notes, baselines; strict JSON whatever the model does."""

from __future__ import annotations

import json

import numpy as np
import pytest

from antiimit_jax.metrics.control import item_metrics
from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.metrics.rows import baseline_rows, control_rows, paired_rows, standard_slices
from tests.metrics.test_control import padded, results_of

SCHEMA = [
    "stage",
    "suite",
    "split",
    "slice",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "clusters",
]
METRICS = """
tvd_res tvd_cond kl_fwd kl_share kl_mass kl_rev js_bits mae_share residual mass pass_05 pass_10
pass_20 skill skill_over_rank slope intercept r2 logit_slope corr corr_within ece_share
collapse_index step_similarity first_position_bias
""".split()


def everything(results):
    return {"all": np.ones(len(results.k), bool)}


def some(n=240, seed=0):
    rng = np.random.default_rng(seed)
    shots = rng.choice([0, 2], size=n)
    return padded(
        rng,
        n,
        shot_set=np.where(shots > 0, rng.integers(0, 8, size=n), -1),
        n_shots=shots,
        template=rng.integers(0, 3, size=n),
        token_count=rng.integers(1, 5, size=n),
    )


def test_rows_follow_the_schema():
    results = some()
    rows = control_rows(
        results,
        stage="tuned",
        split="heldout_both",
        slices=standard_slices(results),
        boot=Bootstrap(n_boot=100),
    )
    json.dumps(rows, allow_nan=False)
    assert {row["metric"] for row in rows} >= set(METRICS)
    for row in rows:
        assert [key for key in row if key != "note"] == SCHEMA
        assert (row["stage"], row["suite"], row["split"]) == ("tuned", "control", "heldout_both")
        assert type(row["n"]) is int and type(row["clusters"]) is int
        assert row["ci_low"] is not None or row["note"]
        if row["ci_low"] is not None:
            assert row["ci_low"] <= row["ci_high"]


def test_values_are_those_of_the_items():
    results = some()
    figures, mask = item_metrics(results), results.k == 3
    rows = control_rows(
        results, stage="base", split="train", slices={"k=3": mask}, boot=Bootstrap(n_boot=100)
    )
    value = {row["metric"]: row for row in rows}
    for name in ("tvd_res", "kl_fwd", "js_bits", "residual", "pass_20"):
        assert value[name]["value"] == pytest.approx(figures[name][mask].mean())
        assert value[name]["n"] == mask.sum()
        assert value[name]["clusters"] == len(set(results.cluster[mask]))
        assert value[name]["ci_low"] < value[name]["value"] < value[name]["ci_high"]
    assert value["tvd_cond"]["value"] == pytest.approx(np.nanmean(figures["tvd_cond"][mask]))
    assert value["kl_fwd_median"]["value"] == np.median(figures["kl_fwd"][mask])


def test_slices():
    p = np.array([50, 49, 65, 35, 66, 34, 20, 80, 81, 19, 1, 99, 0]) / 100
    target = np.stack([p, 1 - p, np.zeros(13)], 1)
    results = results_of(
        target, target, k=np.full(13, 2), token_count=np.array([1, 2, 3, 4] + [1] * 9)
    )
    slices = standard_slices(results)
    assert list(slices)[0] == "all" and slices["all"].all()
    for start, name in enumerate(("0-15", "16-30", "31-49")):
        inside = np.flatnonzero(slices[f"k=2,distance={name}"]).tolist()
        assert inside == [4 * start + i for i in range(4)]
    assert slices["tokens=3+"].sum() == 2 and slices["k=2,tokens=2+"].sum() == 3
    assert {"k=2", "tokens=1", "tokens=2", "k=2,tokens=1", "template=0", "shots=0"} <= set(slices)
    assert "k=3" not in slices


@pytest.mark.parametrize("mass", [0.0, 1e-4])
def test_a_model_that_never_says_a_word(mass):
    """TVD_res is 1 and not .5, shares are null with a note, nothing is infinite."""
    p = np.arange(1, 100) / 100
    target = np.stack([p, 1 - p], 1)
    results = results_of(target, mass * target)
    rows = control_rows(
        results, stage="base", split="train", slices=everything(results), boot=Bootstrap(n_boot=100)
    )
    json.dumps(rows, allow_nan=False)
    rows = {row["metric"]: row for row in rows}
    assert rows["tvd_res"]["value"] == pytest.approx(1, abs=2e-4)
    assert rows["coverage"]["value"] == 0
    for name in ("tvd_cond", "slope", "corr_within", "ece_share"):
        assert rows[name]["value"] is None and rows[name]["n"] == 0 and "5%" in rows[name]["note"]


def test_every_value_from_fewer_than_twenty_clusters_says_so():
    results = some(160)
    slices = {"few": results.cluster < 19, "enough": results.cluster < 40}
    how = dict(split="train", slices=slices, boot=Bootstrap(n_boot=50))
    rows = control_rows(results, stage="base", **how) + baseline_rows(results, **how)
    rows += paired_rows(results, results.with_q(results.target), stage="diff:a-b", **how)
    noted = lambda row: "fewer than 20 clusters" in row.get("note", "")
    for row in rows:
        assert noted(row) == (row["value"] is not None and row["clusters"] < 20), row
    assert {row["metric"] for row in rows if noted(row)} >= {"tvd_res", "pass_10", "kl_fwd_median"}


def test_empty_slices_leave_no_row():
    results = some(40)
    slices = everything(results) | {"k=9": results.k == 9}
    rows = control_rows(
        results, stage="base", split="train", slices=slices, boot=Bootstrap(n_boot=50)
    )
    rows += baseline_rows(results, split="train", slices=slices, boot=Bootstrap(n_boot=50))
    assert {row["slice"] for row in rows} == {"all"}


def test_baseline_rows():
    results = some()
    prior = np.where(np.arange(240)[:, None] < 60, results.target / 2, np.nan)
    results = results_of(
        **{
            name: getattr(results, name)
            for name in ("target", "q", "k", "cluster", "shot_set", "n_shots")
        },
        prior=prior,
    )
    slices = everything(results) | {"k=2": results.k == 2}
    rows = baseline_rows(results, split="train", slices=slices, boot=Bootstrap(n_boot=100))
    json.dumps(rows, allow_nan=False)
    table = {(row["stage"], row["slice"], row["metric"]): row for row in rows}
    names = {stage for stage, _, _ in table}
    assert names == {
        f"baseline:{name}" for name in ("perfect", "uniform", "argmax", "flip", "constant_60_40")
    } | {"baseline:two_level", "baseline:rank_only", "baseline:best_temperature", "baseline:prior"}
    assert table["baseline:perfect", "k=2", "skill"]["value"] == pytest.approx(1)
    assert table["baseline:rank_only", "k=2", "skill_over_rank"]["value"] == pytest.approx(
        0, abs=1e-12
    )
    assert table["baseline:uniform", "all", "tvd_res"]["ci_low"] is not None
    unsure = table["baseline:uniform", "k=2", "tvd_res"]
    assert unsure["ci_low"] is None and "not computed" in unsure["note"]
    assert table["baseline:prior", "all", "tvd_res"]["value"] == pytest.approx(0.5)
    assert "60 of 240" in table["baseline:prior", "all", "tvd_res"]["note"]


def test_graded_control_is_not_read_from_the_number_of_words():
    """A uniform answer 1/k follows p over mixed k; corr_within, on two words, does not."""
    rows = baseline_rows(
        some(),
        split="train",
        slices=everything(some()),
        names=("uniform",),
        boot=Bootstrap(n_boot=50),
    )
    value = {row["metric"]: row["value"] for row in rows}
    assert value["corr"] > 0.2 and value["corr_within"] == 0
