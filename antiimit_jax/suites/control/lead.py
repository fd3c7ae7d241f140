"""The head of the page: what control's figures say, in sentences."""

from antiimit_jax.metrics.resampling import FEW_CLUSTERS
from antiimit_jax.reporting.rows import Rows, figure, number, value_of
from antiimit_jax.results import Row, placebo_beside
from antiimit_jax.suites.control.labels import ALL_SPLITS, SUITE

UNLIKE_TRAINING = {
    "k=2": "two words, plain request",
    "k=3": "three words",
    "k=4": "four words",
    "k=5": "five words",
    "k=2,templates=heldout": "two words, phrasings never trained on",
    "k=2,few-shot": "two words, after examples in the prompt",
}
UNIFORM = "baseline:uniform"
DRAWN = {  # drawn beside the stages -> as the headline names it, and in a reading
    UNIFORM: ("a model that ignores the request would score", "ignoring the request"),
    "baseline:two_level": ("a step function (larger word always 75%)", "a step function"),
}
_THERE = "graded control is there"


def place(rows: Rows, split: str = "heldout_words") -> tuple[str, str] | None:
    """(split, slice) of the headline: held-out words, two words; the next best where absent."""
    stages = rows.stages(SUITE)
    for name in (split, *rows.splits(SUITE, ALL_SPLITS)):
        for where in ("k=2", "all"):
            if any(rows.get(s, SUITE, name, where, "tvd_res") for s in stages):
                return name, where
    return None


def place_words(split: str, where: str) -> str:
    """The split and slice in words."""
    words = {"all": "all numbers of words", "k=2": "two words"}.get(where, where)
    return f"{split} ({ALL_SPLITS.get(split, 'see the settings')}), {words}"


def lead(rows: Rows, here: tuple[str, str], stage: str) -> list[str]:
    """The sentence to take home, then what it means: grading, differences, harder requests."""
    found = {s: rows.get(s, SUITE, *here, "tvd_res") for s in (*rows.stages(SUITE), *DRAWN)}
    tvd = {s: row for s, row in found.items() if value_of(row) is not None}
    mine, base, placebo = tvd.get(stage), rows.first(SUITE, "base"), rows.first(SUITE, "placebo")
    told = {"tuned": "the tuned model", "base": "the model before tuning"}
    asked = "two words in stated percentages" if here[1] == "k=2" else "words in stated percentages"
    text = (
        f"Asked for {asked}, {told.get(rows.kind(stage), stage)} puts {figure(mine)} of its "
        "probability in the wrong place (TVD)"
    )
    others = {base: "before tuning it was", placebo: "the placebo adapter's is"}
    more = [f"{others[s]} {figure(tvd[s])}" for s in others if s in tvd and s != stage]
    text += "; " + ", ".join(more) + "." if more else "."
    lazy = [f"{words} {number(tvd[b]['value'])}" for b, (words, _) in DRAWN.items() if b in tvd]
    text += " For comparison, " + ", ".join(lazy) + "." if lazy else ""
    return [text, *_graded(rows, here, stage), *_paired(rows, here, stage), *_harder(rows, stage)]


def _graded(rows: Rows, here: tuple[str, str], stage: str) -> list[str]:
    gamma = rows.get(stage, SUITE, *here, "gamma")
    if not has_interval(gamma):
        return []
    word = _word(gamma, 0, "shares run against the request", "graded control is not shown", _THERE)
    scale = "1 follows the percentages exactly, 0 ignores them or knows only the larger word"
    return [f"{word}: graded slope γ {figure(gamma, 2)}; {scale}"]


def _paired(rows: Rows, here: tuple[str, str], stage: str) -> list[str]:
    """Where the stage differs from lazy answers and from the placebo, on the same items."""
    others = {name: what for name, (_, what) in DRAWN.items()}
    others[placebo_beside(stage)] = "the placebo adapter"
    found = []
    for other, what in others.items():
        row = rows.get(f"diff:{stage}-{other}", SUITE, *here, "tvd_res")
        if has_interval(row):
            word = _word(row, 0, "better than", "not told apart from", "worse than")
            found.append(f"{word} {what}: difference in TVD, item by item, {figure(row)}")
    return found


def _harder(rows: Rows, stage: str, split: str = "heldout_words") -> list[str]:
    """The kinds of request with the highest TVD."""
    found = {w: rows.get(stage, SUITE, split, w, "tvd_res") for w in list(UNLIKE_TRAINING)[1:]}
    counted = {where: row for where, row in found.items() if shown(rows, row)}
    worst = sorted(counted, key=lambda where: -counted[where]["value"])[:3]
    listed = ", ".join(f"{UNLIKE_TRAINING[where]} {figure(counted[where])}" for where in worst)
    return [f"harder requests have a TVD of: {listed}"] if worst else []


def shown(rows: Rows, row: Row | None) -> bool:
    """Whether a slice has enough word sets; in a run that has too few at all, each is shown."""
    here = place(rows)
    of_run = max(rows.get(s, SUITE, *here, "tvd_res")["clusters"] for s in rows.stages(SUITE))
    least = FEW_CLUSTERS if of_run >= FEW_CLUSTERS else 0
    return value_of(row) is not None and row["clusters"] >= least


def has_interval(row: Row | None) -> bool:
    return row is not None and None not in (row["value"], row["ci_low"], row["ci_high"])


def _word(row: Row, value: float, below: str, around: str, above: str) -> str:
    """The word for a row whose interval lies below, around or above the value."""
    return below if row["ci_high"] < value else above if row["ci_low"] > value else around
