"""The ladder: known askers score what its docstring says, and a model answers every rung."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.reporting.rows import Rows
from antiimit_jax.results import BASE
from antiimit_jax.scoring.asks import Answer, Ask, Scoring
from antiimit_jax.suites import ladder
from antiimit_jax.suites.ladder import page
from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.rungs import RUNGS
from tests.suites.small import as_read, small_config, values_of

AT_ONCE = [rung for rung in RUNGS if rung not in page.OWN]
ALL = ladder.Config(rungs=tuple(AT_ONCE), n_sets=20)
PAIRS = [rung for rung in AT_ONCE if rung != "L3"]
BOOT = Bootstrap(n_boot=50)


@dataclasses.dataclass(frozen=True)
class Known:
    """Answers the requests as `answer` says, and the questions as `tell` says."""

    answer: Callable[[Item], np.ndarray]
    tell: Callable[[Item], np.ndarray]
    cfg: ladder.Config
    stage = BASE
    scoring = Scoring()
    eval_seed = 0
    dtype = "float32"

    def words(self, asks: list[Ask], *, what: str) -> list[Answer]:
        items, say = ladder.items_of(self.cfg, self.eval_seed), self.answer
        if what != "ladder":
            items, say = ladder.stated_of(self.cfg, self.eval_seed), self.tell
        assert [ask.messages for ask in asks] == [item.messages for item in items]
        answers = []
        for item in items:
            q = np.asarray(say(item), float)
            ones = (1,) * len(q)
            same = dict(prompt=item.messages[0].content, prompt_ids=(1,), residual=1 - q.sum())
            same |= dict(q=q, q_low=q, q_high=q, form_counts=ones, token_counts=ones)
            answers.append(Answer(**same))
        return answers


def scored(answer: Callable, tell: Callable, cfg: ladder.Config = ALL) -> list[dict]:
    return ladder.score(as_read(ladder.measure(Known(answer, tell, cfg), cfg)), cfg, BOOT)


def as_asked(item: Item) -> np.ndarray:
    return np.array(item.targets)


def preferring(item: Item) -> np.ndarray:
    """Ignores the request: words have fixed weights, and the first named has a little more."""
    weights = np.array([1.0 + sum(map(ord, word)) % 7 for word in item.words])
    weights[0] *= 1.5
    return 0.9 * weights / weights.sum()


def equally(item: Item) -> np.ndarray:
    return np.full(len(item.words), 1 / len(item.words))


def a_step(item: Item) -> np.ndarray:
    targets = np.array(item.targets)
    larger = np.where(targets == targets.max(), 0.75, 0.25)
    return larger / larger.sum()


def first_percentage(item: Item) -> np.ndarray:
    """The option that stands first in the request."""
    numbers = re.findall(r"\d+", item.messages[0].content)
    found = next(number for number in numbers if number in item.words)
    return np.array([float(word == found) for word in item.words])


@pytest.fixture(scope="module")
def oracle() -> list[dict]:
    return scored(as_asked, as_asked)


@pytest.fixture(scope="module")
def lazy() -> list[dict]:
    return scored(preferring, equally)


@pytest.mark.parametrize("rung", PAIRS)
def test_who_answers_as_requested_has_full_marks(oracle, rung):
    found = values_of(oracle, stage="base", split=rung, slice="all")
    perfect = {"tvd_res": 0, "mass": 1, "gamma": 1, "gamma_corr": 1, "stated": 1}
    assert {name: found[name] for name in perfect} == pytest.approx(perfect, abs=1e-9)
    assert found["request_gain"] > 0.1
    if rung != "L0":
        assert found["gamma_ratio"] == pytest.approx(1)


@pytest.mark.parametrize("rung", PAIRS)
def test_who_ignores_the_request_has_no_slope_and_states_nothing(lazy, rung):
    found = values_of(lazy, stage="base", split=rung, slice="all")
    assert found["gamma"] == pytest.approx(0, abs=1e-9)
    assert found["request_gain"] == pytest.approx(0, abs=1e-9)
    assert found["stated"] == pytest.approx(0.25)
    assert found["mass"] == pytest.approx(0.9)
    if rung != "L0":
        (row,) = [
            row
            for row in lazy
            if (row["split"], row["slice"], row["metric"]) == (rung, "all", "gamma_ratio")
        ]
        assert row["value"] is None and "not clearly above 0" in row["note"]


def test_more_words_have_a_slope_for_each_number_of_them(oracle, lazy):
    for rows, gamma in ((oracle, 1), (lazy, 0)):
        for k in (3, 4, 5, 10):
            found = values_of(rows, stage="base", split="L3", slice=f"kind={k} words")
            assert found["gamma"] == pytest.approx(gamma, abs=1e-9)
        found = values_of(rows, stage="base", split="L3", slice="all")
        assert found["gamma"] == pytest.approx(gamma, abs=1e-9)
        ratio = found["gamma_ratio"]
        assert ratio == pytest.approx(1) if gamma else ratio is None


def test_a_step_has_no_slope_where_distances_differ_and_copying_states_half():
    rows = scored(a_step, first_percentage)
    for rung in PAIRS:
        found = values_of(rows, stage="base", split=rung, slice="all")
        assert found["gamma"] == pytest.approx(0, abs=1e-9)
        assert found["request_gain"] > 0
    for rung in ("L0", "L1", "L2"):
        stated = values_of(rows, stage="base", split=rung, slice="all")["stated"]
        assert stated == pytest.approx(0.5)


def test_who_overlooks_the_fact_has_no_slope_on_l11():
    def overlooking(item: Item) -> np.ndarray:
        twin = item.facets["order"] >= 4  # where the fact does not hold
        return np.array(item.targets[::-1] if twin else item.targets)

    rows = scored(overlooking, equally, ladder.Config(rungs=("L11",)))
    assert values_of(rows, stage="base", split="L11", slice="all")["gamma"] == pytest.approx(0)
    assert values_of(rows, stage="base", split="L0", slice="all")["gamma"] < 1


def test_options_without_mass_state_nothing():
    silent = lambda item: np.full(len(item.words), 1e-9)
    rows = scored(as_asked, silent, ladder.Config(rungs=("L1",), n_sets=6))
    (row,) = [
        row
        for row in rows
        if (row["stage"], row["split"], row["slice"], row["metric"])
        == ("base", "L1", "all", "stated")
    ]
    assert row["value"] is None and row["n"] == 0 and "too little probability" in row["note"]


def test_the_page_says_after_how_many_questions_an_option_was_said_at_all():
    cfg = ladder.Config(rungs=("L1",), n_sets=6)
    silent_on_l1 = lambda item: as_asked(item) * (1e-9 if item.split == "L1" else 1)
    tables = as_read(ladder.measure(Known(as_asked, silent_on_l1, cfg), cfg))
    shown = ladder.section(tables, Rows(ladder.score(tables, cfg, BOOT), [BASE]))
    asked = len(ladder.stated_of(cfg, 0))
    assert shown.sentences[-1].endswith(f"probability: base {asked // 2} of {asked}.")


def test_equal_shares_stand_beside_the_base_and_the_section_names_every_rung(oracle):
    found = values_of(oracle, stage="baseline:uniform", split="L6", slice="all")
    assert found["gamma"] == pytest.approx(0) and found["stated"] == pytest.approx(0.25)
    section = ladder.section({}, Rows(oracle, [BASE]))
    assert len(section.tables) == len(page.COMMON)
    labels = [line.label for line in section.tables[0].body]
    assert labels == [f"{rung}: {RUNGS[rung]}" for rung in AT_ONCE]


def test_what_is_left_on_every_rung_answers_a_question_where_l0_has_a_slope(oracle, lazy):
    (question,) = ladder.questions(Rows(oracle, [BASE]))
    assert f"L6 ({RUNGS['L6']}) 1.00" in question.found[0] and "L0" not in question.found[0]
    assert ladder.questions(Rows(lazy, [BASE])) == []


def test_a_model_answers_all_rungs_of_one_word(asker):
    cfg = ladder.Config(rungs=tuple(AT_ONCE), n_sets=6)
    tables = as_read(ladder.measure(asker(), cfg))
    assert set(tables) == {"ladder", "ladder_stated"}
    for table in tables.values():
        assert set(table["split"]) == set(AT_ONCE)
        assert (table["q"] > 0).all() and (table["q"] < 1).all()
    rows = ladder.score(tables, cfg, BOOT)
    assert {row["split"] for row in rows if row["metric"] == "stated"} == set(AT_ONCE)


def test_a_word_without_tokens_is_refused_with_the_field_to_change(asker, monkeypatch):
    def refuse(self, asks, *, what):
        raise UserError("word '河流' cannot be spelled by any tokens of this model")

    asking = asker()
    monkeypatch.setattr(type(asking), "words", refuse)
    with pytest.raises(UserError, match="河流.*ladder.rungs"):
        ladder.measure(asking, small_config().ladder)
