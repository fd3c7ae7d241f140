"""Do 95% intervals cover 95%? `python -m tests.metrics.test_coverage` prints the whole table."""

from __future__ import annotations

import numpy as np
import pytest

from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.intervals import estimate, mean
from antiimit_jax.metrics.resampling import Bootstrap, column_sums, resample
from antiimit_jax.metrics.rows import control_rows, control_values

ITEMS_PER_CLUSTER = 4  # a pair of words, in both orders, with both assignments


def tvd_like(kind: str, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Skewed values in [0, 1], [clusters, ITEMS_PER_CLUSTER], alike within a cluster."""
    size = (clusters, ITEMS_PER_CLUSTER)
    good, refusal = rng.beta(2, 25, size=size), rng.beta(20, 2, size=size)
    if kind == "skewed":  # cluster means Beta(1.2, 6), skewness 1.2
        centre = rng.beta(1.2, 6, size=(clusters, 1))
        return rng.beta(8 * centre + 1e-3, 8 * (1 - centre), size=size)
    if kind == "long tail":  # lognormal, cluster means with skewness about 4
        return np.minimum(
            0.06 * np.exp(rng.normal(0, 0.8, size=(clusters, 1)) + rng.normal(0, 0.5, size=size)), 1
        )
    if kind == "5% of items refused":
        return np.where(rng.random(size) < 0.05, refusal, good)
    if kind == "10% of clusters refused":
        return np.where(rng.random((clusters, 1)) < 0.1, refusal, good)
    raise ValueError(kind)


def mean_coverage(kind: str, clusters: int, *, repeats: int, n_boot: int, seed: int) -> float:
    """The share of samples whose interval for the mean holds the true mean."""
    rng = np.random.default_rng(seed)
    truth = tvd_like(kind, 400_000, rng).mean()
    label = np.repeat(np.arange(clusters), ITEMS_PER_CLUSTER)
    drawings = [resample(label, n_boot=n_boot, seed=s) for s in range(20)]
    hits = 0
    for repeat in range(repeats):
        x = tvd_like(kind, clusters, rng).ravel()
        drawing = drawings[repeat % len(drawings)]
        figure = estimate(
            mean("mean", "x"), column_sums({"x": x, "n": np.ones(len(x))}, drawing), drawing
        )
        hits += figure.low <= truth <= figure.high
    return hits / repeats


def controlled(
    clusters: int, rng: np.random.Generator, *, shot_sets: int = 0, shot_sd: float = 0.0
) -> ControlResults:
    """A fair controller of two words: cluster, order and item effects on log-odds, 3% refusals."""
    n = clusters * ITEMS_PER_CLUSTER
    cluster = np.repeat(np.arange(clusters), ITEMS_PER_CLUSTER)
    order, assignment = np.tile([0, 0, 1, 1], clusters), np.tile([0, 1, 0, 1], clusters)
    p = rng.integers(1, 100, size=clusters)[cluster] / 100
    p = np.where(assignment == 1, 1 - p, p)
    sets = rng.integers(shot_sets, size=n) if shot_sets else np.full(n, -1)
    odds = (
        0.9 * np.log(p / (1 - p))
        + 0.1
        + np.where(order == 1, -1, 1) * rng.normal(0, 0.4, size=clusters)[cluster]
    )
    odds = (
        odds
        + rng.normal(0, 0.4, size=n)
        + (rng.normal(0, shot_sd, size=shot_sets)[sets] if shot_sets else 0)
    )
    c = 1 / (1 + np.exp(-odds))
    m = np.where(rng.random(n) < 0.03, rng.beta(1, 60, size=n), rng.beta(30, 1.5, size=n))
    target, nothing = np.stack([p, 1 - p], axis=1), np.full((n, 2), np.nan)
    return ControlResults(
        target=target,
        q=m[:, None] * np.stack([c, 1 - c], axis=1),
        word=np.where(order[:, None] == 1, [1, 0], [0, 1]),
        k=np.full(n, 2),
        cluster=cluster,
        shot_set=sets,
        n_shots=np.where(sets >= 0, 2, 0),
        template=np.zeros(n, int),
        token_count=np.ones(n, int),
        last_shot=nothing,
        prior=nothing,
    )


def all_coverage(
    clusters: int, *, repeats: int, n_boot: int, seed: int, **design
) -> dict[str, tuple[float, float]]:
    """metric -> (coverage, share of samples without an interval) for every control figure."""
    rng = np.random.default_rng(seed)
    truth = control_values(
        controlled(40_000, rng, **(design | {"shot_sets": 4000 if design else 0}))
    )
    hits, missing = dict.fromkeys(truth, 0), dict.fromkeys(truth, 0)
    for _ in range(repeats):
        results = controlled(clusters, rng, **design)
        everything = {"all": np.ones(len(results.k), bool)}
        for row in control_rows(
            results, stage="tuned", split="train", slices=everything, boot=Bootstrap(n_boot=n_boot)
        ):
            if row["ci_low"] is None:
                missing[row["metric"]] += 1
            else:
                hits[row["metric"]] += (
                    row["ci_low"] - 1e-9 <= truth[row["metric"]] <= row["ci_high"] + 1e-9
                )
    return {
        name: (hits[name] / max(repeats - missing[name], 1), missing[name] / repeats)
        for name in truth
    }


@pytest.mark.parametrize("clusters", [30])
def test_skewed_mean_is_covered(clusters):
    repeats = 1500
    coverage = mean_coverage("skewed", clusters, repeats=repeats, n_boot=1000, seed=1)
    error = np.sqrt(0.95 * 0.05 / repeats)
    assert 0.93 - 2 * error <= coverage <= 0.97 + 2 * error


def main() -> None:
    for kind in ("skewed", "long tail", "5% of items refused", "10% of clusters refused"):
        for clusters in (8, 12, 20, 30, 50, 100):
            coverage = mean_coverage(kind, clusters, repeats=2000, n_boot=1000, seed=clusters)
            print(f"mean, {kind:26s} {clusters:4d} clusters {coverage:.3f}", flush=True)
    designs = [
        (12, {}),
        (30, {}),
        (100, {}),
        *((40, {"shot_sets": 8, "shot_sd": sd}) for sd in (0.0, 0.2, 0.5)),
    ]
    for clusters, design in designs:
        table = all_coverage(clusters, repeats=500, n_boot=1000, seed=clusters, **design)
        print(f"control figures, {clusters} clusters {design}")
        for name, (coverage, missing) in table.items():
            print(
                f"    {name:20s} {coverage:.3f}"
                + (f"  (none in {missing:.1%})" if missing else ""),
                flush=True,
            )


if __name__ == "__main__":
    main()
