"""Judging a hypothesis: figures over training seeds, the regions they must lie in, a verdict."""

import dataclasses
import math
from collections.abc import Sequence

from antiimit_jax.metrics.hypotheses import less, over_seeds
from antiimit_jax.metrics.intervals import Estimate
from antiimit_jax.metrics.rows import estimate_of
from antiimit_jax.reporting.rows import Rows, number

SUPPORTED, NOT_SUPPORTED, UNDECIDED = "supported", "not supported", "undecided"
NO_DATA, FLOOR, NOT_TESTABLE = "no data", "floor", "not testable"
LEAST_SEEDS = 3  # of training, that a verdict needs
RULER = "ruler:int8_channel"  # below whose drift a tuned model's is to be
LEAK_SLOPE, LEAK_RATE, LEAK_ITEMS = 0.02, 0.01, 400  # within, below, on so many items or more
SELF_TRAINED = "self_trained"  # the adapter that is trained to predict itself
NO_TUNED = Estimate(value=None, note="the run has no tuned adapter")
Place = tuple[str, str, str, str]  # suite, split, slice, metric
KL_PLACE = ("drift", "neutral", "anchor=lacks", "kl_base_tuned")
_LEAK_SLOPE, _LEAK_RATE = (
    ("leak", "leak_mention", "all", name) for name in ("leak_slope", "leak_rate")
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a run says of one hypothesis."""

    id: str
    claim: str
    rule: str
    verdict: str
    found: Sequence[str] = ()  # figures with their intervals
    missing: Sequence[str] = ()  # what would be needed besides


@dataclasses.dataclass(frozen=True)
class Part:
    """A figure, the region it must lie in, and how it is called."""

    label: str
    figure: Estimate
    low: float = -math.inf
    high: float = math.inf
    digits: int = 3

    @property
    def verdict(self) -> str:
        """What the interval says of the region."""
        figure = self.figure
        if figure.value is None:
            return NO_DATA
        if figure.low is None or figure.high is None:
            return UNDECIDED
        if self.low < figure.low and figure.high < self.high:
            return SUPPORTED
        outside = figure.high <= self.low or figure.low >= self.high
        return NOT_SUPPORTED if outside else UNDECIDED

    @property
    def said(self) -> str:
        """The figure for people."""
        figure, digits = self.figure, self.digits
        text = f"{self.label} {number(figure.value, digits)}"
        if figure.low is None or figure.high is None:
            return text
        return f"{text} [{number(figure.low, digits)}, {number(figure.high, digits)}]"


class Figures:
    """Figures of a run's tuned adapters."""

    def __init__(self, rows: Rows) -> None:
        """`tuned` names the run's own tuned stages, by seed."""
        self.rows = rows
        tuned = [stage for stage in rows.of_run if stage.kind == "tuned"]
        self.tuned = [s.name for s in sorted(tuned, key=lambda s: s.adapter_seed or 0)]

    def of(self, stage: str, place: Place) -> Estimate:
        """A stage's figure; without a value where there is none."""
        row = self.rows.get(stage, *place)
        if row is None:
            return Estimate(value=None, note=f"{place[0]} has no {place[3]} of {stage}")
        return estimate_of(row)

    def tuned_mean(self, place: Place, stage: str = "{}") -> Estimate:
        """Over the tuned stages; `stage` says which row of each, as "diff:{}-base"."""
        return self.mean(self.tuned, place, stage)

    def mean(self, stages: Sequence[str], place: Place, stage: str = "{}") -> Estimate:
        """Over stages that differ in their training seed."""
        if not stages:
            return NO_TUNED
        return over_seeds([self.of(stage.format(name), place) for name in stages])

    def gain(self, place: Place) -> Estimate:
        """What the tuned adapters add to the base."""
        if not self.tuned:
            return NO_TUNED
        base = self.of("base", place)
        return over_seeds([less(self.of(name, place), base) for name in self.tuned])

    def lowest(self, stage: str, places: Sequence[Place]) -> Estimate:
        """The least of a stage's figures at some places; without a value where one lacks it."""
        found = [self.of(stage, place) for place in places]
        missing = [one for one in found if one.value is None]
        return missing[0] if missing else min(found, key=lambda one: one.value)


def elsewhere(figures: Figures, stages: Sequence[str]) -> tuple[list[Part], list[str]]:
    """The rule for a model that behaves normally elsewhere: drift, leak slope, leak rate.

    Last, why the rule cannot hold yet although all its parts do.
    """
    rate = figures.mean(stages, _LEAK_RATE)
    parts = [
        Part("KL less the ruler's", figures.mean(stages, KL_PLACE, f"diff:{{}}-{RULER}"), high=0.0),
        Part("leak slope", figures.mean(stages, _LEAK_SLOPE), low=-LEAK_SLOPE, high=LEAK_SLOPE),
        Part("leak rate", rate, high=LEAK_RATE),
    ]
    counts = [row["n"] for name in stages if (row := figures.rows.get(name, *_LEAK_RATE))]
    few = counts and min(counts) < LEAK_ITEMS
    return parts, [f"leak rate on {min(counts)} items, {LEAK_ITEMS} needed"] if few else []


def outcome(parts: Sequence[Part], needed: Sequence[str] = ()) -> str:
    """What all parts say together; `needed` are reasons why what looks supported is not yet."""
    said = {part.verdict for part in parts}
    for first in (NOT_SUPPORTED, NO_DATA):
        if first in said:
            return first
    return SUPPORTED if said == {SUPPORTED} and not needed else UNDECIDED


def judged(
    figures: Figures,
    name: str,
    claim: str,
    rule: str,
    parts: Sequence[Part],
    further: Sequence[str] = (),
    needed: Sequence[str] = (),
    control: Part | None = None,
) -> Verdict:
    """The verdict of all parts; `needed` are reasons why what looks supported is not yet."""
    every = [*parts, *([control] if control else [])]
    there = [part for part in every if part.verdict != NO_DATA]
    notes = [part.figure.note for part in every if part.verdict == NO_DATA]
    said = {part.verdict for part in parts}
    if said == {NO_DATA}:
        verdict = NO_DATA
    elif control and control.verdict == NO_DATA:
        verdict = NO_DATA
    elif control and control.figure.low is not None and control.verdict != SUPPORTED:
        verdict = FLOOR
    else:
        verdict = outcome(every, needed)
    if verdict not in (NO_DATA, FLOOR) and (few := len(figures.tuned)) < LEAST_SEEDS:
        verdict = f"{'one seed' if few == 1 else 'two seeds'}: no verdict"
    missing = [note or "not in this run" for note in notes] + list(needed)
    return Verdict(
        id=name,
        claim=claim,
        rule=rule,
        verdict=verdict,
        found=[*(part.said for part in there), *further],
        missing=list(dict.fromkeys(missing)),
    )
