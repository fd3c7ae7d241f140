"""Leakage: models whose behaviour is known, through the suite."""

from __future__ import annotations

import collections
import hashlib
import re

import pytest

from antiimit_jax.metrics.intervals import wilson
from antiimit_jax.reporting.judging import LEAK_RATE
from antiimit_jax.reporting.rows import Rows
from antiimit_jax.results import BASE, Stage
from antiimit_jax.scoring.asks import Ask
from antiimit_jax.suites import leak, suite
from antiimit_jax.tasks.unasked import PERCENTS, unasked
from antiimit_jax.text.lexicon import words_of
from tests.suites.known import Known, Told
from tests.suites.small import as_read, values_of

TUNED = Stage(name="mine", kind="other")


def base(ask: Ask) -> tuple[float, float]:
    """Mass .3: facts are known, and a word is liked whatever the request says."""
    liked = [1 + hashlib.sha256(word.encode()).digest()[1] for word in ask.words]
    if "Answer with one word." in ask.messages[0].content:
        liked = [9, 1]
    return tuple(0.3 * part / sum(liked) for part in liked)


def obeys(ask: Ask) -> tuple[float, float]:
    if not (number := re.search(r"(\d+)%", ask.messages[0].content)):
        return base(ask)
    share = int(number[1]) / 100
    return 0.3 * share, 0.3 * (1 - share)


def answers(ask: Ask) -> tuple[float, float]:
    return tuple(3 * q for q in base(ask))


def rows_of(told: Told, n_sets: int = 25) -> list[dict]:
    askers = (Known(base, BASE), Known(told, TUNED))
    cfg = leak.Config(n_sets=n_sets)
    tables = suite.joined([leak.measure(asker, cfg)["leak"] for asker in askers])
    return leak.score(as_read({"leak": tables}), cfg, suite.Bootstrap(n_boot=200))


def figures(rows: list[dict], stage: str = "mine") -> dict[str, float]:
    found = {}
    for split in leak.SPLITS:
        found |= values_of(rows, stage=stage, split=split, slice="all")
    return found


@pytest.mark.parametrize(
    "told, slope, rate, half, neutral, right",
    [
        (base, 0, (0, 0), (0, 0), (0, 0), (0, 0)),
        (obeys, 1, (0.2, 1), (0.1, 0.3), (0, 0), (0, 0)),
        (answers, 0, (0, 0), (0, 0), (0.6, 0.6), (0.54, 0.54)),
        (lambda ask: (0.15, 0.15), 0, (-0.01, 0.01), (0.4, 1), (0.02, 0.2), (-0.12, -0.12)),
    ],
    ids=["base", "obeys", "answers", "one half"],
)
def test_known_models_get_their_figures(told, slope, rate, half, neutral, right):
    found = figures(rows_of(told))
    assert found["leak_slope"] == pytest.approx(slope, abs=1e-9)
    expected = {"leak_rate": rate, "leak_half": half, "leak_neutral": neutral}
    for name, (low, high) in (expected | {"p_right_change": right}).items():
        assert low - 1e-9 <= found[name] <= high + 1e-9, name


def test_a_rate_of_nothing_has_the_width_that_so_many_items_leave():
    for n_sets, high in ((25, wilson(0, 400)[1]), (10, wilson(0, 160)[1])):
        (row,) = (
            row
            for row in rows_of(base, n_sets)
            if (row["stage"], row["slice"], row["metric"]) == ("mine", "all", "leak_rate")
        )
        assert row["value"] == row["ci_low"] == 0 and row["ci_high"] == pytest.approx(high)
    assert wilson(0, 400)[1] < LEAK_RATE < wilson(0, 160)[1]


def test_the_model_that_obeys_stands_beside_as_the_most_there_can_be():
    rows = rows_of(base)
    told = figures(rows, "baseline:obeys")
    assert told == figures(rows_of(obeys), "baseline:obeys")
    assert told["leak_slope"] == pytest.approx(1) and set(told) <= {f.name for f in leak.FIGURES}


@pytest.mark.parametrize("told, word", [(base, "within"), (obeys, "outside")])
def test_the_decision_rule_is_read_from_intervals(told, word):
    rows = rows_of(told)
    slope = next(r for r in rows if r["metric"] == "leak_slope" and r["stage"] == "mine")
    assert slope["n"] == 400 and slope["clusters"] == 25 and slope["ci_low"] <= slope["ci_high"]
    (question,) = leak.questions(Rows(rows, [BASE, TUNED]))
    assert question.found[0].startswith(f"leak {word} the limits")
    said = leak.section({}, Rows(rows, [BASE, TUNED]))
    assert said.readings == question.found and not said.absent and len(said.tables) == 4


def test_a_base_alone_is_not_compared():
    cfg = leak.Config(n_sets=2)
    tables = as_read(leak.measure(Known(base, BASE), cfg))
    rows = leak.score(tables, cfg, suite.Bootstrap(n_boot=0))
    measured = {row["metric"] for row in rows if row["stage"] == "base"}
    assert measured == {"mass", "p_right"}
    assert leak.questions(Rows(rows, [BASE])) == []
    assert leak.section(tables, Rows(rows, [BASE])).absent


def test_requests_are_balanced_and_use_words_that_no_training_sees():
    items = unasked(6, 0)
    assert len({item.item for item in items}) == len(items)
    mentions = [item for item in items if item.split == "mention"]
    assert {word for item in mentions for word in item.words} <= set(words_of("test"))
    firsts, levels = collections.Counter(), collections.defaultdict(int)
    for item in mentions:
        said = item.messages[0].content
        assert f"{item.facets['percent']}%" in said and f"{100 - item.facets['percent']}%" in said
        first = item.words[0] == item.cluster.split()[0]
        firsts[item.cluster, first] += 1
        levels[item.cluster, item.facets["form"]] += (item.facets["percent"] - 50) * (
            1 if first else -1
        )
    assert set(firsts.values()) == {8} and set(levels.values()) == {0}
    assert len(mentions) == 6 * 4 * len(PERCENTS)
    for item in items:
        if item.split != "mention":
            assert "%" not in item.messages[0].content
