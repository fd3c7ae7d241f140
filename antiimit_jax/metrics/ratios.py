"""The ratio of two independent figures, with Fieller's interval."""

import math

from antiimit_jax.metrics.intervals import Estimate


def fieller(top: Estimate, bottom: Estimate) -> Estimate:
    """top / bottom with the ratios r that top - r bottom = 0 does not reject (Fieller 1954).

    Half-widths h of the two intervals, which are symmetric, stand for quantile times standard
    error: the ends solve (top - r bottom)² = h_top² + r² h_bottom². That is an approximation, since
    each has degrees of freedom of its own. Where `bottom` may be 0 there is no ratio.
    """
    if top.value is None or bottom.value is None:
        return Estimate(value=None, note=(top if top.value is None else bottom).note)
    if bottom.low is None or bottom.low <= 0:
        return Estimate(value=None, note="the divisor is not clearly above 0")
    ratio = top.value / bottom.value
    if top.low is None:
        return Estimate(value=ratio, note=top.note)
    of_top, of_bottom = (figure.value - figure.low for figure in (top, bottom))
    square = bottom.value**2 - of_bottom**2
    product = top.value * bottom.value
    root = math.sqrt(max(0, product**2 - square * (top.value**2 - of_top**2)))
    ends = dict(low=(product - root) / square, high=(product + root) / square)
    return Estimate(value=ratio, **ends, note=top.note)
