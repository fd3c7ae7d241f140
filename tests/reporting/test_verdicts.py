"""Verdicts on synthetic rows whose verdict is plain, one hypothesis at a time."""

from __future__ import annotations

import pytest

from antiimit_jax.metrics.seed_words import COMPONENTS
from antiimit_jax.reporting.rows import Rows
from antiimit_jax.reporting.verdicts import F5_RUNGS, verdict_section, verdicts
from antiimit_jax.results import BASE, Stage, adapter_stage, make_row

PASSES = ("control", "heldout_both", "all", "pass_05")
GAMMA = ("control", "heldout_both", "all", "gamma")
KL = ("drift", "neutral", "anchor=lacks", "kl_base_tuned")
SLOPE = ("leak", "leak_mention", "all", "leak_slope")
RATE = ("leak", "leak_mention", "all", "leak_rate")
SELF = ("introspection", "self", "task=next_word", "score")
PRIVILEGE = ("introspection", "disagree", "task=next_word", "privilege")
SEED = [("seed_words", "test", "all", name) for name in COMPONENTS]
GAIN, DEPARTS = (("deviate", "patterns", "all", name) for name in ("gain", "departs"))
TUNED = ("tuned", "tuned@1", "tuned@2")


def ratio(rung: str) -> tuple[str, str, str, str]:
    return "ladder", rung, "all", "gamma_ratio"


def row(stage: str, place: tuple, value: float | None, half: float | None = 0.01, n: int = 500):
    suite, split, where, metric = place
    ends = dict(ci_low=value - half, ci_high=value + half) if half is not None else {}
    here = dict(stage=stage, suite=suite, split=split, slice=where, metric=metric)
    return make_row(**here, value=value, **ends, n=n, clusters=50, note="few" if not ends else "")


def each(place: tuple, value: float | None, half: float | None = 0.01, *, of="{}", n=500):
    return [row(of.format(stage), place, value, half, n) for stage in TUNED]


def found(name: str, rows: list, *, seeds: int = 3, others: tuple[str, ...] = ()):
    stages = [
        BASE,
        *(adapter_stage(kind, i) for i in range(seeds) for kind in ("tuned", "placebo")),
    ]
    stages += [Stage(name=other, kind="other") for other in others]
    there = {stage.name for stage in stages}
    rows = [r for r in rows if set(r["stage"].removeprefix("diff:").split("-")) & there]
    (verdict,) = [v for v in verdicts(Rows(rows, stages)) if v.id == name]
    return verdict


PERFECT = each(PASSES, 0.98) + each(GAMMA, 1.0)


@pytest.mark.parametrize(
    "rows, verdict",
    [
        (PERFECT, "supported"),
        (each(PASSES, 0.6) + each(GAMMA, 1.0), "not supported"),
        (each(PASSES, 0.98) + each(GAMMA, 0.7), "not supported"),
        (each(PASSES, 0.95) + each(GAMMA, 1.0), "undecided"),
        (each(PASSES, 0.98) + each(GAMMA, 1.0, half=None), "undecided"),
        (each(PASSES, 0.98) + each(GAMMA, 1.0, half=0.3), "undecided"),
        (each(PASSES, 0.98), "no data"),
        (each(PASSES, 0.6), "not supported"),
        ([], "no data"),
    ],
)
def test_near_perfect_needs_both_figures_in_their_regions(rows, verdict):
    assert found("F1", rows).verdict == verdict


def test_fewer_than_three_seeds_give_figures_and_no_verdict():
    one, two = found("F1", PERFECT, seeds=1), found("F1", PERFECT, seeds=2)
    assert (one.verdict, two.verdict) == ("one seed: no verdict", "two seeds: no verdict")
    assert one.found[:2] == ["TVD at most .05 on 0.980 [0.970, 0.990]", "γ 1.00 [0.99, 1.01]"]
    assert found("F1", [], seeds=1).verdict == "no data"


def test_seeds_that_disagree_are_undecided():
    rows = [row(stage, GAMMA, value) for stage, value in zip(TUNED, (0.92, 1.0, 1.08))]
    assert found("F1", each(PASSES, 0.98) + rows).verdict == "undecided"


def test_the_probability_after_the_passes_counts_a_word_set_once():
    said = found("F1", each(PASSES, 0.9) + each(GAMMA, 1.0)).found[-1]
    assert said.startswith("probability 0.9 before, 0.880 after")  # 45 of 50


QUIET = each(KL, -0.003, 0.001, of="diff:{}-ruler:int8_channel") + each(SLOPE, 0.0)


@pytest.mark.parametrize(
    "rows, verdict",
    [
        (QUIET + each(RATE, 0.0, 0.005), "supported"),
        (QUIET + each(RATE, 0.0, 0.005, n=300), "undecided"),
        (QUIET + each(RATE, 0.1), "not supported"),
        (QUIET, "no data"),
        (
            each(KL, 0.01, 0.001, of="diff:{}-ruler:int8_channel") + each(RATE, 0.0, 0.005),
            "not supported",
        ),
    ],
)
def test_elsewhere_needs_little_drift_and_no_leak(rows, verdict):
    assert found("F2", rows).verdict == verdict


TOLD = each(SELF, 0.2, of="diff:{}-base") + each(PRIVILEGE, 0.1)


@pytest.mark.parametrize(
    "rows, verdict",
    [
        (TOLD + [row("diff:self_trained-base", SELF, 0.3)], "supported"),
        (TOLD + [row("diff:self_trained-base", SELF, 0.0)], "floor"),
        (TOLD, "no data"),
        (
            each(SELF, -0.2, of="diff:{}-base") + [row("diff:self_trained-base", SELF, 0.3)],
            "not supported",
        ),
    ],
)
def test_introspection_has_a_floor_where_training_for_it_does_not_move_it(rows, verdict):
    assert found("F3", rows, others=("self_trained",)).verdict == verdict


def components(stage: str, least: float) -> list:
    """Of which one is the least."""
    return [row(stage, place, 0.9 if i else least) for i, place in enumerate(SEED)]


def anti_imitating(hazard: float = 0.2, gain: float = 0.4, least: float = 0.3) -> list:
    """Tuned stages beside a base of which every figure is .1."""
    rows = components("base", 0.1) + [row("base", GAIN, 0.1)] + each(GAIN, gain)
    rows += [r for stage in TUNED for r in components(stage, least)]
    return rows + each(DEPARTS, hazard, of="diff:{}-baseline:constant_hazard")


@pytest.mark.parametrize(
    "keyed, changes, verdict",
    [
        (0.5, {}, "supported"),
        (0.1, {}, "floor"),
        (0.0, {}, "floor"),
        (0.5, {"hazard": -0.1}, "not supported"),
        (0.5, {"gain": 0.1}, "undecided"),
        (0.5, {"least": 0.0}, "not supported"),
    ],
)
def test_anti_imitation_is_what_is_added_to_the_base_and_to_a_constant_hazard(
    keyed, changes, verdict
):
    rows = anti_imitating(**changes) + components("rule_keyed", keyed)
    assert found("F4", rows, others=("rule_keyed",)).verdict == verdict


def test_anti_imitation_needs_every_component_and_its_positive_control():
    rows = anti_imitating() + components("rule_keyed", 0.5)
    without = [r for r in rows if r["metric"] != "dependence"]
    assert found("F4", without, others=("rule_keyed",)).verdict == "no data"
    assert found("F4", anti_imitating(), others=("rule_keyed",)).verdict == "no data"
    said = found("F4", rows, others=("rule_keyed",)).found
    assert said[0].startswith("lowest component of the seed score less the base's 0.200 [0.18")


def ladder(first_word: float = 0.9, **changes: float) -> list:
    values = dict.fromkeys(F5_RUNGS, 0.9) | changes
    first = each(("ladder", "L9", "kind=place 1", "gamma_ratio"), first_word, 0.1)
    return first + [r for rung, value in values.items() for r in each(ratio(rung), value, 0.1)]


@pytest.mark.parametrize(
    "rows, verdict",
    [
        (ladder(), "supported"),
        (ladder(L11=0.2), "not supported"),
        (ladder(L11=0.55), "undecided"),
        (ladder(first_word=0.0), "not supported"),  # what copies the words before has on L9
        ([r for r in ladder() if r["split"] != "L9"], "no data"),
        ([row(stage, ratio("L5"), None, half=None) for stage in TUNED], "no data"),
    ],
)
def test_arbitrary_control_needs_half_of_gamma_on_every_rung(rows, verdict):
    assert found("F5", rows).verdict == verdict


def test_control_of_no_plain_request_leaves_nothing_to_test():
    plain = ("ladder", "L0", "all", "gamma")
    without = [row(stage, ratio("L5"), None, half=None) for stage in TUNED]
    judged = found("F5", each(plain, 0.0, 0.1) + without)
    assert judged.verdict == "not testable" and judged.missing == ()
    assert judged.found == ["γ of plain requests 0.00 [−0.10, 0.10]"]
    assert found("F5", each(plain, 1.0, 0.1) + ladder()).verdict == "supported"


def test_rungs_that_pass_alone_and_not_beside_each_other_are_undecided():
    assert found("F5", ladder(L5=0.605)).verdict == "supported"  # bound .505, p near .02
    judged = found("F5", ladder(L5=0.605, L6=0.605))
    assert judged.verdict == "undecided"
    assert [line.partition(" ")[0] for line in judged.missing] == ["L5", "L6"]


@pytest.mark.parametrize("broad, verdict", [(0.8, "supported"), (0.4, "undecided"), (0.1, "not")])
def test_broad_less_narrow_goes_seed_by_seed(broad, verdict):
    names = ("broad_0", "broad_1", "broad_2")
    rows = []
    for rung in ("L10", "L11"):
        narrow = (0.2, 0.4, 0.6)
        rows += [row(stage, ratio(rung), value) for stage, value in zip(TUNED, narrow)]
        rows += [row(name, ratio(rung), broad + value - 0.4) for name, value in zip(names, narrow)]
    judged = found("F6", rows, others=names)
    assert judged.verdict.startswith(verdict)
    assert found("F6", rows, others=names[:2]).verdict != "supported"
    assert found("F6", rows).verdict == "no data"


def test_each_hypothesis_has_one_line_and_says_what_it_lacks():
    section = verdict_section(Rows([], [BASE, adapter_stage("tuned", 0)]))
    (table,) = section.tables
    names = [line.label.partition(":")[0] for line in table.body]
    assert names == ["E1", "E2", "F1", "F2", "F3", "F4", "F5", "F6"]
    for line in table.body:
        assert line.cells[0] == "no data" and line.cells[-1] != "–"
