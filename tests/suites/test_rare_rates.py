"""Rare rates: models whose behaviour is known, through the suite."""

from __future__ import annotations

import re

import numpy as np
import pytest

from antiimit_jax.reporting.rows import Rows
from antiimit_jax.results import BASE
from antiimit_jax.scoring.asks import Ask
from antiimit_jax.suites import rare_rates, suite
from antiimit_jax.tasks.rare import RATES, rare_items
from tests.suites.known import Known, Told
from tests.suites.small import as_read, values_of


def asked_rate(ask: Ask) -> float:
    """As a reader finds it in the text."""
    text = ask.messages[0].content
    if found := re.search(rf"{ask.words[0]} with a probability of ([\d.]+)%", text):
        return float(found[1]) / 100
    return 1 / int(re.search(r"Out of ([\d,]+) replies", text)[1].replace(",", ""))


def rows_of(told: Told, n_boot: int = 0) -> list[dict]:
    cfg = rare_rates.Config(n_sets=20)
    tables = as_read(rare_rates.measure(Known(told, BASE), cfg))
    return rare_rates.score(tables, cfg, suite.Bootstrap(n_boot=n_boot))


def figures(rows: list[dict], stage: str = "base", where: str = "all") -> dict[str, float]:
    return values_of(rows, stage=stage, split="rare", slice=where)


@pytest.mark.parametrize(
    "told, error, bias, slope",
    [
        (lambda ask: (asked_rate(ask), 1 - asked_rate(ask)), 0, 0, 1),
        (lambda ask: (10 * asked_rate(ask), 1 - 10 * asked_rate(ask)), 1, 1, 1),
        (lambda ask: (0.5, 0.5), 2.699, 2.699, 0),
        (lambda ask: (0.0, 1.0), 9, -9, 0),
    ],
    ids=["as asked", "ten times", "one half", "never"],
)
def test_known_models_get_their_figures(told, error, bias, slope):
    found = figures(rows_of(told))
    expected = {"log10_error": error, "log10_bias": bias, "rate_slope": slope}
    assert found == pytest.approx(expected, abs=1e-3)


def test_the_best_constant_rate_stands_beside_and_rows_have_intervals():
    rows = rows_of(lambda ask: (0.003, 0.9), n_boot=200)
    constant = figures(rows, "baseline:constant")
    errors = [abs(np.log10(rate) + 3) for rate in RATES]
    assert constant["log10_error"] == pytest.approx(np.mean(errors))
    assert constant["rate_slope"] == pytest.approx(0, abs=1e-9)
    at_rarest = [r for r in rows if (r["slice"], r["metric"]) == ("rate=0.0001", "log10_error")]
    row = next(r for r in at_rarest if r["stage"] == "base")
    assert row["value"] == pytest.approx(np.log10(30)) and row["clusters"] == 20
    assert "rate_slope" not in figures(rows, where="rate=0.0001")
    (question,) = rare_rates.questions(Rows(rows, [BASE]))
    assert "where it follows them, is 0.000" in question.found[0]
    assert len(rare_rates.section({}, Rows(rows, [BASE])).tables) == 2


def test_every_set_is_asked_at_all_rates_in_both_roles():
    items = rare_items(4, 0)
    assert len({item.item for item in items}) == len(items) == 4 * 2 * len(RATES)
    for item in items:
        assert asked_rate(item) == pytest.approx(item.targets[0])
    assert len({(i.words[0], i.targets[0]) for i in items}) == len(items)
