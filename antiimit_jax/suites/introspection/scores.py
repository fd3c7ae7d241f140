"""The rows of the suite, from the tables of all stages."""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from antiimit_jax.metrics import introspection as told_of
from antiimit_jax.metrics.introspection import Kind, Told
from antiimit_jax.reporting.judging import SELF_TRAINED
from antiimit_jax.results import stage_named
from antiimit_jax.suites import suite

OWN, NEAR, AGAINST = "own", "near", "against"
SPLITS = {
    "self": "what the model says of itself, all items",
    "disagree": "items where the second model does otherwise",
    "changed": "items where the stage does otherwise than the base",
    "tuned_for": "what the model was tuned for",
}
TASKS = {
    "next_word": "its next word",
    "second_choice": "its second choice",
    "likelier": "which of two words is likelier",
    "own_probability": "how probable a word is",
    "entropy": "sure, torn or open",
    "property": "how its next word is spelled",
    "own_distribution": "its shares of four words",
    "control": "its share of a word if so many percent are asked",
    "token_count": "how many tokens a text has",
    "rule": "which of two rules it goes by",
    "deviation": "where it leaves a pattern",
}
_KINDS: dict[str, Kind] = dict.fromkeys(TASKS, "choice") | {
    "own_probability": "number",
    "entropy": "bucket",
    "own_distribution": "distribution",
    "control": "number",
    "token_count": "number",
}
_MEANS = {"choice": "accuracy", "bucket": "accuracy", "number": "mae", "distribution": "tvd"}
_BUCKETS = 3
_NO_LEARNER = "needs scikit-learn: pip install 'antiimit_jax[study]'"
Of = Mapping[str, Told]  # task -> what one model told


def rows_of(table: suite.Columns, boot: suite.Bootstrap) -> list[suite.Row]:
    """Every figure of every stage."""
    tuned_for = table["task"] == "tuned_for"
    told = {
        (stage, model): _told(part)
        for stage, model, part in suite.parts(suite.taken(table, ~tuned_for), "stage", "model")
    }
    rows = []
    for (stage, model), of in told.items():
        others = {"near": _near(told, stage), "other": told.get(("base", AGAINST))}
        name = stage if model == OWN else f"baseline:{model}"
        for task, own in of.items():
            place = dict(stage=name, suite="introspection", slice=f"task={task}")
            if model != OWN:
                columns = {"own": own.loss(own.said), "reference": own.reference}
                at = dict(place, split="self")
                rows += suite.rows_at(at, [told_of.SCORE], columns, own.cluster, boot)
                continue
            beside = {who: theirs[task] for who, theirs in others.items() if theirs}
            beside = {who: theirs for who, theirs in beside.items() if _same_items(own, theirs)}
            rows += _of_task(own, beside, place, boot)
            base = told.get(("base", OWN), {}).get(task)
            if base and stage != "base" and _same_items(own, base):
                rows += _since_base(own, base, place, boot)
    for stage, model, part in suite.parts(suite.taken(table, tuned_for), "stage", "model"):
        if model == OWN:
            right = {"right": np.array([shares[0] for shares in part["shares"]])}
            place = dict(stage=stage, suite="introspection", split="tuned_for", slice="all")
            statistic = suite.mean("tuned_for", "right")
            rows += suite.rows_at(place, [statistic], right, part["cluster"], boot)
    return rows


def _told(table: suite.Columns) -> dict[str, Told]:
    found = {}
    for task, part in suite.parts(table, "task"):
        text = [
            f"{text} {group} {' '.join(options)}"
            for text, group, options in zip(part["text"], part["group"], part["options"])
        ]
        names = ("item", "cluster", "group", "thumb", "options", "value")
        arrays = {n: [np.array(v, float) for v in part[n]] for n in ("shares", "direct")}
        columns = {name: part[name] for name in names} | arrays
        found[task] = Told(kind=_KINDS[task], text=np.array(text), **columns)
        if task == "own_probability":
            found["own_distribution"] = _distribution(found[task], part["text"])
    return found


def _distribution(each: Told, text: np.ndarray) -> Told:
    """The shares of four words from what is said of each, brought to a sum of 1."""
    names, first = np.unique(text, return_index=True)
    members = [np.flatnonzero(text == name) for name in names[np.argsort(first)]]
    said, words = each.said, [name.rpartition("/")[2] for name in each.item]
    at = np.array([inside[0] for inside in members])
    sums = [said[inside].sum() for inside in members]
    return Told(
        kind="distribution",
        item=each.item[at],
        cluster=each.cluster[at],
        group=np.array([group.partition("/")[0] for group in each.group[at]]),
        text=text[at],
        thumb=np.full(len(at), np.nan),
        options=[[words[i] for i in inside] for inside in members],
        shares=[
            said[inside] / total if total > 0 else np.full(len(inside), 1 / len(inside))
            for inside, total in zip(members, sums)
        ],
        direct=[each.value[inside] / 100 for inside in members],
        value=np.full(len(at), np.nan),
    )


def _same_items(own: Told, theirs: Told | None) -> bool:
    return theirs is not None and list(own.item) == list(theirs.item)


def _near(told: Mapping[tuple[str, str], Of], stage: str) -> Of | None:
    """Of an adapter that of another seed, else the base; of the base the rounded weights."""
    this = stage_named(stage)
    if this.kind == "base":
        return told.get(("base", NEAR))
    for other, model in told:
        if this.trained and model == OWN and other != stage:
            if stage_named(other).kind == this.kind:
                return told[other, OWN]
    return told.get(("base", OWN))


def _of_task(
    own: Told, beside: Mapping[str, Told], place: Mapping[str, str], boot: suite.Bootstrap
) -> list[suite.Row]:
    """The figures of one model on one task, on all items and where the second does otherwise."""
    said = own.loss(own.said)
    columns = {"own": said, "reference": own.reference, "mode": own.loss(own.heuristic)}
    statistics = [told_of.SCORE, told_of.MODE]
    learned, note = _input_only(own)
    if learned is not None:
        columns["input_only"] = own.loss(learned)
        statistics.append(told_of.over("input_only"))
    if "near" in beside:
        columns["near_identical"] = own.loss(beside["near"].said)
        statistics.append(told_of.over("near_identical"))
    masks = {"self": np.ones(len(said), bool)}
    if other := beside.get("other"):
        columns |= {
            "other_direct": own.loss(other.truth),
            "other": own.loss(other.said),
            "their_own": other.loss(other.said),
            "of_theirs": other.loss(own.said),
            "their_reference": other.reference,
        }
        trained = "_trained" if place["stage"] == SELF_TRAINED else ""
        privilege = dataclasses.replace(told_of.PRIVILEGE, name=f"privilege{trained}")
        statistics += [told_of.over("other_direct"), privilege]
        masks["disagree"] = own.differs(other)
    rows = []
    for split, mask in masks.items():
        if mask.any():
            part = {name: values[mask] for name, values in columns.items()}
            at = dict(place, split=split)
            rows += suite.rows_at(at, statistics, part, own.cluster[mask], boot)
            if note:
                rows.append(_absent(at, "over_input_only", note, own.cluster[mask]))
    return rows + _further(own, said, dict(place, split="self"), boot)


def _input_only(own: Told) -> tuple[np.ndarray | None, str]:
    try:
        return told_of.input_only(own), ""
    except ImportError:
        return None, _NO_LEARNER


def _absent(place: Mapping[str, str], metric: str, note: str, cluster: np.ndarray) -> suite.Row:
    missing = suite.Estimate(value=None, note=note)
    at = dict(place, metric=metric)
    return suite.row_of(missing, at, len(cluster), len(np.unique(cluster)))


def _further(
    own: Told, said: np.ndarray, place: Mapping[str, str], boot: suite.Bootstrap
) -> list[suite.Row]:
    """The mean loss by its name, and what a task has of its own."""
    task, name = place["slice"].partition("=")[2], _MEANS[own.kind]
    columns = {name: 1 - said if name == "accuracy" else said}
    statistics = [suite.mean(name, name, kind="proportion" if name == "accuracy" else "smooth")]
    if task == "own_probability":
        columns |= told_of.rank_columns(own) | {"brier": told_of.brier(own)}
        statistics += [told_of.SPEARMAN, suite.mean("brier", "brier")]
    elif task == "likelier":
        columns |= told_of.auc_columns(own)
        statistics.append(told_of.AUC)
    elif task == "entropy":
        columns |= told_of.f1_columns(own, _BUCKETS)
        statistics.append(told_of.macro_f1(_BUCKETS))
    elif task == "deviation":
        columns["position_error"] = abs(own.said - own.truth).astype(float)
        statistics.append(suite.mean("position_error", "position_error"))
    return suite.rows_at(place, statistics, columns, own.cluster, boot)


def _since_base(
    own: Told, base: Told, place: Mapping[str, str], boot: suite.Bootstrap
) -> Iterator[suite.Row]:
    """The paired change of the score; where the stage does otherwise, which of the two it tells."""
    before = {"before": base.loss(base.said), "reference_before": base.reference}
    columns = {"own": own.loss(own.said), "reference": own.reference} | before
    change = dataclasses.replace(
        told_of.SCORE,
        columns=("own", "reference", "before", "reference_before"),
        finish=lambda *sums: told_of.SCORE.finish(*sums[:2]) - told_of.SCORE.finish(*sums[2:]),
    )
    paired = dict(place, stage=f"diff:{place['stage']}-base", split="self")
    yield from suite.rows_at(paired, [change], columns, own.cluster, boot)
    changed = own.differs(base)
    if own.kind in ("choice", "bucket") and changed.any():
        told = {"follows": own.said == own.truth, "lags": own.said == base.truth}
        columns = {name: values[changed].astype(float) for name, values in told.items()}
        statistics = [suite.mean(name, name, kind="proportion") for name in told]
        at = dict(place, split="changed")
        yield from suite.rows_at(at, statistics, columns, own.cluster[changed], boot)
