"""The calibration curve: the share given to the first-named word against the share asked for.

One point an item, the first-named word only (a second word of a pair would repeat the point
mirrored and make the noise look half as large), and only items with mass on their words: pass
readable items, `results.take(results.readable)`. Below, p is the asked and c the given share.
Conventions where a formula is silent:
  * a share that does not vary has correlation, slope and R^2 0 (it follows nothing); a target that
    does not vary has none;
  * `logit_slope` clips c to [LOGIT_CLIP, 1 - LOGIT_CLIP], so that an argmax model gets a large
    slope and not infinity;
  * `corr_within` is the mean of the correlations inside p < .5 and inside p > .5, leaves p = .5 out
    and needs both halves. It is taken on two-word items only: there a step scores 0,
    while over mixed k even the uniform answer 1/k would follow p. For the same reason read `corr`,
    `r2` and the slopes in a slice of one k;
  * `step_similarity` = D_p / (D_p + D_step), with D_p = mean |c - p|, D_step = mean |c - step(p)|
    and step(p) = 1 where p > .5, 0 where p < .5 and .5 between them: it is 0 for perfect and 1 for
    a step (our own formula);
  * `collapse_index` is the fraction of all readable items with max c > .95 while max t <= .8, so it
    cannot exceed the fraction of items with max t <= .8;
  * `ece_share` bins p in ten equal bins.
"""

import numpy as np

from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.intervals import Statistic, mean, ratio
from antiimit_jax.metrics.moments import MOMENTS, covariances, moment_columns

LOGIT_CLIP = 1e-6
BINS = 10
LEAST_VARIANCE = 1e-12  # below, a share or a target does not vary; q itself is good to 1e-5
LEAST_POINTS = 3


def calibration_columns(results: ControlResults) -> dict[str, np.ndarray]:
    """Per-item columns [n] whose sums these statistics need; `results` are readable items."""
    p, c = results.target[:, 0], results.shares[:, 0]
    inner = (p > LOGIT_CLIP) & (p < 1 - LOGIT_CLIP)
    logit_p = _logit(np.where(inner, p, 0.5))
    columns = _moments("", p - 0.5, c - 0.5, np.ones(len(p)))
    columns |= _moments("low_", p - 0.25, c - 0.25, p < 0.5 - 1e-9)
    columns |= _moments("high_", p - 0.75, c - 0.75, p > 0.5 + 1e-9)
    columns |= _moments("logit_", logit_p, _logit(np.clip(c, LOGIT_CLIP, 1 - LOGIT_CLIP)), inner)
    one_word = results.shares.max(axis=1) > 0.95
    asked_for_more = results.target.max(axis=1) <= 0.8 + 1e-9
    columns |= {
        "gap": c - p,
        "distance_target": abs(c - p),
        "distance_step": abs(c - np.heaviside(np.round(p - 0.5, 9), 0.5)),
        "collapsed": (one_word & asked_for_more).astype(float),
    }
    in_bin = np.minimum(np.floor(p * BINS + 1e-9), BINS - 1)
    return columns | {f"gap_bin_{b}": np.where(in_bin == b, c - p, 0) for b in range(BINS)}


def _logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)


def _names(prefix: str) -> tuple[str, ...]:
    return tuple(prefix + name for name in MOMENTS)


def _moments(prefix: str, x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> dict:
    """Columns [n] whose sums give the second moments of (x, y) over the items of a 0/1 weight."""
    return {prefix + name: column * weight for name, column in moment_columns(x, y).items()}


def _covariances(n, x, y, xx, xy, yy):
    """Means and (co)variances from sums; NaN with too few points or a target that does not vary."""
    enough = n > LEAST_POINTS - 0.5
    mean_x, mean_y, var_x, covariance, var_y = covariances(n, x, y, xx, xy, yy)
    var_x = np.where(enough & (var_x > LEAST_VARIANCE), var_x, np.nan)
    flat = var_y <= LEAST_VARIANCE
    return mean_x, mean_y, var_x, np.where(flat, 0, covariance), np.where(flat, 1, var_y)


def _slope(*sums):
    _, _, var_x, cov, _ = _covariances(*sums)
    return cov / var_x


def _intercept(*sums):
    """Of c on p: the moments are centred at .5 on both axes."""
    mean_x, mean_y, var_x, cov, _ = _covariances(*sums)
    return (mean_y + 0.5) - cov / var_x * (mean_x + 0.5)


def _correlation(*sums):
    _, _, var_x, cov, var_y = _covariances(*sums)
    return np.clip(cov / np.sqrt(var_x * var_y), -1, 1)


def _r2(*sums):
    return _correlation(*sums) ** 2


def _within(*sums):
    return (_correlation(*sums[:6]) + _correlation(*sums[6:])) / 2


def _expected_error(n, *gaps):
    return ratio(sum(abs(gap) for gap in gaps), n)


def _step_similarity(target, step):
    return ratio(target, target + step)


_FLAT = f"fewer than {LEAST_POINTS} points, or all ask for the same share"
ON_READABLE = (
    Statistic(name="slope", columns=_names(""), finish=_slope, missing=_FLAT),
    Statistic(name="intercept", columns=_names(""), finish=_intercept, missing=_FLAT),
    Statistic(name="r2", columns=_names(""), finish=_r2, missing=_FLAT),
    Statistic(name="logit_slope", columns=_names("logit_"), finish=_slope, missing=_FLAT),
    Statistic(name="corr", columns=_names(""), finish=_correlation, missing=_FLAT),
    Statistic(
        name="ece_share",
        columns=("n", *(f"gap_bin_{b}" for b in range(BINS))),
        finish=_expected_error,
        kind="biased",
    ),
    mean("collapse_index", "collapsed", kind="proportion"),
    Statistic(
        name="step_similarity",
        columns=("distance_target", "distance_step"),
        finish=_step_similarity,
        missing="every target is 0 or 1, where a step is perfect",
    ),
    mean("first_position_bias", "gap"),
)
ON_READABLE_PAIRS = (
    Statistic(
        name="corr_within",
        columns=_names("low_") + _names("high_"),
        finish=_within,
        missing=f"needs {LEAST_POINTS} two-word items with differing targets on either side of .5",
    ),
)
