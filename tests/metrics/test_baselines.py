"""Lazy behaviours against printed tables and against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.metrics.baselines import (
    BASELINES,
    baseline,
    best_shares_by_rank,
    lazy_columns,
    rank_shares,
)
from antiimit_jax.metrics.rows import control_values
from antiimit_jax.text.lexicon import sample_many
from tests.metrics.test_control import padded, results_of

SAD_GRID = np.array([30, 40, 50, 60, 70]) / 100
FIVES = np.arange(5, 100, 5) / 100
ALL = np.arange(1, 100) / 100


def pairs(p):
    target = np.stack([p, 1 - p], 1)
    return results_of(target, target)


def behave(p, name):
    if name == "constant_55_45":
        return control_values(pairs(p).with_q(np.tile([0.55, 0.45], (len(p), 1))))
    return control_values(baseline(pairs(p), name))


@pytest.mark.parametrize(
    ("name", "at_10", "at_20", "mean"),
    [
        ("perfect", 1, 1, 1),
        ("uniform", 0.6, 1, 0.8),
        ("flip", 0.2, 0.6, 0.4),
        ("argmax", 0, 0, 0),
        ("constant_60_40", 0.6, 0.8, 0.7),
        ("constant_55_45", 0.4, 0.8, 0.6),
    ],
)
def test_pass_rates_keyed_by_word(name, at_10, at_20, mean):
    """Pass rates of lazy models where shares are compared word by word, not by rank."""
    values = behave(SAD_GRID, name)
    assert values["pass_10"] == pytest.approx(at_10)
    assert values["pass_20"] == pytest.approx(at_20)
    assert (values["pass_10"] + values["pass_20"]) / 2 == pytest.approx(mean)


@pytest.mark.parametrize(
    ("grid", "name", "tvd", "kl", "nats", "bits", "passes"),
    [
        (SAD_GRID, "uniform", ".120", ".041", ".0104", ".0150", (".200", ".600", "1.000")),
        (SAD_GRID, "argmax", ".380", None, ".156", ".2245", (".000", ".000", ".000")),
        (FIVES, "uniform", ".237", ".169", ".0463", ".0668", (".158", ".263", ".474")),
        (FIVES, "argmax", ".263", None, ".105", ".1515", (".105", ".211", ".421")),
        (ALL, "uniform", ".2475", ".188", ".052", ".0753", (".111", ".212", ".414")),
        (ALL, "argmax", ".2525", None, ".101", ".1452", (".101", ".202", ".404")),
    ],
)
def test_two_lazy_models_per_grid(grid, name, tvd, kl, nats, bits, passes):
    """Two answers that ignore the request, to the digits worked out by hand."""
    values = behave(grid, name)
    figures = [
        ("tvd_res", tvd, 1),
        ("kl_fwd", kl, 1),
        ("js_bits", bits, 1),
        ("js_bits", nats, np.log(2)),
    ]
    figures += list(zip(("pass_05", "pass_10", "pass_20"), passes, (1, 1, 1)))
    for metric, printed, unit in figures:
        if printed is not None:
            last_digit = 10.0 ** -len(printed.split(".")[1])
            assert values[metric] * unit == pytest.approx(float(printed), abs=0.501 * last_digit), (
                metric
            )


@pytest.mark.parametrize(("k", "skill"), [(2, 0.50), (3, 0.55), (4, 0.58), (5, 0.61), (10, 0.69)])
def test_rank_only_skill_on_random_targets(k, skill):
    """The best fixed shares by rank are far above lazy answers, the more so the more words."""
    target = np.random.default_rng(k).dirichlet(np.ones(k), size=20_000)
    results = results_of(target, target)
    assert control_values(baseline(results, "rank_only"))["skill"] == pytest.approx(skill, abs=0.01)


def excess(target, shares):
    """Mean TVD of shares by rank to targets, equal targets given the mean of theirs."""
    equal = target[:, :, None] == target[:, None, :]
    given = np.take_along_axis(shares[None], np.argsort(np.argsort(-target, kind="stable")), 1)
    given = (equal * given[:, None, :]).sum(axis=2) / equal.sum(axis=2)
    return np.maximum(target - given, 0).sum(axis=1).mean()


@pytest.mark.parametrize("k", [2, 3, 5])
def test_best_shares_without_ties_are_a_common_quantile_of_every_ranks_targets(k):
    """Where TVD falls no more, every rank is exceeded by the same fraction of its targets."""
    target = np.random.default_rng(k).dirichlet(np.ones(k), size=101)
    by_rank = np.sort(-np.sort(-target, axis=1), axis=0)  # [n, k] each rank's targets, ascending
    totals = by_rank.sum(axis=1)
    upper = np.searchsorted(totals, 1.0)
    part = (1 - totals[upper - 1]) / (totals[upper] - totals[upper - 1])
    quantile = by_rank[upper - 1] + part * (by_rank[upper] - by_rank[upper - 1])
    shares = best_shares_by_rank(target)
    assert shares.sum() == pytest.approx(1) and (np.diff(shares) <= 1e-12).all()
    assert excess(target, shares) == pytest.approx(excess(target, quantile), abs=1e-6)


@pytest.mark.parametrize("k", [3, 4])
def test_no_shares_by_rank_are_better_where_many_targets_are_equal(k):
    target = sample_many(np.random.default_rng(k), k, "train", 300) / 100
    least = excess(target, best_shares_by_rank(target))
    tried = [
        np.array(parts) / 40 for parts in itertools.combinations_with_replacement(range(41), k)
    ]
    found = min(excess(target, r[::-1]) for r in tried if abs(r.sum() - 1) < 1e-9)
    assert least <= found + 1e-9 and found - least < 0.005


@pytest.mark.parametrize("side", ["train", "heldout"])
@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_a_step_has_no_skill_over_rank_in_the_population(k, side):
    target = sample_many(np.random.default_rng(1), k, side, 50_000) / 100
    columns = lazy_columns(results_of(target, target))
    step = baseline(results_of(target, target), "two_level")
    skill = 1 - abs(step.q - step.target).sum(axis=1).mean() / 2 / columns["tvd_rank_only"].mean()
    assert skill <= 0.005
    if k == 2:
        assert skill > -0.005  # two words have one best step


def test_shares_by_rank_do_not_depend_on_the_slice():
    narrow = pairs(np.array([0.45, 0.55]))
    assert baseline(narrow, "rank_only").q.round(9).tolist() == [[0.25, 0.75], [0.75, 0.25]]
    many = np.full((1, 101), 1 / 101)  # more words than percentages there are
    assert baseline(results_of(many, many), "rank_only").q == pytest.approx(many)


def test_skills_of_the_behaviours_that_define_them():
    results = padded(np.random.default_rng(0), 300)
    of = {name: control_values(baseline(results, name)) for name in BASELINES[:7]}
    assert of["perfect"]["skill"] == pytest.approx(1)
    assert of["perfect"]["skill_over_rank"] == pytest.approx(1)
    assert max(of["uniform"]["skill"], of["argmax"]["skill"]) == pytest.approx(0, abs=1e-12)
    assert of["rank_only"]["skill_over_rank"] == pytest.approx(0, abs=1e-12)
    assert of["two_level"]["skill_over_rank"] < 0
    assert of["flip"]["skill"] < 0


def test_behaviours_by_hand():
    target = [[0.2, 0.5, 0.3, 0.0], [0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0, 0]]
    results = results_of(target, target, k=np.array([3, 4, 2]))
    q = {name: baseline(results, name).q.round(12).tolist() for name in BASELINES[:6]}
    assert q["perfect"] == target
    assert q["uniform"][1:] == [[0.25] * 4, [0.5, 0.5, 0, 0]]
    assert q["argmax"] == [[0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]]
    assert q["flip"] == [[0.5, 0.2, 0.3, 0], [0.4, 0.3, 0.2, 0.1], [0.5, 0.5, 0, 0]]
    assert q["constant_60_40"][0] == [0.6, 0.2, 0.2, 0]
    assert q["constant_60_40"][2] == [0.6, 0.4, 0, 0]
    top = (1 + 1 / 2 + 1 / 3) / 3
    assert q["two_level"][0] == pytest.approx([(1 - top) / 2, top, (1 - top) / 2, 0])
    assert q["two_level"][2] == [0.5, 0.5, 0, 0]
    assert baseline(pairs(np.array([0.2])), "two_level").q.tolist() == [[0.25, 0.75]]


def test_equal_words_share_what_falls_to_their_ranks_but_argmax_names_one():
    target = np.array([[0.3, 0.4, 0.3, 0.0], [0.1, 0.1, 0.4, 0.4], [0.25, 0.25, 0.25, 0.25]])
    results = results_of(target, target, k=np.array([3, 4, 4]))
    q = {name: baseline(results, name).q.round(9).tolist() for name in BASELINES[:7]}
    assert q["flip"] == [[0.35, 0.3, 0.35, 0], [0.4, 0.4, 0.1, 0.1], [0.25] * 4]
    assert q["argmax"] == [[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]
    top = (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4
    rest = (1 - top) / 3
    assert q["two_level"][1] == pytest.approx([rest, rest, (top + rest) / 2, (top + rest) / 2])
    best = rank_shares(4, "train")
    assert q["rank_only"][1] == pytest.approx(best[[2, 2, 0, 0]] / 2 + best[[3, 3, 1, 1]] / 2)
    assert q["two_level"][2] == q["rank_only"][2] == [0.25] * 4
    first, second, third = q["rank_only"][0][:3]
    assert first == third < second


def test_two_level_is_the_mean_largest_share():
    largest = np.random.default_rng(0).dirichlet(np.ones(5), size=50_000).max(axis=1).mean()
    target = np.array([[0.3, 0.2, 0.2, 0.2, 0.1]])
    assert baseline(results_of(target, target), "two_level").q.max() == pytest.approx(
        largest, abs=0.003
    )


@pytest.mark.parametrize("power", [0.25, 1.0, 4.0])
def test_the_best_temperature_undoes_a_temperature_and_is_equal_shares_where_none_helps(power):
    rng = np.random.default_rng(3)
    target = rng.dirichlet(np.ones(3), 50)
    raised = target**power
    raised /= raised.sum(axis=1, keepdims=True)
    given = results_of(target, 0.3 * raised)  # shares at another temperature, and little mass
    assert baseline(given, "best_temperature").q == pytest.approx(target, abs=1e-9)
    wrong = results_of(target, target[:, ::-1] * 0.5)  # the words' shares are of no use
    assert baseline(wrong, "best_temperature").q == pytest.approx(np.full((50, 3), 1 / 3), abs=0.1)


def test_copy_and_prior_apply_where_they_exist():
    results = pairs(np.array([0.3, 0.6, 0.9]))
    assert baseline(results, "prior") is None and baseline(results, "few_shot_copy") is None
    shots = np.array([[np.nan, np.nan], [0.2, 0.8], [0.4, 0.6]])
    answered = baseline(results_of(results.target, results.q, last_shot=shots), "few_shot_copy")
    assert answered.q.tolist() == shots[1:].tolist()
    assert answered.target[:, 0].tolist() == [0.6, 0.9]


def test_an_unknown_behaviour_is_named():
    with pytest.raises(UserError, match="two_levels.*two_level"):
        baseline(pairs(ALL), "two_levels")
