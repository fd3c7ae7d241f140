"""Output control: models whose behaviour is known score what the suite's docstring says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from antiimit_jax.results import adapter_stage
from antiimit_jax.suites import control, suite
from antiimit_jax.tasks.items import Item
from tests.suites.known import knowing
from tests.suites.small import as_read, values_of

CFG = control.Config(splits=("heldout_words",))
TUNED = adapter_stage("tuned", 0)
FIGURES = ("tvd_res", "mass", "tvd_cond", "gamma", "gamma_step", "request_gain")
FIGURES += ("preference_sd", "first_position_bias")


def scaled(shares: np.ndarray) -> np.ndarray:
    return shares / shares.sum()


def asked(item: Item) -> np.ndarray:
    return np.array(item.targets)


def larger(item: Item, odds: float) -> np.ndarray:
    """The words asked most often get `odds` for each 1 of another; all the same where none is."""
    return scaled(np.where(asked(item) == max(item.targets), odds, 1.0))


def favourite(item: Item) -> np.ndarray:
    """90% for a word that hangs on the words alone, whatever is asked."""
    liked = min(item.words, key=lambda word: hashlib.sha256(word.encode()).hexdigest())
    return scaled(np.array([9.0 * (len(item.words) - 1) if w == liked else 1 for w in item.words]))


def named_first(item: Item) -> np.ndarray:
    return scaled(np.array([9.0 * (len(item.words) - 1)] + [1] * (len(item.words) - 1)))


def rows_of(answer: Callable[[Item], np.ndarray]) -> list[dict]:
    asker = knowing(control.items_of(CFG, 0), answer, TUNED)
    tables = as_read(control.measure(asker, CFG))
    return control.score(tables, CFG, suite.Bootstrap(n_boot=0))


def figures(rows: list[dict], where: str) -> dict[str, float]:
    return values_of(rows, stage="tuned", split="heldout_words", slice=where)


KNOWN = {  # model -> (its answer, its figures)
    "as asked": (asked, (0, 1, 0, 1, 0, 0.229, 0, 0)),
    "in half of the answers": (lambda i: asked(i) / 2, (0.5, 0.5, 0, 1, 0, 0.051, 0, 0)),
    "sharper": (lambda i: scaled(asked(i) ** 2), (0.095, 1, 0.095, 2, 0, 0.134, 0, 0)),
    "step": (lambda i: larger(i, 4), (0.112, 1, 0.112, 0, 2.773, 0.117, 0, 0)),
    "all on larger": (lambda i: larger(i, 1e40), (0.234, 1, 0.234, 0, 138.155, -0.005, 0, 0)),
    "alike": (lambda i: larger(i, 1), (0.229, 1, 0.229, 0, 0, 0, 0, 0)),
    "favourite": (favourite, (0.406, 1, 0.406, 0, 0, 0, 2.214, 0)),
    "named first": (named_first, (0.406, 1, 0.406, 0, 0, 0, 0, 0.4)),
    "exchanged": (lambda i: scaled(1 / asked(i)), (0.459, 1, 0.459, -1, 0, -0.229, 0, 0)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_models_get_their_figures(name):
    answer, expected = KNOWN[name]
    rows = rows_of(answer)
    found = figures(rows, "k=2")
    assert [found[figure] for figure in FIGURES] == pytest.approx(expected, abs=6e-4)
    _, _, _, gamma, step, *_ = expected
    for k in (3, 4, 5):
        more = figures(rows, f"k={k}")
        assert (more["gamma"], more["gamma_step"]) == pytest.approx((gamma, step), abs=6e-4)
