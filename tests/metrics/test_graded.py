"""Graded control against hand-made behaviours, and against a plain recomputation."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from antiimit_jax.metrics.baselines import baseline
from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.metrics.rows import control_rows
from tests.metrics.test_control import results_of

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ("gamma", "gamma_step", "gamma_corr", "gamma_within", "preference_sd", "request_gain")


def blocks(rng, sets: int, k: int = 2, *, distances: int = 1) -> ControlResults:
    """Word sets in both orders, with both assignments of each of their percentages; q is t."""
    target, word, cluster = [], [], []
    for number, distance in itertools.product(range(sets), range(distances)):
        percents = rng.multinomial(100 - k, np.full(k, 1 / k)) + 1
        if k == 2:  # distances in ranges of their own, as an evaluation's are
            p = 1 + int(rng.integers(49)) // distances + distance * 49 // distances
            percents = np.array([p, 100 - p])
        for names, asked in itertools.product(
            (range(k), range(k)[::-1]), (percents, percents[::-1])
        ):
            target.append(asked / 100)
            word.append(list(names))
            cluster.append(number)
    return results_of(target, target, word=np.array(word), cluster=np.array(cluster))


def answered(items: ControlResults, log_q: np.ndarray, mass: float = 0.9) -> ControlResults:
    q = np.exp(log_q - log_q.max(axis=1, keepdims=True))
    return items.with_q(mass * q / q.sum(axis=1, keepdims=True))


def figures(items: ControlResults, n_boot: int = 0) -> dict:
    everything = {"all": np.ones(len(items.k), bool)}
    rows = control_rows(
        items, stage="tuned", split="train", slices=everything, boot=Bootstrap(n_boot=n_boot)
    )
    return {row["metric"]: row for row in rows if row["metric"] in FIGURES}


def values(items: ControlResults) -> dict:
    return {name: row["value"] for name, row in figures(items).items()}


@pytest.mark.parametrize("k", [2, 3, 4, 7])
def test_hand_made_behaviours(k):
    items = blocks(np.random.default_rng(k), 40, k, distances=2)
    perfect = values(items)
    assert perfect["gamma"] == pytest.approx(1)
    assert perfect["gamma_step"] == pytest.approx(0, abs=1e-6)
    assert perfect["gamma_corr"] == pytest.approx(1)
    ignoring = values(baseline(items, "uniform"))
    assert (ignoring["gamma"], ignoring["gamma_step"]) == pytest.approx((0, 0), abs=1e-9)
    assert ignoring["gamma_corr"] is None
    assert ignoring["request_gain"] == pytest.approx(0, abs=1e-12)
    shares = 0.5 ** np.arange(k) / sum(0.5 ** np.arange(k))
    step = values(items.with_q(by_rank(items, shares)))
    assert step["gamma"] == pytest.approx(0, abs=1e-6)
    assert step["gamma_step"] == pytest.approx(2 * np.log(shares[0] / shares[-1]))
    assert step["gamma_corr"] is None


def by_rank(items: ControlResults, shares: np.ndarray) -> np.ndarray:
    """[n, k] the share of each word's rank; equal percentages share theirs out."""
    asked = np.round(items.target, 9)
    alike = asked[:, :, None] == asked[:, None, :]  # [n, k, k]
    order = np.argsort(np.argsort(-asked, axis=1, kind="stable"), axis=1)
    return (alike * shares[order][:, None, :]).sum(axis=2) / alike.sum(axis=2)


@pytest.mark.parametrize("k", [3, 5, 8, 10])
@pytest.mark.parametrize("behaviour", ["two_level", "rank_only"])
def test_who_shares_out_by_rank_has_no_slope_whatever_is_tied(k, behaviour):
    items = blocks(np.random.default_rng(k), 60, k)
    tied = [len(set(t)) < k for t in np.round(items.target, 9)]
    assert sum(tied) > 20 if k > 3 else sum(tied)
    found = values(baseline(items, behaviour))
    assert found["gamma"] == pytest.approx(0, abs=1e-6) and found["gamma_corr"] is None


def test_flipped_pairs():
    items = blocks(np.random.default_rng(1), 30)
    flipped = values(baseline(items, "flip"))
    assert (flipped["gamma"], flipped["gamma_step"]) == pytest.approx((-1, 0))
    assert flipped["gamma_corr"] == pytest.approx(-1)
    assert flipped["request_gain"] < 0


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_what_a_model_prefers_drops_out(k, seed):
    """Slope one half, any preference for words and (with two words) for the place named first."""
    rng = np.random.default_rng(seed)
    items = blocks(rng, 25, k, distances=2)
    preferred = rng.normal(0, 3, size=(25, k))
    log_q = 0.5 * np.log(items.target) + np.take_along_axis(
        preferred[items.cluster], items.word, axis=1
    )
    if k == 2:
        log_q[:, 0] += rng.normal(0, 2)
    found = values(answered(items, log_q))
    assert found["gamma"] == pytest.approx(0.5, abs=1e-6)
    assert found["gamma_step"] == pytest.approx(0, abs=1e-6)
    assert found["gamma_corr"] == pytest.approx(1, abs=1e-6)
    if k == 2:
        assert found["gamma_within"] == pytest.approx(0.5, abs=1e-6)
        spread = (preferred[:, 0] - preferred[:, 1]).std(ddof=1)
    else:
        pairs = np.array(list(itertools.permutations(range(k), 2)))
        spread = np.sqrt(np.mean((preferred[:, pairs[:, 0]] - preferred[:, pairs[:, 1]]) ** 2))
    # With k > 2 both assignments of `blocks` leave a trace of what was asked in a word's mean.
    assert found["preference_sd"] == pytest.approx(spread, abs=1e-6 if k == 2 else 0.1)


def joined(*parts: ControlResults) -> ControlResults:
    """Items with different numbers of words in one; those with fewer are padded."""
    width = max(part.target.shape[1] for part in parts)
    pad = lambda table: np.pad(table, ((0, 0), (0, width - table.shape[1])))
    tables = {
        name: np.concatenate([pad(getattr(part, name)) for part in parts])
        for name in ("target", "q", "word")
    }
    k = np.concatenate([part.k for part in parts])
    return results_of(
        **tables, k=k, cluster=np.concatenate([1000 * part.k + part.cluster for part in parts])
    )


@pytest.mark.parametrize(
    "behaviour, gamma, corr",
    [("perfect", 1, 1), ("uniform", 0, None), ("two_level", 0, None), ("flip", -1, -1)],
)
def test_different_numbers_of_words_have_one_slope_and_no_step(behaviour, gamma, corr):
    parts = [blocks(np.random.default_rng(k), 20, k) for k in (3, 4, 5)]
    flipped = lambda part: answered(part, -np.log(part.target))
    answer = {"perfect": lambda part: part, "flip": flipped}
    by_name = lambda part: baseline(part, behaviour)
    found = values(joined(*map(answer.get(behaviour, by_name), parts)))
    assert found["gamma"] == pytest.approx(gamma, abs=1e-6)
    assert found["gamma_corr"] == (corr if corr is None else pytest.approx(corr))
    assert "gamma_step" not in found


def test_the_slope_of_different_numbers_is_between_their_own_and_two_words_stay_apart():
    slopes = {3: 0.2, 5: 0.8}
    parts = {k: blocks(np.random.default_rng(k), 20, k) for k in slopes}
    said = {k: answered(part, slopes[k] * np.log(part.target)) for k, part in parts.items()}
    assert 0.3 < values(joined(*said.values()))["gamma"] < 0.7
    assert "gamma" not in values(joined(blocks(np.random.default_rng(2), 20), said[3]))


def test_assignments_must_be_exchanged_within_a_set():
    """Without the pairing, preference would pass for a slope: half a block has no figure."""
    rng = np.random.default_rng(0)
    items = blocks(rng, 30)
    larger = items.target[np.arange(len(items.k)), items.word.argmin(axis=1)] > 0.5
    half = items.take(larger)
    assert values(half)["gamma"] is None
    log_q = np.log(half.target) + rng.normal(0, 2, size=(30, 2))[half.cluster]
    assert values(answered(half, log_q))["gamma"] is None


def test_plain_recomputation():
    rng = np.random.default_rng(3)
    items = blocks(rng, 40, distances=2)
    items = answered(items, np.log(items.target) + rng.normal(0, 1, size=items.target.shape))
    units, gains = {}, []
    for c, word, t, q in zip(items.cluster, items.word, items.target, items.q):
        a, b = list(word).index(0), list(word).index(1)
        side = units.setdefault((c, round(abs(t[a] - 0.5), 6)), {True: [], False: []})
        side[t[a] > t[b]].append((np.log(q[a] / q[b]), np.log(t[a] / t[b])))
    both = [np.mean(s[True], axis=0) - np.mean(s[False], axis=0) for s in units.values()]
    d, x = np.array(both).T
    slope, intercept = np.polyfit(x, d, 1)
    found = values(items)
    assert found["gamma"] == pytest.approx(slope)
    assert found["gamma_step"] == pytest.approx(intercept)
    assert found["gamma_corr"] == pytest.approx(np.corrcoef(x, d)[0, 1])
    for c in range(40):
        for first in (0, 1):
            same = (items.cluster == c) & (items.word[:, 0] == first)
            q, t = items.q[same], items.target[same]
            tvd = lambda q: (abs(q - t).sum(1) + 1 - q.sum(1)) / 2
            gains += list(tvd(np.tile(q.mean(0), (len(q), 1))) - tvd(q))
    assert found["request_gain"] == pytest.approx(np.mean(gains))


def test_many_words_against_least_squares():
    """The slope of one regression with a dummy for every word of a set and for every rank."""
    rng = np.random.default_rng(4)
    items = blocks(rng, 30, 4)
    items = answered(items, 0.7 * np.log(items.target) + rng.normal(0, 1, size=(120, 4)))
    y, z, columns = [], [], []
    for c, word, t, q in zip(items.cluster, items.word, items.target, items.q):
        centred_q, centred_t = np.log(q) - np.log(q).mean(), np.log(t) - np.log(t).mean()
        for j in range(4):
            y.append(centred_q[j])
            z.append(centred_t[j])
        ranks = [[i for i, s in enumerate(sorted(t)[::-1]) if abs(s - one) < 1e-9] for one in t]
        own = [{f"word {c} {w}", f"ranks {r}"} for w, r in zip(word, ranks)]
        columns.append(own)
    names = sorted({name for item in columns for row in item for name in row})
    design = np.array([[[name in row for name in names] for row in item] for item in columns])
    design = (design - design.mean(axis=1, keepdims=True)).reshape(-1, len(names))
    fit = np.linalg.lstsq(np.column_stack([z, design]), np.array(y), rcond=None)[0]
    assert figures(items)["gamma"]["value"] == pytest.approx(fit[0])


def imperfect(rng, sets: int, k: int) -> ControlResults:
    """Word preferences, noise and slopes that differ between sets, less than all mass."""
    items = blocks(rng, sets, k, distances=2)
    slope = rng.normal(0.8, 0.3, size=sets)[items.cluster][:, None]
    preferred = np.take_along_axis(rng.normal(0, 1, (sets, k))[items.cluster], items.word, 1)
    noise = rng.normal(0, 0.5, size=items.target.shape)
    mass = rng.beta(20, 2, size=sets)[items.cluster][:, None]
    return answered(items, slope * np.log(items.target) + preferred + noise, mass)


@pytest.mark.parametrize("k", [2, 3])
def test_intervals_cover(k):
    """At about 95%, the truth of every figure: its value on very many word sets."""
    rng, repeats, sets = np.random.default_rng(5), 300, 33
    truth = values(imperfect(rng, 20_000, k))
    hits = dict.fromkeys(truth, 0)
    for _ in range(repeats):
        for name, row in figures(imperfect(rng, sets, k), 400).items():
            hits[name] += row["ci_low"] <= truth[name] <= row["ci_high"]
    error = np.sqrt(0.95 * 0.05 / repeats)
    found = {name: count / repeats for name, count in hits.items()}
    short = {n: c for n, c in found.items() if not 0.93 - 2 * error <= c <= 0.98 + 2 * error}
    assert not short, (short, found)


def test_one_set_and_equal_shares_have_no_figure_and_say_why():
    equal = results_of([[0.5, 0.5]] * 4, [[0.4, 0.3]] * 4, cluster=np.zeros(4, int))
    found = figures(equal)
    assert found["gamma"]["value"] is None and "exchanged" in found["gamma"]["note"]
    assert found["preference_sd"]["value"] is None


def test_the_lines_in_workspace_give_the_slope(tmp_path, monkeypatch):
    """A reader's own computation from items.parquet, as WORKSPACE.md prints it."""
    text = (ROOT / "WORKSPACE.md").read_text(encoding="utf-8")
    (lines,) = [
        block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "gamma" in block
    ]
    assert len(lines.strip().splitlines()) <= 15
    rng = np.random.default_rng(6)
    results = blocks(rng, 30, distances=2)
    results = answered(results, np.log(results.target) + rng.normal(0, 1, results.target.shape))
    n = len(results.k)
    of_item = {"stage": "tuned", "split": "heldout_words", "k": 2, "n_shots": 0}
    columns = {name: [value] * 2 * n for name, value in of_item.items()}
    columns |= {"template_heldout": [False] * 2 * n, "item": np.repeat(np.arange(n), 2)}
    columns |= {"cluster": np.repeat(results.cluster, 2)}
    columns |= {name: getattr(results, name).ravel() for name in ("word", "target", "q")}
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(lines, found)
    ours = values(results)
    assert found["gamma"] == pytest.approx(ours["gamma"])
    assert found["step"] == pytest.approx(ours["gamma_step"])
