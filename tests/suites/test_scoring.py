"""Other scoring rules change one thing of the run's own scoring."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.reporting.rows import Rows, figure
from antiimit_jax.results import BASE
from antiimit_jax.run_config import from_dict
from antiimit_jax.scoring.asks import Answer, Ask, Scoring
from antiimit_jax.suites import control, scoring, suite
from antiimit_jax.suites.scoring import RULES
from tests.suites.known import Known, by_item
from tests.suites.small import CONTROL, as_read, small_config, values_of

CFG = small_config(control=CONTROL | {"n_items": 160}, scoring={"n_items": 24}).scoring


def q_by_rule(table) -> dict[str, np.ndarray]:
    return {name: table["q"][table["scoring"] == name] for name in RULES}


def test_every_way_of_scoring_has_rows_and_wide_holds_narrow(asker):
    tables = as_read(scoring.measure(asker(), CFG))
    rows = scoring.score(tables, CFG, Bootstrap(n_boot=0))
    mass = {row["slice"]: row["value"] for row in rows if row["metric"] == "mass"}
    assert set(mass) == {f"scoring={name}" for name in RULES}
    narrow, standard, wide = (
        mass[f"scoring={name}"] for name in ("terminators_narrow", "standard", "terminators_wide")
    )
    assert narrow < standard < wide
    assert mass["scoring=forms_lenient"] > standard
    assert mass["scoring=tokenisations_8"] >= standard


def test_what_other_tokenisations_hold_has_rows_and_stands_on_the_page(asker):
    tables = as_read(scoring.measure(asker(), CFG))
    rows = scoring.score(tables, CFG, Bootstrap(n_boot=100))
    own, many = (q_by_rule(tables["scoring"])[name] for name in ("standard", "tokenisations_8"))
    found = {row["metric"]: row for row in rows if row["metric"].startswith("noncanonical")}
    all_words, one = found["noncanonical"], found["noncanonical_most"]
    assert all_words["value"] == pytest.approx(1 - own.sum() / many.sum(), abs=1e-6)
    assert 0 < all_words["ci_low"] < all_words["value"] < all_words["ci_high"] < 1
    assert one["value"] == pytest.approx((many - own).max(), abs=1e-6)
    said = " ".join(scoring.section(tables, Rows(rows)).sentences)
    assert "up to 8 tokenisations" in said and figure(all_words) in said and figure(one) in said


def test_rules_keep_what_they_do_not_change_of_the_runs_own_scoring(asker):
    own = Scoring(terminators="wide")
    wide = asker(scoring=own)
    items = control.plain_pairs(CFG.control, 0, CFG.n_items)
    answers = wide.words(suite.asks_of(items), what="the run's own")
    by_rule = q_by_rule(as_read(scoring.measure(wide, CFG))["scoring"])
    np.testing.assert_allclose(by_rule["standard"], np.concatenate([a.q for a in answers]))
    np.testing.assert_allclose(by_rule["terminators_wide"], by_rule["standard"])
    of_standard = q_by_rule(as_read(scoring.measure(asker(), CFG))["scoring"])
    for name in ("standard", "forms_lenient", "tokenisations_8"):
        assert (by_rule[name] > of_standard[name]).all(), name
    np.testing.assert_allclose(by_rule["terminators_narrow"], of_standard["terminators_narrow"])


@pytest.mark.parametrize("temperature, factor", [(0.5, 2.0), (2.0, 0.5)])
def test_words_at_a_temperature_are_those_of_a_model_with_its_logits_scaled(
    asker, temperature, factor
):
    scale = lambda tree: {name: factor * leaf for name, leaf in tree.items()}

    def scaled(params):
        return {n: scale(tree) if n == "final_norm" else tree for n, tree in params.items()}

    asks = suite.asks_of(control.plain_pairs(CFG.control, 0, 8))
    here = asker().words(asks, what="", scoring=Scoring(temperature=temperature))
    there, plain = asker().changed(scaled).words(asks, what=""), asker().words(asks, what="")
    q = lambda answers: np.array([answer.q for answer in answers])
    np.testing.assert_allclose(q(here), q(there), rtol=1e-5)
    assert abs(np.log(q(here) / q(plain))).min() > 0.01
    assert Scoring(temperature=temperature).name == f"strict/standard/1/{temperature:g}"


def test_no_items_no_rows(asker):
    cfg = small_config(scoring={"n_items": 0}).scoring
    assert scoring.measure(asker(), cfg) == {}


Way = Callable[[Scoring], bool]  # whether a way of writing counts by a rule


@dataclasses.dataclass(frozen=True)
class Writer(Known):
    """Says words by `told`, each in different ways: way -> how often."""

    ways: Mapping[Way, float] = dataclasses.field(default_factory=dict)

    def words(self, asks: Sequence[Ask], *, what: str, scoring: Scoring) -> list[Answer]:
        counts, often = [way(scoring) for way in self.ways], list(self.ways.values())

        def told(ask: Ask) -> np.ndarray:
            said = np.outer(often, self.told(ask)) ** (1 / scoring.temperature)
            return said[counts].sum(axis=0) / said.sum()

        return Known(told, self.stage).words(asks, what=what)


def plainly(rule: Scoring) -> bool:
    return True


def in_capitals(rule: Scoring) -> bool:
    return rule.forms == "lenient"


def with_a_full_stop(rule: Scoring) -> bool:
    return rule.terminators != "narrow"


def running_on(rule: Scoring) -> bool:
    return rule.terminators == "wide"


def in_pieces(rule: Scoring) -> bool:
    return rule.tokenisations > 1


KNOWN = {  # model -> (log-odds, those asked being 1; its ways; TVD by rule, in the order of RULES)
    "as asked": (1, {plainly: 1}, (0, 0, 0, 0, 0, 0.080, 0.082)),
    "too even": (0.5, {plainly: 1}, (*[0.082] * 5, 0, 0.141)),
    "one half": (0, {plainly: 1}, [0.209] * 7),
    "capitals": (1, {in_capitals: 1}, (1, 1, 1, 0, 1, 1, 1)),
    "full stop": (1, {with_a_full_stop: 1}, (0, 1, 0, 0, 0, 0.080, 0.082)),
    "running on": (1, {running_on: 1}, (1, 1, 0, 1, 1, 1, 1)),
    "half in pieces": (1, {plainly: 0.5, in_pieces: 0.5}, (0.5, 0.5, 0.5, 0.5, 0, 0.5, 0.51)),
}


def rows_of_writer(odds: float, ways: Mapping[Way, float]) -> list[dict]:
    cfg = from_dict({}).scoring
    told = by_item(control.items_of(cfg.control, 0), lambda item: np.array(item.targets) ** odds)
    tables = as_read(scoring.measure(Writer(told, BASE, ways=ways), cfg))
    return scoring.score(tables, cfg, Bootstrap(n_boot=0))


@pytest.mark.parametrize("name", KNOWN)
def test_known_models_get_their_figures_by_every_rule(name):
    odds, ways, expected = KNOWN[name]
    rows = rows_of_writer(odds, ways)
    by_rule = [values_of(rows, slice=f"scoring={rule}") for rule in RULES]
    assert [found["tvd_res"] for found in by_rule] == pytest.approx(expected, abs=6e-4)
    mass = [sum(n for way, n in ways.items() if way(Scoring(**RULES[r][0]))) for r in RULES]
    assert [found["mass"] for found in by_rule] == pytest.approx(mass)


@pytest.mark.parametrize("name, part, most", [("as asked", 0, 0), ("half in pieces", 0.5, 0.475)])
def test_what_a_known_model_writes_in_other_tokens(name, part, most):
    rows = rows_of_writer(*KNOWN[name][:2])
    found = values_of(rows, slice="scoring=tokenisations_8")
    assert (found["noncanonical"], found["noncanonical_most"]) == pytest.approx((part, most))
