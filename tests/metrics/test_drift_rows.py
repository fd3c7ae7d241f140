"""Drift rows against plain numpy on made-up tokens."""

from __future__ import annotations

import json

import numpy as np
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.metrics.drift import DriftTokens, drift_rows
from antiimit_jax.metrics.resampling import Bootstrap


def tokens(n=600, seed=0, **changes):
    rng = np.random.default_rng(seed)
    fields = {
        "prompt_id": np.arange(n) // 12,
        "category": np.where(np.arange(n) // 12 % 2 == 0, "code", "prose"),
        "kl_base_tuned": rng.gamma(0.5, 0.01, size=n),
        "kl_tuned_base": rng.gamma(0.5, 0.01, size=n),
        "top1_agree": rng.random(n) < 0.95,
        "top5_overlap": rng.integers(3, 6, size=n) / 5,
        "entropy_base": rng.gamma(2, size=n),
        "entropy_tuned": rng.gamma(2, size=n),
        "logp_base": -rng.gamma(2, size=n),
        "logp_tuned": -rng.gamma(2, size=n),
    }
    return DriftTokens(**(fields | changes))


def test_values_and_schema():
    t = tokens()
    rows = drift_rows(t, stage="tuned", anchored=["code", "verse"], boot=Bootstrap())
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert {(row["stage"], row["suite"], row["split"]) for row in rows} == {
        ("tuned", "drift", "neutral")
    }
    code, prose = t.category == "code", t.category == "prose"
    masks = {"all": code | prose, "anchor=has": code, "anchor=lacks": prose}
    masks |= {"category=code": code, "category=prose": prose}
    assert {row["slice"] for row in rows} == masks.keys()
    value = {(row["slice"], row["metric"]): row for row in rows}
    for name, mask in masks.items():
        expected = {
            "kl_base_tuned": t.kl_base_tuned[mask].mean(),
            "kl_tuned_base": t.kl_tuned_base[mask].mean(),
            "top1_agree": t.top1_agree[mask].mean(),
            "top5_overlap": t.top5_overlap[mask].mean(),
            "delta_entropy": (t.entropy_tuned - t.entropy_base)[mask].mean(),
            "delta_ppl": np.exp(-t.logp_tuned[mask].mean()) - np.exp(-t.logp_base[mask].mean()),
        }
        for metric, number in expected.items():
            row = value[name, metric]
            assert row["value"] == pytest.approx(number)
            assert row["ci_low"] < row["value"] < row["ci_high"]
            assert row["n"] == mask.sum() and row["clusters"] == mask.sum() // 12


def test_a_model_compared_with_itself_has_not_drifted():
    t = tokens()
    same = tokens(
        kl_base_tuned=np.full(600, -1e-7),
        kl_tuned_base=np.zeros(600),
        top1_agree=np.ones(600),
        top5_overlap=np.ones(600),
        entropy_tuned=t.entropy_base,
        logp_tuned=t.logp_base,
    )
    for row in drift_rows(same, stage="base", anchored=["code"], boot=Bootstrap()):
        agreement = row["metric"] in ("top1_agree", "top5_overlap")
        assert row["value"] == (1 if agreement else 0)


def test_few_prompts():
    rows = drift_rows(tokens(36), stage="tuned", anchored=["verse"], boot=Bootstrap())
    assert "anchor=has" not in {row["slice"] for row in rows}
    assert all(row["ci_low"] is None and "clusters" in row["note"] for row in rows)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"top5_overlap": np.full(600, 5)}, "top5_overlap: token 0"),
        ({"logp_base": np.full(600, np.nan)}, "logp_base: token 0"),
        ({"kl_base_tuned": np.full(600, -1.0)}, "kl_base_tuned"),
        ({"entropy_base": np.zeros(3)}, r"entropy_base has shape \(3,\)"),
    ],
)
def test_mistakes_are_named(changes, words):
    with pytest.raises(UserError, match=words):
        tokens(**changes)


def test_nothing_is_infinite():
    far = tokens(logp_tuned=np.full(600, -1e4))
    rows = drift_rows(far, stage="tuned", anchored=[], boot=Bootstrap())
    written = json.dumps(rows)
    assert "Infinity" not in written and "NaN" not in written
