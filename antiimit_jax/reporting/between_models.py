"""Verdicts on what one run cannot tell: E1, of sizes within families, and E2, of pairs.

Figures are those of the models as they are, on two-word plain requests of the same items.
"""

import dataclasses
from collections.abc import Sequence

from antiimit_jax.metrics.between_models import (
    METRICS,
    compared,
    doubling_weights,
    over_pairs,
    sign_flip,
)
from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.hypotheses import over_seeds, posterior_above
from antiimit_jax.metrics.intervals import Estimate
from antiimit_jax.metrics.resampling import LEAST_CLUSTERS, Bootstrap
from antiimit_jax.reporting.judging import NO_DATA, Part, Verdict, outcome
from antiimit_jax.reporting.needed_runs import FORMATS, Ask, not_asked, other_sizes
from antiimit_jax.reporting.rows import number

LABELS = {"gamma": "γ", "mass": "mass", "tvd_res": "TVD", "tvd_cond": "TVD of shares"}
NO_DIFFERENCE = 0.02  # per doubling of parameters: at most so much is none
CLAIMS = {
    "E1": "larger models do better than smaller ones",
    "E2": "base models do better than post-trained ones",
}
RULES = {
    "E1": "slope of γ and of mass per doubling of parameters, within families: above .02, since "
    "within ±.02 counts as no difference",
    "E2": "base less post-trained, over pairs, within each format that both were asked in: γ and "
    "mass above 0, TVD below 0",
}
_E1_PRIOR, _E2_PRIOR = 0.6, 0.8
_SCALES = (1.0, 0.5, 2.0)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that runs of several models say together."""

    models: Sequence[Model]
    own: dict[tuple[str, str], dict[str, Estimate]]  # (name, format) -> metric -> its figure
    found: Sequence[Compared]
    verdicts: Sequence[Verdict]
    readings: Sequence[str]  # where a difference between base and post-trained lies

    def at(self, hypothesis: str, format: str = "") -> dict[str, dict[str, Compared]]:
        """Unit -> metric -> what was found."""
        units: dict[str, dict[str, Compared]] = {}
        for one in self.found:
            if (one.hypothesis, one.format) == (hypothesis, format):
                units.setdefault(one.unit, {})[one.metric] = one
        return units


def compare(models: Sequence[Model], boot: Bootstrap, ask: Ask) -> Comparison:
    """Verdicts on E1 and E2, with what they stand on.

    Args:
      models: that answered the same items; no two of one name and format.
      ask: (model, format) -> the command that asks a model the same items.
    """
    own = {
        (m.name, m.format): {name: compared([m.answers], [1], name, boot) for name in METRICS}
        for m in models
    }
    slopes, pairs = _slopes(models, boot), _differences(models, boot)
    verdicts = [_larger(models, slopes, ask), _base(models, pairs, ask)]
    found = [*slopes, *pairs]
    return Comparison(
        models=models, own=own, found=found, verdicts=verdicts, readings=_readings(pairs)
    )


def _slopes(models: Sequence[Model], boot: Bootstrap) -> list[Compared]:
    """Of each family with two sizes of a kind in a format; kinds and formats share the slope."""
    found: list[Compared] = []
    for family in dict.fromkeys(m.family for m in models):
        of_it = [m for m in models if m.family == family]
        weights = doubling_weights(
            [m.parameters for m in of_it], [(m.post_trained, m.format) for m in of_it]
        )
        if weights is None:
            continue
        used = [(m, weight) for m, weight in zip(of_it, weights) if abs(weight) > 1e-9]
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


def _differences(models: Sequence[Model], boot: Bootstrap) -> list[Compared]:
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


def _larger(models: Sequence[Model], found: Sequence[Compared], ask: Ask) -> Verdict:
    """E1."""
    if not found:
        missing = other_sizes([(m.name, m.format) for m in models], ask)
        return _verdict("E1", NO_DATA, missing=["two sizes of one family, asked alike", *missing])
    over = {one.metric: one for one in found if not one.unit}
    families = {one.unit for one in found if one.unit}
    parts = [
        Part(f"{LABELS[name]} per doubling", over[name].figure, low=NO_DIFFERENCE)
        for name in ("gamma", "mass")
    ]
    n = len(families) if len(families) > 1 else _word_sets(models)
    further = _probability(over["gamma"].figure, NO_DIFFERENCE, _E1_PRIOR, n, "γ")
    names = over["gamma"].models if len(families) == 1 else ()
    return _verdict("E1", outcome(parts), names, [*(part.said for part in parts), *further])


def _base(models: Sequence[Model], found: Sequence[Compared], ask: Ask) -> Verdict:
    """E2."""
    asked = {(m.pair, m.post_trained, m.format): m.name for m in models if m.pair}
    missing = not_asked(asked, ask)
    over = {(one.format, one.metric): one for one in found if not one.unit}
    if not over:
        needed = "a base and its post-trained release, both asked in one format"
        return _verdict("E2", NO_DATA, missing=[needed, *missing])
    styles = list(dict.fromkeys(style for style, _ in over))
    parts, said = [], []
    for style in styles:
        here = {name: over[style, name] for name in METRICS}
        of_it = _parts(here, style)
        parts += of_it
        said += [
            f"{part.said} (sign flip over {_pairs_of(one)}: p {number(one.p)})"
            for part, one in zip(of_it, here.values())
        ]
        n = len(here["gamma"].models) // 2
        units = n if n >= LEAST_CLUSTERS else _word_sets(models)
        words = f"γ in {style} format"
        said += _probability(here["gamma"].figure, 0.0, _E2_PRIOR, units, words)
    names = list(dict.fromkeys(name for style in styles for name in over[style, "gamma"].models))
    few = any(len(one.models) < 2 * LEAST_CLUSTERS for one in over.values())
    needed = [f"a pair asked in {style} format" for style in FORMATS if style not in styles]
    return _verdict("E2", outcome(parts, needed), names if few else (), said, [*needed, *missing])


def _parts(here: dict[str, Compared], style: str) -> list[Part]:
    """What E2 asks of one format."""
    regions = {"gamma": {"low": 0.0}, "mass": {"low": 0.0}, "tvd_res": {"high": 0.0}}
    return [
        Part(f"{style} format: {LABELS[name]}", here[name].figure, **region)
        for name, region in regions.items()
    ]


def _pairs_of(one: Compared) -> str:
    n = len(one.models) // 2
    return f"{n} pair{'s' * (n != 1)}"


def _verdict(
    name: str,
    verdict: str,
    models: Sequence[str] = (),
    found: Sequence[str] = (),
    missing: Sequence[str] = (),
) -> Verdict:
    """The verdict; `models` where it is about them alone."""
    if models and verdict != NO_DATA:
        verdict += f" ({', '.join(models[:-1])} and {models[-1]} alone)"
    claim, rule = CLAIMS[name], RULES[name]
    return Verdict(id=name, claim=claim, rule=rule, verdict=verdict, found=found, missing=missing)


def _probability(figure: Estimate, least: float, prior: float, n: int, words: str) -> list[str]:
    """The hypothesis' probability before and after a figure, with other widths of the prior."""
    if figure.low is None:
        return []
    after, *others = (
        posterior_above(figure, least, prior=prior, n=n, scale=scale) for scale in _SCALES
    )
    low, high = (number(end, 2) for end in (min(others), max(others)))
    return [f"probability {prior} before, {number(after, 2)} after {words}, {low} to {high}"]


def _word_sets(models: Sequence[Model]) -> int:
    return len(set(models[0].answers.cluster.tolist()))


def _readings(pairs: Sequence[Compared]) -> list[str]:
    """Of which kind the difference in each format is: of mass, of shares."""
    over = {(one.format, one.metric): one.figure for one in pairs if not one.unit}
    said = []
    for style in dict.fromkeys(style for style, _ in over):
        differs = {name: _differs(over[style, name]) for name in ("mass", "tvd_cond")}
        where = {
            (True, False): "in mass alone: one of them refuses, or answers in another form",
            (False, True): "in the shares alone: calibration",
            (True, True): "both in mass (refusal or format) and in the shares (calibration)",
            (False, False): "neither in mass nor in the shares, as far as these items tell",
        }[differs["mass"], differs["tvd_cond"]]
        said.append(f"in {style} format, base and post-trained models differ {where}")
    return said


def _differs(figure: Estimate) -> bool:
    return figure.low is not None and (figure.low > 0 or figure.high < 0)
