"""The head of the page: what control's figures say, in sentences."""

from antiimit_jax.metrics.resampling import FEW_CLUSTERS
from antiimit_jax.reporting.rows import Rows, figure, number, value_of
from antiimit_jax.results import Row, placebo_beside
from antiimit_jax.suites.control.labels import ALL_SPLITS, SUITE
from antiimit_jax.tasks.user_items import SPLIT as OWN_SPLIT

UNLIKE_TRAINING = {
    "k=2": "two words, plain request",
    "k=3": "three words",
    "k=4": "four words",
    "k=5": "five words",
    "k=6": "six words",
    "k=7": "seven words",
    "k=8": "eight words",
    "k=9": "nine words",
    "k=10": "ten words",
    "k=2,templates=heldout": "two words, phrasings never trained on",
    "k=2,few-shot": "two words, after examples in the prompt",
}
UNIFORM = "baseline:uniform"
DRAWN = {  # drawn beside the stages -> as the headline names it, and in a reading
    UNIFORM: ("a model that ignores the request", "ignoring the request"),
    "baseline:two_level": ("a step function (larger word always 75%)", "a step function"),
}
_BESIDE_SLOPE = {  # metric -> decimals, what it is, and its scale
    "gamma_step": (2, "step", "log-odds that the larger word gets at any percentage; 0 at best"),
    "gamma_corr": (2, "correlation", "1 where all word sets follow alike"),
    "preference_sd": (
        2,
        "preference between words",
        "standard deviation of its log-odds over word sets; 0 at best",
    ),
    "request_gain": (3, "request gain", "TVD that using the request saves; at most 0 without"),
}
_BETTER, _NO_OTHER, _WORSE = "better than", "not told apart from", "worse than"
_THERE = "graded control is there"
_LEVEL = 0.02  # a slope as small as this is level: what rounding leaves of a step is one
_ROUNDING = 1e-9  # of a difference that is none


def place(rows: Rows, split: str = "heldout_words") -> tuple[str, str] | None:
    """(split, slice) of the headline: held-out words, two words; the next best where absent."""
    return next(iter(places(rows, split)), None)


def places(rows: Rows, first: str = "heldout_words") -> dict[tuple[str, str], str]:
    """(split, slice) of every split's headline -> in words: two words; all where there are none.

    Without the splits of too few word sets (`least_sets`).
    """
    stages, found = rows.stages(SUITE), {}
    for name in rows.splits(SUITE, (first, *ALL_SPLITS)):
        there = [w for w in ("k=2", "all") if any(_tvd(rows, s, (name, w)) for s in stages)]
        found |= {(name, where): place_words(rows, name, where) for where in there[:1]}
    least = least_sets(rows, next(iter(found))) if found else 0
    return {here: words for here, words in found.items() if _sets(rows, here) >= least}


def least_sets(rows: Rows, here: tuple[str, str]) -> int:
    """How many word sets a slice needs to be shown in a run with its headline there.

    Where the headline has too few itself, and of a user's own items, each is shown.
    """
    return 0 if few_sets(rows, here) or here[0] not in ALL_SPLITS else FEW_CLUSTERS


def few_sets(rows: Rows, here: tuple[str, str]) -> str:
    """What is to be said of a place with too few word sets for sound intervals; '' elsewhere."""
    few = _sets(rows, here) < FEW_CLUSTERS
    return f"fewer than {FEW_CLUSTERS} word sets, too few for sound intervals" if few else ""


def _sets(rows: Rows, here: tuple[str, str]) -> int:
    """How many word sets the stages were asked there."""
    return max(row["clusters"] for s in rows.stages(SUITE) if (row := _tvd(rows, s, here)))


def place_words(rows: Rows, split: str, where: str) -> str:
    """The split and slice in words; what training did not see, where there was a training."""
    words = {"all": "all numbers of words", "k=2": "two words"}.get(where, where)
    if split == OWN_SPLIT:
        return f"your own items, {words}"
    if all(rows.kind(stage) == "base" for stage in rows.stages(SUITE)):
        return f"{split}, {words}"
    return f"{split} ({ALL_SPLITS.get(split, 'see the settings')}), {words}"


def lead(rows: Rows, here: tuple[str, str], stage: str) -> list[str]:
    """The sentence to take home, then what it means: grading, differences, harder requests."""
    mine = _tvd(rows, stage, here)
    told = {"tuned": "the tuned model", "base": "the model as it is"}
    asked = "two words in stated percentages" if here[1] == "k=2" else "words in stated percentages"
    text = (
        f"Asked for {asked}, {told.get(rows.kind(stage), stage)} puts {figure(mine)} of its "
        "probability in the wrong place (TVD)"
    )
    others = {rows.first(SUITE, "base"): "before tuning", placebo_beside(stage): "the placebo"}
    found = [(words, _tvd(rows, s, here)) for s, words in others.items() if s and s != stage]
    if more := [f"{words} {figure(row)}" for words, row in found if value_of(row) is not None]:
        text += f"; {', '.join(more)}"
    text += f". {_beside(rows, here, stage)}".rstrip(" .")
    return [f"{text}.", *_graded(rows, here, stage), *_paired(rows, here, stage)] + _harder(
        rows, stage
    )


def _beside(rows: Rows, here: tuple[str, str], stage: str) -> str:
    """How a stage compares with lazy answers; where that is not known, what these have."""
    lazy = {other: value_of(_tvd(rows, other, here)) for other in DRAWN}
    lazy = {other: value for other, value in lazy.items() if value is not None}
    words = [beside_lazy(rows, stage, other, here) for other in lazy]
    found = [
        f"{word} {DRAWN[other][0]} ({number(value)})".lstrip()
        for word, (other, value) in zip(words, lazy.items())
    ]
    said = "That is" if all(words) else "For comparison:"
    return f"{said} {' and '.join(found)}" if found else ""


def beside_lazy(rows: Rows, stage: str, other: str, here: tuple[str, str]) -> str:
    """Whether a stage's TVD is better or worse than another's, by the paired difference.

    '' where there is none with an interval.
    """
    paired = rows.get(f"diff:{stage}-{other}", SUITE, *here, "tvd_res")
    return _word(paired, _BETTER, _NO_OTHER, _WORSE) if has_interval(paired) else ""


def graded_word(gamma: Row) -> str:
    """What an interval of the graded slope says; a slope of at most 0.02 counts as none."""
    against, around = "shares run against the request", "graded control is not shown"
    return _word(gamma, against, around, _THERE, near=_LEVEL)


def _tvd(rows: Rows, stage: str, here: tuple[str, str]) -> Row | None:
    return rows.get(stage, SUITE, *here, "tvd_res")


def _graded(rows: Rows, here: tuple[str, str], stage: str) -> list[str]:
    """The graded slope, and in a second sentence what else shows how the request is used."""
    get = lambda metric: rows.get(stage, SUITE, *here, metric)
    gamma = get("gamma")
    if value_of(gamma) is None:
        return []
    word = f"{graded_word(gamma)}: " if has_interval(gamma) else ""
    scale = "1 follows the percentages exactly, 0 ignores them or knows only the larger word"
    found = [f"{word}graded slope γ {figure(gamma, 2)}; {scale}"]
    said = [
        f"{what} {figure(get(metric), digits)} ({meaning})"
        for metric, (digits, what, meaning) in _BESIDE_SLOPE.items()
        if value_of(get(metric)) is not None
    ]
    return [*found, f"beside the slope: {', '.join(said)}"] if said else found


def _paired(rows: Rows, here: tuple[str, str], stage: str) -> list[str]:
    """Where the stage differs from lazy answers and from the placebo, on the same items."""
    others = {name: what for name, (_, what) in DRAWN.items()}
    others[placebo_beside(stage)] = "the placebo adapter"
    found = []
    for other, what in others.items():
        row = rows.get(f"diff:{stage}-{other}", SUITE, *here, "tvd_res")
        if has_interval(row):
            word = _word(row, _BETTER, _NO_OTHER, _WORSE)
            found.append(f"{word} {what}: difference in TVD, item by item, {figure(row)}")
    return found


def _harder(rows: Rows, stage: str, split: str = "heldout_words") -> list[str]:
    """The kinds of request unlike training, worst first, and where ignoring them does no worse."""
    found = {w: _tvd(rows, stage, (split, w)) for w in list(UNLIKE_TRAINING)[1:]}
    counted = {where: row for where, row in found.items() if shown(rows, row)}
    worst = sorted(counted, key=lambda where: -counted[where]["value"])
    listed = [f"{UNLIKE_TRAINING[w]} {harder_words(rows, stage, (split, w))}" for w in worst]
    return [f"harder requests have a TVD of: {'; '.join(listed)}"] if worst else []


def harder_words(rows: Rows, stage: str, here: tuple[str, str]) -> str:
    """A stage's TVD somewhere, and how that compares with ignoring the request."""
    text, word = figure(_tvd(rows, stage, here)), beside_lazy(rows, stage, UNIFORM, here)
    lazy = value_of(_tvd(rows, UNIFORM, here))
    beside = f"{word} ignoring the request, {number(lazy)}".lstrip()
    return text if lazy is None else f"{text} ({beside})"


def shown(rows: Rows, row: Row | None) -> bool:
    """Whether a slice has a value, and as many word sets as `least_sets` asks for."""
    return value_of(row) is not None and row["clusters"] >= least_sets(rows, place(rows))


def has_interval(row: Row | None) -> bool:
    """Whether a row has a value and both ends of its interval."""
    return row is not None and None not in (row["value"], row["ci_low"], row["ci_high"])


def _word(row: Row, below: str, around: str, above: str, near: float = _ROUNDING) -> str:
    """The word for a row whose interval lies below 0, above it, or around it and all near it."""
    if row["ci_high"] < -near:
        return below
    return above if row["ci_low"] > near else around
