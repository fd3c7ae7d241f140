"""The figures of one item against closed forms, scipy and hand-made behaviour."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from scipy.stats import entropy

from antiimit_jax.errors import UserError
from antiimit_jax.metrics.control import FLOOR, ControlResults, item_metrics
from antiimit_jax.metrics.rows import control_values


def results_of(target, q, **fields) -> ControlResults:
    """Results with a cluster an item, no shots and one template; k is the number of columns."""
    target = np.atleast_2d(np.asarray(target, float))
    n, width = target.shape
    nothing = np.full((n, width), np.nan)
    defaults = {
        "word": np.tile(np.arange(width), (n, 1)),
        "k": np.full(n, width),
        "cluster": np.arange(n),
        "shot_set": np.full(n, -1),
        "n_shots": np.zeros(n, int),
        "template": np.zeros(n, int),
        "token_count": np.ones(n, int),
        "last_shot": nothing,
        "prior": nothing,
    }
    return ControlResults(target=target, q=np.atleast_2d(q), **(defaults | fields))


def padded(rng: np.random.Generator, n: int, *, ks=(2, 3, 4, 5), **fields) -> ControlResults:
    """Random targets and answers with differing numbers of words, four items a cluster."""
    k = rng.choice(ks, size=n)
    width = max(ks)
    named = np.arange(width) < k[:, None]
    target = rng.exponential(size=(n, width)) * named
    q = (target + 0.3 * rng.exponential(size=(n, width))) * named
    target, q = target / target.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    mass = np.where(rng.random(n) < 0.1, 0.01, rng.uniform(0.3, 1, size=n))
    return results_of(
        target, q * mass[:, None], **({"k": k, "cluster": np.arange(n) // 4} | fields)
    )


@st.composite
def some_results(draw) -> ControlResults:
    """A few items with 2 to 4 words; zeros, ties and empty answers included."""
    n, width = draw(st.integers(1, 6)), draw(st.integers(2, 4))
    size = n * width
    parts = draw(st.lists(st.integers(0, 20), min_size=size, max_size=size))
    answer = draw(st.lists(st.floats(0, 1, width=32), min_size=size, max_size=size))
    mass = draw(
        st.lists(st.sampled_from([0.0, 1e-12, 0.04, 0.05, 0.5, 1.0]), min_size=n, max_size=n)
    )
    k = np.array(draw(st.lists(st.integers(1, width), min_size=n, max_size=n)))
    named = np.arange(width) < k[:, None]
    target = np.reshape(parts, (n, width)) * named + named * 1e-3
    q = np.reshape(np.asarray(answer, float), (n, width)) * named
    q = q / np.maximum(q.sum(1, keepdims=True), 1e-300) * np.array(mass)[:, None]
    return results_of(target / target.sum(1, keepdims=True), q, k=k)


@given(some_results())
@settings(max_examples=60, deadline=None)
def test_bounds_and_identities(results):
    figures = item_metrics(results)
    t, q, rho, m = results.target, results.q, results.residual, results.mass
    readable = m >= 0.05 - 1e-9
    for name, values in figures.items():
        known = readable if name in ("tvd_cond", "mae_share") else np.ones(len(m), bool)
        assert np.isfinite(values[known]).all(), name
        assert (values[known] >= -1e-9).all(), name
    for name in ("tvd_res", "tvd_cond", "js_bits", "mae_share", "residual", "mass"):
        assert (figures[name][np.isfinite(figures[name])] <= 1 + 1e-12).all(), name
    np.testing.assert_allclose(figures["tvd_res"], rho + np.maximum(q - t, 0).sum(1), atol=1e-12)
    assert (figures["tvd_res"] >= rho - 1e-12).all()
    np.testing.assert_allclose(
        figures["kl_fwd"], figures["kl_share"] + figures["kl_mass"], atol=1e-12
    )
    assert (figures["pass_05"] <= figures["pass_10"]).all()
    assert (figures["pass_10"] <= figures["pass_20"]).all()


@given(some_results(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_words_after_the_first_may_be_permuted(results, random):
    order = np.tile(np.arange(results.target.shape[1]), (len(results.k), 1))
    for row, k in zip(order, results.k):
        later = list(row[1:k])
        random.shuffle(later)
        row[1:k] = later
    swapped = results_of(
        np.take_along_axis(results.target, order, 1),
        np.take_along_axis(results.q, order, 1),
        k=results.k,
    )
    before, after = control_values(results), control_values(swapped)
    for name, value in before.items():
        assert value is None or np.isfinite(value), name
        assert after[name] == pytest.approx(value, abs=1e-9), name


def test_kl_is_share_part_plus_mass_part():
    rng = np.random.default_rng(0)
    t, c, m = rng.dirichlet(np.ones(3), 50), rng.dirichlet(np.ones(3), 50), rng.uniform(0.01, 1, 50)
    figures = item_metrics(results_of(t, c * m[:, None]))
    np.testing.assert_allclose(figures["kl_share"], entropy(t, c, axis=1), atol=1e-10)
    np.testing.assert_allclose(figures["kl_mass"], -np.log(m), atol=1e-10)
    np.testing.assert_allclose(figures["kl_fwd"], entropy(t, c, axis=1) - np.log(m), atol=1e-10)


def test_a_word_at_zero_costs_a_stated_floor():
    figures = item_metrics(results_of([[0.3, 0.7], [0.3, 0.7]], [[0.0, 0.5], [0.0, 0.0]]))
    assert figures["kl_fwd"][0] == pytest.approx(
        0.3 * np.log(0.3 / FLOOR) + 0.7 * np.log(0.7 / 0.5)
    )
    assert figures["kl_mass"][1] == pytest.approx(-np.log(2 * FLOOR))
    assert figures["tvd_res"][1] == figures["residual"][1] == 1
    assert np.isnan(figures["tvd_cond"][1])


def test_tvd_equals_the_residual_when_the_shares_are_right():
    t = np.random.default_rng(1).dirichlet(np.ones(4), 20)
    m = np.linspace(0.02, 1, 20)
    figures = item_metrics(results_of(t, t * m[:, None]))
    np.testing.assert_allclose(figures["tvd_res"], 1 - m, atol=1e-12)
    np.testing.assert_allclose(figures["tvd_cond"][m >= 0.05], 0, atol=1e-12)


def test_jensen_shannon_and_reverse_kl_against_scipy():
    rng = np.random.default_rng(2)
    t, q = rng.dirichlet(np.ones(3), 30), rng.dirichlet(np.ones(4), 30)
    figures = item_metrics(results_of(t, q[:, :3]))
    full = np.hstack([t, np.zeros((30, 1))])
    expected = [jensenshannon(a, b, base=2) ** 2 for a, b in zip(full, q)]
    np.testing.assert_allclose(figures["js_bits"], expected, atol=1e-12)
    wanted = np.hstack([t * (1 - 1e-4), np.full((30, 1), 1e-4)])
    np.testing.assert_allclose(figures["kl_rev"], rel_entr(q, wanted).sum(1), atol=1e-10)


def test_pass_has_slack_for_floats():
    half_of_two_gaps = 0.5 * (0.3 + 0.3)
    assert 0.5 * (abs(0.7 - 1.0) + abs(0.3 - 0.0)) > 0.3 >= half_of_two_gaps - 1e-9
    figures = item_metrics(
        results_of([[0.5, 0.5], [0.35, 0.65], [0.8, 0.2]], [[0.6, 0.4], [0.4, 0.6], [0.6, 0.4]])
    )
    assert figures["pass_10"].tolist() == [1, 1, 0]
    assert figures["pass_05"].tolist() == [0, 1, 0]
    assert figures["pass_20"].tolist() == [1, 1, 1]


def test_padding_changes_nothing():
    rng = np.random.default_rng(3)
    t, q = rng.dirichlet(np.ones(2), 12), 0.9 * rng.dirichlet(np.ones(2), 12)
    wide = lambda x: np.hstack([x, np.zeros((12, 3))])
    plain, wider = results_of(t, q), results_of(wide(t), wide(q), k=np.full(12, 2))
    assert control_values(plain) == pytest.approx(control_values(wider))


def test_rounding_is_settled():
    results = results_of([[0.5, 0.5], [0.5, 0.5]], [[0.6, 0.400005], [-5e-7, 0.5]])
    assert results.mass[0] == pytest.approx(1, abs=1e-15)
    assert results.q[1, 0] == 0
    assert results.residual.tolist() == [0, 0.5]


GOOD = {"target": [[0.3, 0.7], [0.5, 0.5]], "q": [[0.3, 0.6], [0.5, 0.5]]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"q": [[0.3, 0.6]]}, ["q has shape (1, 2)", "(2, 2)"]),
        ({"q": [[0.3, 0.6], [0.5, np.nan]]}, ["q: item 1", "not finite"]),
        ({"q": [[0.3, 0.6], [0.5, -0.01]]}, ["q: item 1", "below -1e-6"]),
        ({"q": [[0.7, 0.6], [0.5, 0.5]]}, ["q: item 0", "more than 1"]),
        ({"target": [[0.3, 0.6], [0.5, 0.5]]}, ["target: item 0", "sum to 1"]),
        ({"target": [[30, 70], [50, 50]]}, ["target: item 0", "fractions", "2 such items"]),
        ({"target": [[1.3, -0.3], [0.5, 0.5]]}, ["target: item 0", "negative"]),
        ({"target": [[np.nan, 0.7], [0.5, 0.5]]}, ["target: item 0", "not finite"]),
        ({"k": np.array([1, 2])}, ["target: item 0", "padding"]),
        ({"k": np.array([2, 3])}, ["k: item 1"]),
        ({"k": np.array([2.0, 2.0])}, ["k has dtype float64", "integers"]),
        ({"cluster": np.arange(3)}, ["cluster has shape (3,)"]),
        ({"prior": [[np.nan, 0.1], [0.1, 0.1]]}, ["prior: item 0", "partly NaN"]),
        ({"last_shot": [[30, 70], [0.5, 0.5]]}, ["last_shot: item 0", "probabilities"]),
    ],
)
def test_mistakes_are_named(changes, words):
    with pytest.raises(UserError) as caught:
        results_of(**(GOOD | changes))
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_items_is_a_mistake():
    with pytest.raises(UserError, match="shape"):
        results_of(**GOOD).take(np.zeros(2, bool))
