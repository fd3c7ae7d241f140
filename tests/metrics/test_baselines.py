"""Lazy behaviours against printed tables and against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from antiimit_jax.errors import UserError
from antiimit_jax.metrics.baselines import BASELINES, baseline, best_shares_by_rank
from antiimit_jax.metrics.rows import control_values
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


@pytest.mark.parametrize("k", [2, 3, 5])
def test_best_shares_against_linear_programming(k):
    """Least mean TVD over shares r >= 0 with sum at most 1, as a linear program."""
    rng = np.random.default_rng(k)
    ordered = -np.sort(-np.round(rng.dirichlet(np.ones(k), size=25), 2), axis=1)
    ordered[:, 0] += 1 - ordered.sum(1)
    n = len(ordered)
    cost = np.concatenate([np.zeros(k), np.full(n * k, 1 / n)])  # r, then excess e_ij >= t_ij - r_j
    above = np.hstack([-np.tile(np.eye(k), (n, 1)), -np.eye(n * k)])
    total = np.concatenate([np.ones(k), np.zeros(n * k)])[None]
    solved = linprog(cost, np.vstack([above, total]), np.append(-ordered.ravel(), 1.0))
    shares = best_shares_by_rank(ordered)
    assert shares.sum() == pytest.approx(1) and (shares >= 0).all()
    assert np.maximum(ordered - shares, 0).sum(1).mean() == pytest.approx(solved.fun, abs=1e-9)


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


def test_two_level_is_the_mean_largest_share():
    largest = np.random.default_rng(0).dirichlet(np.ones(5), size=50_000).max(axis=1).mean()
    target = np.array([[0.3, 0.2, 0.2, 0.2, 0.1]])
    assert baseline(results_of(target, target), "two_level").q.max() == pytest.approx(
        largest, abs=0.003
    )


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
