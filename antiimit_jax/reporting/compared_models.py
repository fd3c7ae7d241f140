"""Slopes over sizes within families, and differences of pairs, from the answers of several models.

Figures are those of the models as they are, on two-word plain requests of the same items.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from antiimit_jax.metrics.between_models import (
    METRICS,
    compared,
    doubling_weights,
    over_pairs,
    sign_flip,
)
from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.hypotheses import over_seeds
from antiimit_jax.metrics.intervals import Estimate
from antiimit_jax.metrics.resampling import LEAST_CLUSTERS, Bootstrap
from antiimit_jax.reporting.needed_runs import FORMATS
from antiimit_jax.reporting.rows import plain_text

LABELS = {"gamma": "γ", "mass": "mass", "tvd_res": "TVD", "tvd_cond": "TVD of shares"}
BESIDE = {  # of the suite residual, where a run holds it: slice -> label
    "forms=strict,category=refusal": "begins as refusals",
    "forms=lenient,category=target_words": "mass, any case",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """One model of a comparison, asked in one format."""

    name: str
    run: str  # the folder of its run
    family: str  # releases of one kind in several sizes
    parameters: float
    pair: str  # the same of a base and its post-trained release; "" without such
    post_trained: bool
    format: str  # of FORMATS
    answers: ControlResults  # to two-word plain requests
    beside: Mapping[str, Estimate] = dataclasses.field(default_factory=dict)  # of BESIDE

    def __post_init__(self) -> None:
        """Names come from files and flags: on pages and terminals they steer nothing."""
        for name in ("name", "run", "family", "pair"):
            object.__setattr__(self, name, plain_text(getattr(self, name)))

    @property
    def kind(self) -> str:
        return "post-trained" if self.post_trained else "base"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """One figure of a comparison: a slope per doubling, or base less post-trained."""

    hypothesis: str
    unit: str  # a family or the name of a pair's base; "" over all of them
    format: str  # of E2
    metric: str
    figure: Estimate
    models: Sequence[str]
    p: float | None = None  # one-sided, of the exact sign flip over pairs


def slopes_of(models: Sequence[Model], boot: Bootstrap) -> list[Compared]:
    """Of each family with two sizes of a kind in a format; kinds and formats share the slope."""
    found: list[Compared] = []
    for family in dict.fromkeys(m.family for m in models):
        of_it = [m for m in models if m.family == family]
        weights = doubling_weights(
            [m.parameters for m in of_it], [(m.post_trained, m.format) for m in of_it]
        )
        if weights is None:
            continue
        alike = collections.Counter((m.post_trained, m.format) for m in of_it)
        used = [(m, w) for m, w in zip(of_it, weights) if alike[m.post_trained, m.format] > 1]
        answers, weights = [m.answers for m, _ in used], [weight for _, weight in used]
        found += [
            Compared(
                hypothesis="E1",
                unit=family,
                format="",
                metric=metric,
                figure=compared(answers, weights, metric, boot),
                models=list(dict.fromkeys(m.name for m, _ in used)),
            )
            for metric in METRICS
        ]
    return found + [_over_families(found, metric) for metric in METRICS if found]


def _over_families(found: Sequence[Compared], metric: str) -> Compared:
    """Families are to their mean what training seeds are: each its own value, the same items."""
    here = [one for one in found if one.metric == metric]
    names = [name for one in here for name in one.models]
    figure = over_seeds([one.figure for one in here])
    return dataclasses.replace(here[0], unit="", figure=figure, models=names)


def differences_of(models: Sequence[Model], boot: Bootstrap) -> list[Compared]:
    """Of each pair in each format that both were asked in, and over the pairs of a format."""
    found: list[Compared] = []
    for style in FORMATS:
        pairs = _pairs(models, style)
        for metric in METRICS if pairs else ():
            place = dict(hypothesis="E2", format=style, metric=metric)
            each = [
                Compared(
                    **place,
                    unit=base.pair,
                    figure=compared([base.answers, post.answers], [1, -1], metric, boot),
                    models=[base.name, post.name],
                )
                for base, post in pairs
            ]
            found += [*each, _over_pairs(each, pairs, boot)]
    return found


def _pairs(models: Sequence[Model], style: str) -> list[tuple[Model, Model]]:
    """Base and post-trained releases that were both asked in a format."""
    asked = {(m.pair, m.post_trained): m for m in models if m.format == style and m.pair}
    there = [(base, asked.get((pair, True))) for (pair, post), base in asked.items() if not post]
    return [(base, post) for base, post in there if post]


def _over_pairs(
    each: Sequence[Compared], pairs: Sequence[tuple[Model, Model]], boot: Bootstrap
) -> Compared:
    """The mean: with six pairs by sign flips over pairs, with fewer of these pairs alone."""
    values = [one.figure.value for one in each]
    metric, names = each[0].metric, [name for one in each for name in one.models]
    if None in values:
        figure, p = Estimate(value=None, note=each[values.index(None)].figure.note), None
    else:
        better = [-value for value in values] if metric.startswith("tvd") else values
        p = sign_flip(better)
        if len(values) >= LEAST_CLUSTERS:
            figure = over_pairs(values)
        else:
            answers = [m.answers for pair in pairs for m in pair]
            weights = [sign / len(pairs) for _ in pairs for sign in (1, -1)]
            figure = compared(answers, weights, metric, boot)
    return dataclasses.replace(each[0], unit="", figure=figure, models=names, p=p)
