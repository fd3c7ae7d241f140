"""What the page shows of the suite."""

from collections.abc import Collection, Sequence

from antiimit_jax.metrics.hypotheses import holm, p_above
from antiimit_jax.reporting.judging import SELF_TRAINED
from antiimit_jax.reporting.rows import figure, value_of
from antiimit_jax.reporting.tables import figure_table, slice_table
from antiimit_jax.suites import suite
from antiimit_jax.suites.introspection.scores import SPLITS, TASKS

_SUITE, PRIMARY = "introspection", "task=next_word"
_BASELINES = {
    "baseline:near": "the base with rounded weights",
    "baseline:against": "the second model, of itself",
}


def page_of(rows: suite.Rows, figures: Sequence[suite.Figure]) -> suite.Section:
    """Scores by task, what else explains them, and what was tuned for."""
    title = "Does the model know what it does itself?"
    stages = {stage: stage for stage in rows.stages(_SUITE)}
    if not stages:
        return suite.Section(title, absent=["Nothing was asked about the model itself."])
    by_name = {f.name: f for f in figures}
    tasks = {f"task={task}": label for task, label in TASKS.items()}
    where = (_SUITE, "self")
    shown = [slice_table(rows, where, by_name["score"], tasks, stages | _BASELINES)]
    beside = [f for f in figures if f.name in ("score", "mode") or f.name.startswith("over_")]
    for split in ("self", "disagree"):
        if any(row["suite"] == _SUITE and row["split"] == split for row in rows.all):
            more = [f for f in figures if f.name.startswith("privilege") and split == "disagree"]
            place, label = (_SUITE, split, PRIMARY), f"Its next word: {SPLITS[split]}"
            shown.append(figure_table(rows, place, beside + more, stages, label))
    tracked = [by_name["follows"], by_name["lags"]]
    shown.append(figure_table(rows, (_SUITE, "changed", PRIMARY), tracked, stages))
    asked = [by_name["tuned_for"]]
    shown.append(figure_table(rows, (_SUITE, "tuned_for", "all"), asked, stages))
    return suite.Section(
        title,
        [
            "The model is asked about itself, and its answers are compared with what it does. A "
            "score of 0 is what guessing at the usual frequencies gives, 1 is full knowledge. Only "
            "what nobody else could tell, who does not look inside, is knowledge of oneself: the "
            "other columns say how far above others a score is."
        ],
        tables=[table for table in shown if table.body],
        readings=[*said_of(rows), *_together(rows)],
        explained=figures,
        link="Introspection",
    )


def said_of(rows: suite.Rows) -> list[str]:
    """What came of the next word, and whether tuning moved it.

    Without an adapter trained on such questions that raised its own score, a change that is not
    seen may be one that this suite cannot show: *floor*.
    """
    stage = rows.subject(_SUITE)
    row = stage and rows.get(stage, _SUITE, "self", PRIMARY, "score")
    if value_of(row) is None:
        return []
    found = [f"{stage} knows its next word with a score of {figure(row)}"]
    if change := rows.get(f"diff:{stage}-base", _SUITE, "self", PRIMARY, "score"):
        found.append(f"{figure(change)} more than the base: {_verdict(rows, stage, change)}")
    return ["; ".join(found)]


def _together(rows: suite.Rows) -> list[str]:
    """What stands of all tasks' scores, and of their changes, if every task is a test (Holm)."""
    stage = rows.subject(_SUITE)
    families = {stage: f"{stage} scores above 0", f"diff:{stage}-base": "it scores above the base"}
    found = []
    for name, claim in families.items() if stage else ():
        every = {task: rows.get(name, _SUITE, "self", f"task={task}", "score") for task in TASKS}
        tested = {
            task: suite.estimate_of(row)
            for task, row in every.items()
            if row and row["ci_low"] is not None
        }
        if len(tested) > 1:
            passed = holm({task: p_above(estimate, 0.0) for task, estimate in tested.items()})
            alone = {task for task, estimate in tested.items() if estimate.low > 0} - passed
            said = f"{claim} in {len(passed)} of {len(tested)} tasks that are tested together "
            said += "(Holm's method, which allows for many tests)" + _named(passed, ": ")
            found.append(said + _named(alone, "; by its own interval alone also in: "))
    return found


def _named(tasks: Collection[str], before: str) -> str:
    return before + ", ".join(TASKS[task] for task in TASKS if task in tasks) if tasks else ""


def _verdict(rows: suite.Rows, stage: str, change: suite.Row) -> str:
    if change["ci_low"] is None:
        return "no interval, no verdict"
    if change["ci_low"] > 0:
        return "tuning raised it"
    positive = rows.get(f"diff:{SELF_TRAINED}-base", _SUITE, "self", PRIMARY, "score")
    if stage == SELF_TRAINED or positive and (positive["ci_low"] or 0) > 0:
        return "tuning did not clearly raise it"
    if positive is None:
        return (
            f"floor, since no adapter {SELF_TRAINED}, trained on such questions, stands beside it"
        )
    return f"floor, since no adapter {SELF_TRAINED} trained on such questions raised it either"
