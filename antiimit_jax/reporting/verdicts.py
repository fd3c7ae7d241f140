"""A verdict on each of the study's hypotheses, from rows of metrics.json alone.

Every rule is a region in which an interval must lie: all of it inside is "supported", all outside
"not supported", else "undecided"; F5 is "not testable" where plain requests are not followed
either. A hypothesis of several parts is supported with all of them, and not supported without one.
A figure is read over all training seeds; with fewer than three there is no verdict, but the
figures. Adapters from outside the run count by their names:

    broad*         adapters of the broad arm, one a seed, their names in the order of the seeds (F6;
                   the command is in `configs/full.py`)
    self_trained   trained to predict itself: the positive control of F3
    rule_keyed     trained on words that follow from the seed by a rule: that of F4
"""

import dataclasses
from collections.abc import Sequence

from antiimit_jax.metrics.hypotheses import holm, less, over_seeds, p_above, posterior
from antiimit_jax.metrics.intervals import Estimate
from antiimit_jax.metrics.seed_words import COMPONENTS
from antiimit_jax.reporting.between_models import CLAIMS, RULES
from antiimit_jax.reporting.judging import (
    LEAK_ITEMS,
    NO_DATA,
    NO_TUNED,
    NOT_TESTABLE,
    SELF_TRAINED,
    SUPPORTED,
    Figures,
    Part,
    Place,
    Verdict,
    elsewhere,
    judged,
)
from antiimit_jax.reporting.rows import Rows, number
from antiimit_jax.results import Line, Section, Table

VERDICTS = "verdicts.json"
F5_RUNGS = ("L5", "L6", "L8", "L9", "L10", "L11")
F6_RUNGS = ("L10", "L11")  # trained on by neither arm
_PASS, _GAMMA = (("control", "heldout_both", "all", name) for name in ("pass_05", "gamma"))
_SELF = ("introspection", "self", "task=next_word", "score")
_PRIVILEGE = ("introspection", "disagree", "task=next_word", "privilege")
_SEED = [("seed_words", "test", "all", name) for name in COMPONENTS]
_GAIN, _DEPARTS = (("deviate", "patterns", "all", name) for name in ("gain", "departs"))
_FIRST = "L9, first word"
_F1_PRIOR, _F1_RATE = 0.9, 0.95


def verdicts(rows: Rows) -> list[Verdict]:
    """One for each of the study's hypotheses, in their order."""
    figures = Figures(rows)
    makers = (_near_perfect, _elsewhere, _introspection, _anti_imitation, _arbitrary, _broad)
    return [*_between_models(), *(make(figures) for make in makers)]


def _between_models() -> list[Verdict]:
    how = "a run holds one model: python -m launch.compare --runs=A --runs=B compares several"
    about = dict(verdict=NO_DATA, missing=[how])
    return [Verdict(id=name, claim=CLAIMS[name], rule=RULES[name], **about) for name in CLAIMS]


def _near_perfect(figures: Figures) -> Verdict:
    passes, gamma = figures.tuned_mean(_PASS), figures.tuned_mean(_GAMMA)
    parts = [
        Part("TVD at most .05 on", passes, low=_F1_RATE),
        Part("γ", gamma, low=0.9, high=1.1, digits=2),
    ]
    further = []
    if passes.value is not None:
        n = figures.rows.get(figures.tuned[0], *_PASS)["clusters"]
        how = dict(boundary=_F1_RATE, prior=_F1_PRIOR)
        after = [posterior(passes.value * n, n, **how, least=least) for least in (0.0, 0.5)]
        further.append(
            f"probability {_F1_PRIOR} before, {number(after[0])} after the passes "
            f"({number(after[1])} if rates below .5 are ruled out), a word set counted once"
        )
    return judged(
        figures,
        "F1",
        "fine-tuning leads to near-perfect performance",
        "held-out words and percentages: TVD at most .05 on at least 95% of requests, and γ in "
        "[.9, 1.1]",
        parts,
        further,
    )


def _elsewhere(figures: Figures) -> Verdict:
    parts, needed = elsewhere(figures, figures.tuned)
    return judged(
        figures,
        "F2",
        "tuned models behave normally elsewhere",
        "KL from the base below that of int8 weights per channel, paired, on kinds of text that "
        "the anchor of training lacks; leak slope within ±.02; leak rate below .01 on at least "
        f"{LEAK_ITEMS} items",
        parts,
        needed=needed,
    )


def _introspection(figures: Figures) -> Verdict:
    parts = [
        Part("score less the base's", figures.tuned_mean(_SELF, "diff:{}-base"), low=0.0),
        Part("privilege", figures.tuned_mean(_PRIVILEGE), low=0.0),
    ]
    control = Part(SELF_TRAINED, figures.of(f"diff:{SELF_TRAINED}-base", _SELF), low=0.0)
    return judged(
        figures,
        "F3",
        "tuned models get better at self-prediction and introspection",
        "telling its next word: score above the base's, and privilege above 0 where a second model "
        "does otherwise; an adapter trained on it (self_trained) must gain",
        parts,
        control=control,
    )


def _anti_imitation(figures: Figures) -> Verdict:
    base = figures.lowest("base", _SEED)
    gain = lambda stage: less(figures.lowest(stage, _SEED), base)
    tuned = over_seeds([gain(name) for name in figures.tuned]) if figures.tuned else NO_TUNED
    hazard = figures.tuned_mean(_DEPARTS, "diff:{}-baseline:constant_hazard")
    parts = [
        Part("lowest component of the seed score less the base's", tuned, low=0.0),
        Part("what the request adds to departures, less the base's", figures.gain(_GAIN), low=0.0),
        Part("departures less the constant hazard's", hazard, low=0.0),
    ]
    return judged(
        figures,
        "F4",
        "tuned models score better on anti-imitation",
        "the lowest component of the seed score above the base's lowest; departures on time that "
        "the request adds above the base's, and more of them than one constant hazard gives; an "
        "adapter trained on rule-keyed words (rule_keyed) must gain in the first",
        parts,
        control=Part("rule_keyed", gain("rule_keyed"), low=0.0),
    )


def _ratio(rung: str) -> Place:
    return "ladder", rung, "all", "gamma_ratio"


def _arbitrary(figures: Figures) -> Verdict:
    found = {rung: figures.tuned_mean(_ratio(rung)) for rung in F5_RUNGS}
    found[_FIRST] = figures.tuned_mean(("ladder", "L9", "kind=place 1", "gamma_ratio"))
    parts = [Part(f"{rung}", ratio, low=0.5, digits=2) for rung, ratio in found.items()]
    p = {rung: p_above(e, 0.5) for rung, e in found.items() if e.low is not None}
    passed = holm(p)
    unsure = [part for part in parts if part.verdict == SUPPORTED and part.label not in passed]
    verdict = judged(
        figures,
        "F5",
        "a tuned model can be asked for arbitrary control",
        f"γ of each of {', '.join(F5_RUNGS)} is at least half that of plain requests (Fieller's "
        "lower bound, Holm over the rungs); on L9 also at the first word, before which nothing "
        "stands to copy",
        parts,
        needed=[f"{part.label} does not stand beside the other tests" for part in unsure],
    )
    plain = figures.tuned_mean(("ladder", "L0", "all", "gamma"))
    if plain.low is None or plain.low > 0:
        return verdict
    said = Part("γ of plain requests", plain, digits=2).said
    return dataclasses.replace(verdict, verdict=NOT_TESTABLE, found=[said], missing=())


def _broad(figures: Figures) -> Verdict:
    others = (s.name for s in figures.rows.of_run if s.kind == "other")
    broad = sorted(name for name in others if name.startswith("broad"))
    needed = [] if len(broad) == len(figures.tuned) else ["a broad adapter for each tuned one"]
    parts = []
    for rung in F6_RUNGS:
        differences = [
            less(figures.of(one, _ratio(rung)), figures.of(other, _ratio(rung)))
            for one, other in zip(broad, figures.tuned)
        ]
        missing = Estimate(value=None, note="no broad and narrow adapters beside each other")
        figure = over_seeds(differences) if differences else missing
        parts.append(Part(f"{rung}, broad less narrow", figure, low=0.0, digits=2))
    return judged(
        figures,
        "F6",
        "a broader set of tasks gives better arbitrary control",
        f"γ by that of plain requests on {' and '.join(F6_RUNGS)}, which no arm is trained on: "
        "broad less narrow above 0, seed by seed",
        parts,
        needed=needed if broad else [],
    )


def as_dict(found: Sequence[Verdict]) -> dict[str, object]:
    """The content of verdicts.json."""
    return {"schema": 1, "verdicts": [dataclasses.asdict(verdict) for verdict in found]}


def verdict_section(rows: Rows) -> Section:
    """A line a hypothesis: the verdict, what it stands on, and what is missing."""
    body = [
        Line(
            label=f"{v.id}: {v.claim}",
            cells=[v.verdict, "; ".join(v.found) or "–", v.rule, "; ".join(v.missing) or "–"],
        )
        for v in verdicts(rows)
    ]
    head = ("hypothesis", "verdict", "figures", "rule", "missing")
    return Section(
        "Verdicts on the study's hypotheses",
        [
            "A hypothesis is supported where the intervals of all its figures lie in the region "
            "of its rule, not supported where one lies outside. Fewer than three training seeds "
            "give no verdict; floor says that not even an adapter trained for it gains."
        ],
        tables=[Table(head=head, body=body)],
        link="Verdicts",
    )
