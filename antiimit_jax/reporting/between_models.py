"""Verdicts on what one run cannot tell: E1, of sizes within families, and E2, of pairs.

Figures are those of the models as they are, on two-word plain requests of the same items.
"""

import dataclasses
from collections.abc import Sequence

from antiimit_jax.metrics.between_models import METRICS, compared
from antiimit_jax.metrics.hypotheses import posterior_above
from antiimit_jax.metrics.intervals import Estimate
from antiimit_jax.metrics.resampling import LEAST_CLUSTERS, Bootstrap
from antiimit_jax.reporting.compared_models import (
    LABELS,
    Compared,
    Model,
    differences_of,
    slopes_of,
)
from antiimit_jax.reporting.judging import NO_DATA, Part, Verdict, outcome
from antiimit_jax.reporting.needed_runs import FORMATS, Ask, not_asked, other_sizes
from antiimit_jax.reporting.rows import number

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
    slopes, pairs = slopes_of(models, boot), differences_of(models, boot)
    steep = [
        f"γ of {name} in {style} format is above 1, where more is not better"
        for (name, style), figures in own.items()
        if (figures["gamma"].low or 0) > 1
    ]
    verdicts = [_larger(models, slopes, steep, ask), _base(models, pairs, steep, ask)]
    found = [*slopes, *pairs]
    return Comparison(
        models=models, own=own, found=found, verdicts=verdicts, readings=_readings(pairs)
    )


def _larger(
    models: Sequence[Model], found: Sequence[Compared], steep: Sequence[str], ask: Ask
) -> Verdict:
    """E1; `steep` are reasons why more γ may not be better."""
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
    said = [*(part.said for part in parts), *further]
    return _verdict("E1", outcome(parts, steep), names, said, steep)


def _base(
    models: Sequence[Model], found: Sequence[Compared], steep: Sequence[str], ask: Ask
) -> Verdict:
    """E2; `steep` as in E1."""
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
    needed += steep
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
    if figure.low is None or figure.low == figure.high:
        return []
    after, *others = (
        posterior_above(figure, least, prior=prior, n=n, scale=scale) for scale in _SCALES
    )
    ends = [number(end, 2) for end in (min(others), max(others))]
    spread = f"{' to '.join(ends)} with half or twice the spread"
    return [f"probability {prior} before, {number(after, 2)} after {words} ({spread})"]


def _word_sets(models: Sequence[Model]) -> int:
    return len(set(models[0].answers.cluster.tolist()))


def _readings(pairs: Sequence[Compared]) -> list[str]:
    """Of which kind the difference in each format is: of mass, of shares."""
    over = {(one.format, one.metric): one.figure for one in pairs if not one.unit}
    said = []
    for style in dict.fromkeys(style for style, _ in over):
        differs = {name: _differs(over[style, name]) for name in ("mass", "tvd_cond")}
        if over[style, "tvd_cond"].value is None:
            said.append(f"in {style} format the shares cannot be read: one gives the words no mass")
            continue
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
