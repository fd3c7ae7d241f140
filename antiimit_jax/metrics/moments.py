"""Second moments of pairs (x, y) from sums, as slopes and correlations need them."""

import numpy as np

from antiimit_jax.metrics.intervals import ratio

MOMENTS = ("n", "x", "y", "xx", "xy", "yy")


def moment_columns(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Columns [n], named as `MOMENTS`, whose sums `covariances` takes."""
    return dict(zip(MOMENTS, (np.ones(len(x)), x, y, x * x, x * y, y * y)))


def covariances(n, x, y, xx, xy, yy) -> tuple[np.ndarray, ...]:
    """From sums, elementwise: both means, variance of x, covariance, variance of y."""
    mean_x, mean_y = ratio(x, n), ratio(y, n)
    var_y = np.maximum(ratio(yy, n) - mean_y**2, 0)
    return mean_x, mean_y, ratio(xx, n) - mean_x**2, ratio(xy, n) - mean_x * mean_y, var_y


def slope(n, x, y, xx, xy, yy) -> np.ndarray:
    """Of y on x, from sums; NaN where x does not vary."""
    _, _, var_x, covariance, _ = covariances(n, x, y, xx, xy, yy)
    return ratio(covariance, var_x)
