"""What figures say of a hypothesis: over training seeds, by Bayes' rule, and over many tests."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special, stats

from antiimit_jax.metrics.intervals import Estimate


def over_seeds(found: Sequence[Estimate]) -> Estimate:
    """The mean of one figure over training seeds whose adapters answered the same items.

    Half-width: that of the items, which all seeds share (the mean of the seeds' own), and that of
    the seeds (Student's t of their values), added as squares. One seed keeps its own interval.
    """
    if missing := [one for one in found if one.value is None]:
        return Estimate(value=None, note=missing[0].note)
    values = np.array([one.value for one in found])
    if len(found) == 1:
        return found[0]
    if missing := [one for one in found if one.low is None or one.high is None]:
        return Estimate(value=float(values.mean()), note=missing[0].note)
    t = stats.t.ppf(0.975, len(values) - 1)
    of_seeds = t * values.std(ddof=1) / math.sqrt(len(values))
    below = np.mean([one.value - one.low for one in found])
    above = np.mean([one.high - one.value for one in found])
    low, high = math.hypot(below, of_seeds), math.hypot(above, of_seeds)
    mean = float(values.mean())
    return Estimate(value=mean, low=mean - low, high=mean + high)


def less(one: Estimate, other: Estimate) -> Estimate:
    """one - other, as if of different items: for figures of the same ones too wide."""
    return _weighed((one, 1.0), (other, -1.0))


def mean_apart(found: Sequence[Estimate]) -> Estimate:
    """The mean of figures of different items."""
    return _weighed(*((one, 1 / len(found)) for one in found))


def _weighed(*found: tuple[Estimate, float]) -> Estimate:
    """The sum of figures times weights, with half-widths added as squares."""
    if missing := [one for one, _ in found if one.value is None]:
        return Estimate(value=None, note=missing[0].note)
    value = sum(one.value * weight for one, weight in found)
    if any(None in (one.low, one.high) for one, _ in found):
        return Estimate(value=value, note=next((one.note for one, _ in found if one.note), None))
    ends = [
        sorted(((one.low - one.value) * weight, (one.high - one.value) * weight))
        for one, weight in found
    ]
    below, above = (math.hypot(*sides) for sides in zip(*ends))
    return Estimate(value=value, low=value - below, high=value + above)


def posterior(
    passes: float, n: float, *, boundary: float, prior: float, least: float = 0.0
) -> float:
    """Probability that a rate is at least `boundary` after so many passes of n.

    The prior mass is split at the boundary and flat on each side, from `least` to 1.
    """
    rate = stats.beta(passes + 1, n - passes + 1)  # the likelihood as a density
    above = rate.sf(boundary) / (1 - boundary)
    below = (rate.cdf(boundary) - rate.cdf(least)) / (boundary - least)
    odds = prior / (1 - prior) * above / below
    return float(odds / (1 + odds))


def posterior_above(
    figure: Estimate, least: float, *, prior: float, n: float, scale: float = 1.0
) -> float:
    """Probability that a figure is above `least`, after its interval, read as normal.

    Before, the figure is normal around 0 within either region, as wide as one of the n units that
    the interval stands on would vary (unit information) times `scale`; `prior` is the probability
    of the region above. The interval has a width.
    """
    error = (figure.high - figure.low) / 2 / stats.norm.ppf(0.975)
    wide = scale * error * math.sqrt(n)
    weight = wide**2 / (wide**2 + error**2)
    log_odds = lambda at: at.logsf(least) - at.logcdf(least)
    after = log_odds(stats.norm(figure.value * weight, error * math.sqrt(weight)))
    ratio = after - log_odds(stats.norm(0, wide))
    return float(special.expit(special.logit(prior) + ratio))


def p_above(figure: Estimate, least: float) -> float:
    """One-sided p of "the figure is at most `least`", its interval's lower half read as normal.

    An interval of no width leaves no doubt: p is 0 or 1.
    """
    error = (figure.value - figure.low) / stats.norm.ppf(0.975)
    if error == 0:
        return float(figure.value <= least)
    return float(stats.norm.sf((figure.value - least) / error))


def holm(p: Mapping[str, float], level: float = 0.025) -> frozenset[str]:
    """Names of the hypotheses that Holm's method rejects (Holm 1979)."""
    rejected = []
    for i, (name, value) in enumerate(sorted(p.items(), key=lambda one: one[1])):
        if value > level / (len(p) - i):
            break
        rejected.append(name)
    return frozenset(rejected)
