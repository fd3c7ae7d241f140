"""Which of the study's questions control answers, and what came out."""

from antiimit_jax.reporting.rows import Rows, figure, value_of
from antiimit_jax.results import Question, placebo_beside
from antiimit_jax.suites.control.labels import SPLITS, SUITE
from antiimit_jax.suites.control.lead import (
    UNIFORM,
    UNLIKE_TRAINING,
    beside_lazy,
    graded_word,
    harder_words,
    has_interval,
    place,
    places,
    shown,
)

Here = tuple[str, str]


def questions(rows: Rows) -> list[Question]:
    """The base's control; what tuning adds; how far that carries. Only what was measured."""
    here, stage = place(rows), rows.subject(SUITE)
    base = rows.first(SUITE, "base")
    if here is None:
        return []
    found = []
    if base:
        found.append(
            Question(
                asked="Can the model as it is control its distribution?",
                by="TVD, mass and γ of the base",
                found=_main(rows, base, here),
                beyond="other models; instructions longer than one request",
            )
        )
    if rows.kind(stage) == "base":
        return found
    found += [
        Question(
            asked="Can tuning teach graded control?",
            by="γ and request gain of the tuned model, less those of the placebo and the base",
            found=[*_main(rows, stage, here), *_gains(rows, stage, base, here)],
            beyond="other recipes, more steps, a larger model",
        ),
        Question(
            asked="Does it carry over to what training did not hold?",
            by="TVD beside that of ignoring the same requests",
            found=_carried(rows, stage),
            beyond="other languages, words chosen by the model, longer answers",
        ),
    ]
    return [question for question in found if question.found]


def _main(rows: Rows, stage: str, here: Here) -> list[str]:
    tvd, mass, gamma = (rows.get(stage, SUITE, *here, m) for m in ("tvd_res", "mass", "gamma"))
    word = beside_lazy(rows, stage, UNIFORM, here)
    said = [f"TVD {figure(tvd)}" + (f", {word} ignoring the request" if word else "")]
    said.append(f"mass {figure(mass)}")
    if value_of(gamma) is not None:
        verdict = f": {graded_word(gamma)}" if has_interval(gamma) else ""
        said.append(f"γ {figure(gamma, 2)}{verdict}")
    return said


def _gains(rows: Rows, stage: str, base: str | None, here: Here) -> list[str]:
    """Request gain, and what of γ and of it is more than the placebo's and the base's."""
    gain = rows.get(stage, SUITE, *here, "request_gain")
    said = [f"request gain {figure(gain)}"] if value_of(gain) is not None else []
    for other, words in ((placebo_beside(stage), "the placebo"), (base, "the base")):
        pair = f"diff:{stage}-{other}"
        more = [
            f"{label} {figure(row, digits)}"
            for metric, label, digits in (("gamma", "γ", 2), ("request_gain", "request gain", 3))
            if value_of(row := rows.get(pair, SUITE, *here, metric)) is not None
        ]
        said += [f"less {words}: {', '.join(more)}"] if more else []
    return said


def _carried(rows: Rows, stage: str) -> list[str]:
    """A line a split and a kind of request that training did not hold."""
    said = [
        f"{SPLITS[split]}: {harder_words(rows, stage, (split, where))}"
        for split, where in places(rows)
        if split in SPLITS and value_of(rows.get(stage, SUITE, split, where, "tvd_res")) is not None
    ]
    for where in list(UNLIKE_TRAINING)[1:]:
        if shown(rows, rows.get(stage, SUITE, "heldout_words", where, "tvd_res")):
            words = harder_words(rows, stage, ("heldout_words", where))
            said.append(f"{UNLIKE_TRAINING[where]}: {words}")
    return said
