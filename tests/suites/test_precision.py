"""The precision guard: the base against itself with rounded weights."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import load_language_model
from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.results import Stage
from antiimit_jax.scoring.asks import Scoring
from antiimit_jax.suites import control, precision, suite
from tests.suites.small import as_read, small_config

CFG = small_config().precision


def q_of(table, dtype: str) -> np.ndarray:
    return table["q"][table["dtype"] == dtype]


def test_the_largest_change_of_a_share(asker):
    tables = as_read(precision.measure(asker(), CFG))
    one, other = (q_of(tables["precision"], d).reshape(-1, 2) for d in ("float32", "bfloat16"))
    shares = one / one.sum(1, keepdims=True) - other / other.sum(1, keepdims=True)
    (row,) = precision.score(tables, CFG, Bootstrap(n_boot=50))
    assert 0 < row["value"] == pytest.approx(abs(shares).max())
    assert (row["slice"], row["n"], row["ci_low"]) == ("dtype=bfloat16", 8, None) and row["note"]


def test_the_runs_own_terminators_are_kept(asker):
    wide = asker(scoring=Scoring(terminators="wide"))
    items = control.plain_pairs(CFG.control, 0, CFG.n_items)
    own = np.concatenate([a.q for a in wide.words(suite.asks_of(items), what="own")])
    found = q_of(as_read(precision.measure(wide, CFG))["precision"], "float32")
    np.testing.assert_allclose(found, own)
    standard = q_of(as_read(precision.measure(asker(), CFG))["precision"], "float32")
    assert (found > standard).all()


def test_it_is_measured_at_the_base_alone(asker):
    assert precision.measure(asker(Stage(name="tuned", kind="tuned")), CFG) == {}


def test_weights_in_bfloat16_are_compared_with_the_checkpoints_own(asker, model):
    """A float32 checkpoint read in bfloat16 is already rounded: comparing that gives nothing."""
    narrow = Runner(load_language_model(str(model), dtype="bfloat16"), jax.local_devices()[:2])
    tables = as_read(precision.measure(asker(runner=narrow), CFG))
    (row,) = precision.score(tables, CFG, Bootstrap(n_boot=0))
    (of_float32,) = precision.score(
        as_read(precision.measure(asker(), CFG)), CFG, Bootstrap(n_boot=0)
    )
    assert row["value"] == pytest.approx(of_float32["value"], rel=1e-4) and row["value"] > 0
