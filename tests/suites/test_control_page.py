"""What the page says of control, from rows made by hand and from answers made by rule."""

from __future__ import annotations

import itertools

import numpy as np

from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.metrics.rows import control_rows
from antiimit_jax.reporting.rows import Rows, figure, number
from antiimit_jax.reporting.summary import text_table
from antiimit_jax.results import Section, make_row
from antiimit_jax.suites import control
from antiimit_jax.suites.control.lead import UNIFORM, graded_word
from tests.metrics.test_control import results_of

SHARES = (0.35, 0.1)  # of the first word by name, two distances a set
HERE = ("heldout_words", "k=2")


def word_sets(count: int = 20):
    """Items of two words in both orders and both assignments of two distances, and their sets."""
    p = np.tile([share for s in SHARES for share in (s, 1 - s)], 2)  # of the first-named word
    target = np.tile(np.stack([p, 1 - p], 1), (count, 1))
    cluster = np.repeat(np.arange(count), len(p))
    named = np.repeat([[0, 1], [1, 0]], len(p) // 2, axis=0)
    word = 2 * cluster[:, None] + np.tile(named, (count, 1))
    return results_of(target, target, word=word, k=np.full(len(target), 2), cluster=cluster)


def rows_of(results, stage: str = "tuned", where: str = "k=2") -> list[dict]:
    slices = {where: np.ones(len(results.k), bool)}
    how = dict(stage=stage, split="heldout_words", slices=slices, boot=Bootstrap(n_boot=100))
    return control_rows(results, **how)


def figure_of(rows: list[dict], metric: str) -> dict:
    (row,) = [row for row in rows if row["metric"] == metric]
    return row


def row(value: float, low: float | None, high: float | None, **place) -> dict:
    """A row of the tuned model's TVD at HERE, unless `place` says otherwise."""
    known = dict(zip(("split", "slice"), HERE), stage="tuned", suite="control", metric="tvd_res")
    known |= dict(n=160, clusters=40)
    return make_row(value=value, ci_low=low, ci_high=high, **(known | place))


def text_of(section: Section) -> str:
    """All that a section says and tabulates."""
    cell = lambda given: given if isinstance(given, str) else f"{given.text} {given.small}"
    lines = [*section.lead, *section.sentences]
    for table in section.tables:
        lines += [table.title, *table.notes]
        lines += [" ".join([of.label, *map(cell, of.cells)]) for of in table.body]
    return "\n".join([*lines, *map(text_of, section.parts)])


def test_what_has_fewer_than_twenty_word_sets_is_left_out_where_the_headline_has_more():
    few = row(0.345, 0.3, 0.4, slice="k=3", clusters=19)
    enough = row(0.456, 0.4, 0.5, slice="k=4", clusters=20)
    other = row(0.678, 0.6, 0.7, split="train", clusters=19)
    rows = Rows([row(0.2, 0.1, 0.3), row(0.1, 0.1, 0.1, stage=UNIFORM), few, enough, other])
    page, said = text_of(control.section({}, rows)), str(control.questions(rows))
    for text in (page, said):
        assert "0.456" in text and "0.345" not in text and "0.678" not in text
    assert "Slices of fewer than 20 word sets are in metrics.json alone." in page
    assert "too few for sound intervals" not in page + control.headline(rows).title


def test_a_run_of_fewer_than_twenty_word_sets_is_shown_and_called_too_small():
    rows = Rows([row(0.2, 0.1, 0.3, clusters=19), row(0.345, 0.3, 0.4, slice="k=3", clusters=6)])
    page, told = text_of(control.section({}, rows)), "fewer than 20 word sets, too few for sound"
    assert told in page.partition("\n")[2].partition("\n")[0] and "0.345" in page
    assert told in control.headline(rows).title and "metrics.json alone" not in page


def test_the_first_screen_names_all_figures_of_grading_with_intervals():
    items, rng = word_sets(), np.random.default_rng(0)
    liked = np.repeat(rng.normal(size=20), 8)[:, None] * np.where(items.word % 2, 1, -1)
    q = np.exp(0.8 * np.log(items.target) + liked + rng.normal(0, 0.1, items.target.shape))
    made = rows_of(items.with_q(0.9 * q / q.sum(1, keepdims=True)))
    said = "\n".join(control.section({}, Rows(made)).lead)
    for metric, digits in dict(gamma=2, gamma_step=2, gamma_corr=2, preference_sd=2).items():
        assert f" {figure(figure_of(made, metric), digits)}" in said, metric
    assert f"request gain {figure(figure_of(made, 'request_gain'))}" in said
    assert said.count("[") == 6  # TVD's too
    table = control.headline(Rows(made))
    labels = ["TVD", "mass", "request gain", "γ", "step", "γ corr", "preference"]
    assert table.head == ["", *labels] and "160 items in 20 word sets" in table.title
    assert len(table.body[0].cells) == 7 and max(map(len, text_table(table, 100))) <= 100


def test_worse_than_a_lazy_answer_is_said_of_paired_differences_alone():
    lazy = row(0.23, 0.2, 0.26, stage=UNIFORM)
    for stage, paired in itertools.product(("base", "tuned"), (True, False)):
        rows = [row(0.96, 0.94, 0.98, stage=stage), lazy]
        rows += [row(0.73, 0.7, 0.76, stage=f"diff:{stage}-{UNIFORM}")] if paired else []
        sentence, *_ = control.section({}, Rows(rows)).lead
        assert ("That is worse than a model that ignores the request" in sentence) == paired
        assert ("For comparison: a model that ignores the request (0.230)" in sentence) != paired
        (question,) = [q for q in control.questions(Rows(rows)) if q.found[0].startswith("TVD 0.9")]
        assert ("worse than ignoring the request" in question.found[0]) == paired


def test_kinds_of_request_unlike_training_stand_on_the_first_screen_beside_ignoring_them():
    few_shot, phrasings = "k=2,few-shot", "k=2,templates=heldout"
    tvd = {"k=2": 0.191, "k=3": 0.378, "k=4": 0.425, few_shot: 0.376, phrasings: 0.441}
    lazy = {"k=4": 0.245, phrasings: 0.441, "k=3": 0.5}
    rows = [row(value, value - 0.05, value + 0.05, slice=name) for name, value in tvd.items()]
    rows += [row(0.9, 0.85, 0.95, slice="k=5", clusters=19)]  # too few word sets
    for name, value in lazy.items():
        less = tvd[name] - value
        pair = dict(slice=name, stage=f"diff:tuned-{UNIFORM}")
        rows += [row(value, None, None, slice=name, stage=UNIFORM)]
        rows += [row(less, less - 0.05, less + 0.05, **pair)]
    *_, said = control.section({}, Rows(rows)).lead
    assert said.replace("\u00a0", " ") == (
        "harder requests have a TVD of: two words, phrasings never trained on 0.441 [0.391, 0.491] "
        "(not told apart from ignoring the request, 0.441); four words 0.425 [0.375, 0.475] (worse "
        "than ignoring the request, 0.245); three words 0.378 [0.328, 0.428] (better than ignoring "
        "the request, 0.500); two words, after examples in the prompt 0.376 [0.326, 0.426]"
    )
    *_, last = control.section({}, Rows(rows[:1])).lead
    assert "harder" not in last


def test_what_new_words_change_has_an_interval_that_says_whether_they_do():
    known = [row(0.19, 0.16, 0.23), row(0.15, 0.12, 0.18, split="train", clusters=24)]
    said = text_of(control.section({}, Rows(known)))
    low, high = (0.04 - np.hypot(0.03, 0.03), 0.04 + np.hypot(0.04, 0.03))
    told = f"New words alone change TVD by +0.040 [{number(low)},\u00a0{number(high)}], from 0.150"
    assert told in said and "differences between splits are not paired" in said


def test_a_step_is_not_called_graded_whatever_rounding_leaves_of_its_slope():
    items = word_sets()
    step = items.with_q(np.where(items.target > 0.5, 0.73, 0.27))
    gamma = figure_of(rows_of(step), "gamma")
    assert abs(gamma["value"]) < 1e-9 and gamma["ci_low"] is not None
    for slope in (gamma, row(2e-15, 2e-15, 2e-15), row(0.015, 0.01, 0.02)):
        assert graded_word(slope) == "graded control is not shown"
    assert graded_word(row(-1.0, -1.1, -0.9)) == "shares run against the request"
    assert graded_word(figure_of(rows_of(items), "gamma")) == "graded control is there"
