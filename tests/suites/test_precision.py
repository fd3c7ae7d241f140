"""The precision guard: the base against itself with rounded weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import pytest

from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import load_language_model
from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.results import BASE, Stage
from antiimit_jax.run_config import from_dict
from antiimit_jax.scoring.asks import Scoring
from antiimit_jax.suites import control, precision, suite
from antiimit_jax.tasks.items import Item
from tests.suites.known import Known, Told, by_item
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


@dataclasses.dataclass(frozen=True)
class Rounding(Known):
    """Answers by `told`, and by `rounded` with other weights."""

    rounded: Told = None

    @property
    def stored(self) -> Rounding:
        return self

    def changed(self, change: Callable) -> Known:
        return Known(self.rounded, self.stage)


REAL = from_dict({}).precision
ITEMS = control.plain_pairs(REAL.control, 0, REAL.n_items)


def asked(item: Item) -> np.ndarray:
    return np.array(item.targets)


def moved(item: Item) -> np.ndarray:
    return asked(item) + (0.01, -0.01)


def moved_on_one_request(item: Item) -> np.ndarray:
    return asked(item) + ((0.02, -0.02) if item == ITEMS[40] else 0)


@pytest.mark.parametrize(
    "rounded, error",
    [
        (asked, 0),
        (lambda item: asked(item) / 2, 0),
        (lambda item: asked(item) * 1e-12, 0),
        (moved, 0.01),
        (lambda item: moved(item) / 2, 0.01),
        (moved_on_one_request, 0.02),
        (lambda item: asked(item)[::-1], 0.9),
        (lambda item: 0 * asked(item), 0.95),
    ],
    ids=["same", "half", "hardly", "moved", "moved, half", "moved once", "exchanged", "silent"],
)
def test_known_roundings_get_their_figure(rounded, error):
    asker = Rounding(by_item(ITEMS, asked), BASE, rounded=by_item(ITEMS, rounded))
    tables = as_read(precision.measure(asker, REAL))
    (row,) = precision.score(tables, REAL, Bootstrap(n_boot=0))
    assert row["value"] == pytest.approx(error, abs=1e-6)
