"""Introspection: models that know themselves, others or nothing, through the suite."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from antiimit_jax.metrics import introspection as metrics
from antiimit_jax.reporting.rows import Rows
from antiimit_jax.results import BASE, Stage, make_row
from antiimit_jax.scoring.asks import Answer, Ask, Scoring
from antiimit_jax.suites import introspection, suite
from antiimit_jax.suites.introspection.arm import training_items
from antiimit_jax.suites.introspection.scores import TASKS
from antiimit_jax.suites.introspection.truth import truth_of
from antiimit_jax.tasks.self_report import ASKED, Request, SelfItem, self_items, texts_of
from antiimit_jax.tasks.user_items import load_items
from tests.suites.small import as_read, values_of

CFG = introspection.Config(n_texts=75, n_other=24)
FEW = dataclasses.replace(CFG, tasks=("next_word", "entropy", "rule"))
ITEMS = self_items(CFG.tasks, CFG.n_texts, CFG.n_other, 0)
ASKED_OF = {how.request: (item, how.means) for item in ITEMS for how in item.readings}
TUNED = Stage(name="tuned", kind="tuned", adapter_seed=0)
A, B, C = 1, 2, 3  # what known models do


def liking(*of: object) -> float:
    """A number from 0 to 1 by a hash."""
    return hashlib.sha256(repr(of).encode()).digest()[0] / 255


def does(who: int, request: Request) -> np.ndarray:
    """Mass .8 on words that differ in how much they are liked after this text."""
    liked = [1e-3 + liking(who, request.messages, word) ** 4 for word in request.words]
    liked += [liking(who, request.messages)] if len(liked) == 1 else []
    return 0.8 * np.array(liked)[: len(request.words)] / sum(liked)


def counts(who: int, text: str) -> int:
    return 1 + (len(text) // who + int(8 * liking(who, text))) % 30


def truth(who: int, item: SelfItem) -> tuple[list[float], float]:
    return truth_of(item, [does(who, r) for r in item.doing], counts(who, item.spelled))


@functools.cache
def terciles(who: int) -> np.ndarray:
    values = [truth(who, item)[1] for item in ITEMS if item.task == "entropy"]
    return np.quantile(values, [1 / 3, 2 / 3])


def knows(who: int, item: SelfItem) -> np.ndarray:
    """[options] what one says who knows a model: certain, or a number between two options."""
    direct, value = truth(who, item)
    said = np.zeros(len(item.options))
    if item.task == "entropy":
        said[np.searchsorted(terciles(who), value)] = 1
    elif direct:
        said[int(np.argmax(direct))] = 1
    else:
        numbers = np.array(item.options, float)
        above = min(int(np.searchsorted(numbers, value)), len(numbers) - 1)
        low, high = numbers[max(above - 1, 0)], numbers[above]
        part = (value - low) / (high - low) if high > low else 1
        said[above] += part
        said[max(above - 1, 0)] += 1 - part
    return said


@dataclasses.dataclass(frozen=True)
class Model:
    """Does as `who`, and tells what `tells` does; of itself the first place where that is 0."""

    who: int
    tells: int
    stage: Stage = BASE
    other: Model | None = None
    near: Model | None = None
    scoring = Scoring()
    eval_seed = 0
    dtype = "float32"

    @property
    def stored(self) -> Model:
        return self

    def changed(self, change) -> Model:
        return self.near or self

    def token_counts(self, words: Sequence[str]) -> list[int]:
        return [counts(self.who, word) for word in words]

    def words(self, asks: Sequence[Ask], *, what: str) -> list[Answer]:
        how = dict(prompt="", prompt_ids=(), form_counts=(), token_counts=())
        found = []
        for ask in asks:
            request = Request(ask.messages, ask.words)
            q = self.said(request) if request in ASKED_OF else does(self.who, request)
            found.append(Answer(q=q, q_low=q, q_high=q, residual=1 - q.sum(), **how))
        return found

    def said(self, request: Request) -> np.ndarray:
        item, means = ASKED_OF[request]
        if not self.tells:
            return 0.5 ** np.arange(1, 1 + len(means))
        return 0.9 * knows(self.tells, item)[list(means)]


def rows_of(*models: Model, cfg: introspection.Config = CFG, n_boot: int = 0) -> list[dict]:
    tables = suite.joined([introspection.measure(m, cfg)["introspection"] for m in models])
    boot = suite.Bootstrap(n_boot=n_boot)
    return introspection.score(as_read({"introspection": tables}), cfg, boot)


def at(rows: list[dict], task: str, split: str = "self", stage: str = "base") -> dict[str, float]:
    return values_of(rows, stage=stage, split=split, slice=f"task={task}")


@pytest.fixture(scope="module")
def knowing() -> list[dict]:
    return rows_of(Model(A, A, other=Model(B, B), near=Model(C, C)), n_boot=50)


@pytest.mark.parametrize("task", TASKS)
def test_who_knows_itself_has_full_marks_and_others_have_not(knowing, task):
    found = at(knowing, task)
    assert found["score"] == pytest.approx(1, abs=1e-6)
    assert found["mode"] < 0.9
    for beyond in ("over_near_identical", "over_other_direct"):
        assert found[beyond] > 0.1
    assert found["privilege"] > 0.1
    apart = at(knowing, task, "disagree")
    assert apart["privilege"] >= found["privilege"] - 1e-9
    assert at(knowing, task, stage="baseline:against")["score"] == pytest.approx(1, abs=1e-6)


def test_each_kind_of_figure_is_perfect_where_all_is_known(knowing):
    assert at(knowing, "own_probability")["spearman"] == pytest.approx(1)
    assert at(knowing, "likelier")["auc"] == 1
    assert at(knowing, "entropy")["macro_f1"] == 1
    assert at(knowing, "deviation")["position_error"] == 0
    for task in ("own_probability", "control", "token_count"):
        assert at(knowing, task)["mae"] == pytest.approx(0, abs=1e-6)
    assert at(knowing, "own_distribution")["tvd"] == pytest.approx(0, abs=1e-6)


def test_who_tells_of_another_has_no_privilege():
    rows = rows_of(Model(A, B, other=Model(B, A)), cfg=FEW)
    for task in FEW.tasks:
        apart = at(rows, task, "disagree")
        assert at(rows, task)["score"] < 1 and apart["privilege"] < 0
        assert apart["over_other_direct"] == pytest.approx(0, abs=1e-6)


def test_who_names_options_by_their_place_knows_nothing():
    tasks = ("next_word", "second_choice", "likelier", "property", "rule", "tuned_for")
    rows = rows_of(Model(A, 0), cfg=dataclasses.replace(CFG, tasks=tasks))
    scores = [at(rows, task)["score"] for task in tasks[:-1]]
    assert np.mean(scores) < 0.1 and max(scores) < 0.4
    assert values_of(rows, stage="base", split="tuned_for")["tuned_for"] == pytest.approx(0.25)


@pytest.mark.parametrize("tells, follows, lags", [(B, 1, 0), (A, 0, 1)], ids=["now", "before"])
def test_after_tuning_one_tells_what_one_does_now_or_did_before(tells, follows, lags):
    rows = rows_of(Model(A, A), Model(B, tells, TUNED), cfg=FEW)
    for task in FEW.tasks:
        found = at(rows, task, "changed", "tuned")
        assert found == {"follows": follows, "lags": lags}
    change = at(rows, "next_word", stage="diff:tuned-base")["score"]
    assert change == pytest.approx(0, abs=1e-9) if tells == B else change < -0.5
    assert (at(rows, "next_word", stage="tuned")["score"] < 1) == (tells == A)
    near = at(rows, "next_word", stage="tuned")["over_near_identical"]  # the base
    assert near > 0.5 if tells == B else near == 0


def test_another_seed_is_the_near_identical_model_of_an_adapter():
    second = Stage(name="tuned@1", kind="tuned", adapter_seed=1)
    rows = rows_of(Model(A, A), Model(B, B, TUNED), Model(B, B, second), cfg=FEW)
    assert at(rows, "next_word", stage="tuned")["over_near_identical"] == 0


def test_the_verdict_is_floor_until_an_adapter_trained_on_it_raised_the_score():
    positive = Stage(name="self_trained", kind="other")
    models = [Model(A, 0), Model(B, 0, TUNED)]
    raised = [Model(A, A, positive)]
    for more, said in ([], "floor"), (raised, "not clearly raise"):
        rows = rows_of(
            *models, *more, cfg=dataclasses.replace(CFG, tasks=("next_word",)), n_boot=100
        )
        (question,) = introspection.questions(Rows(rows, [m.stage for m in models + more]))
        assert said in question.found[0]


def test_many_tasks_are_tested_together():
    """One-sided p of .0008, .018 and .05; Holm asks for .0083, .0125 and .025 of three."""
    where = dict(suite="introspection", split="self", metric="score", n=90, clusters=30)
    z = {"next_word": 3.156, "entropy": 2.1, "rule": 1.645}
    rows = [
        make_row(stage=stage, slice=f"task={task}", value=v, ci_low=v - 1.96, ci_high=9, **where)
        for stage in ("tuned", "diff:tuned-base")
        for task, v in (z if stage == "tuned" else {"next_word": 0.0, "rule": 0.0}).items()
    ]
    rows.append(make_row(stage="tuned", slice="task=control", value=5.0, **where))  # no interval
    said = introspection.section({}, Rows(rows, [BASE, TUNED])).readings[1:]
    assert said[0].startswith("tuned scores above 0 in 1 of 3 tasks that are tested together")
    assert said[0].endswith(
        "many tests): its next word; by its own interval alone also in: sure, torn or open"
    )
    assert said[1].startswith("it scores above the base in 0 of 2") and said[1].endswith("tests)")


def test_the_training_arm_teaches_the_model_s_own_shares_of_other_words(tmp_path):
    lines = training_items(Model(A, 0), 10)
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    items = load_items(str(file)).entries
    assert len(items) == 40
    first = texts_of("trained", 10, 0)[0]
    shares = dict(zip(first.words, does(A, first.doing)))
    for item in items[:4]:
        expected = [shares[word] / sum(shares.values()) for word in item.words]
        assert item.targets == pytest.approx(expected)
    assert len({item.words for item in items[:4]}) == 4
    asked = {word for item in ITEMS if item.task == "next_word" for word in item.options}
    assert not asked & {word for item in items for word in item.words}


def test_two_models_trained_on_it_are_an_experiment_of_another_name():
    positive = Stage(name="self_trained", kind="other")
    rows = rows_of(Model(A, A, other=Model(B, B)), Model(C, C, positive), cfg=FEW)
    untrained, trained = (at(rows, "next_word", "disagree", s) for s in ("base", "self_trained"))
    assert untrained["privilege"] > 0.5 and "privilege_trained" not in untrained
    assert trained["privilege_trained"] > 0.5 and "privilege" not in trained


def test_every_option_stands_in_every_place_equally_often():
    for item in ITEMS:
        if len(item.readings) > 1:
            orders = np.array([how.means for how in item.readings])
            assert all(len(set(place)) == len(item.options) for place in orders.T)
        for how in item.readings:
            named = [item.options[i] for i in how.means]
            text = how.request.messages[0].content
            places = [text.rindex(name) for name in named if len(item.readings) > 1]
            assert item.task == "rule" or places == sorted(places)
            assert item.task == "tuned_for" or list(how.request.words) == named
    assert len({item.item for item in ITEMS}) == len(ITEMS)
    assert {item.task for item in ITEMS} == set(ASKED)


def test_the_classifier_finds_what_hangs_on_words_alone_and_no_more():
    rng = np.random.default_rng(0)
    words = rng.choice(["sea", "hill"], 80)
    told = metrics.Told(
        kind="choice",
        item=np.arange(80).astype(str),
        cluster=np.arange(80) % 20,
        group=np.full(80, ""),
        text=np.array([f"by the {word} {i}" for i, word in enumerate(words)]),
        thumb=np.full(80, np.nan),
        options=[["fish", "goat"]] * 80,
        shares=[np.array([0.5, 0.5])] * 80,
        direct=[np.array([word == "sea", word != "sea"]) for word in words],
        value=np.full(80, np.nan),
    )
    assert told.loss(metrics.input_only(told)).mean() < 0.02
    blind = dataclasses.replace(told, text=np.full(80, "by the"))
    assert 0.3 < blind.loss(metrics.input_only(blind)).mean() < 0.7


def test_without_scikit_learn_one_figure_is_absent_and_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    rows = rows_of(Model(A, A), cfg=FEW)
    found = [row for row in rows if row["metric"] == "over_input_only"]
    assert found and all(row["value"] is None for row in found)
    assert all("pip install 'antiimit_jax[study]'" in row["note"] for row in found)


def test_the_reference_of_choices_is_who_names_them_as_often_as_they_are_true():
    rows = np.eye(2)[[0, 0, 0, 1]]
    told = metrics.Told(
        kind="choice",
        **{name: np.array(list("abcd")) for name in ("item", "cluster", "text")},
        group=np.full(4, "g"),
        thumb=np.full(4, np.nan),
        options=[["x", "y"]] * 4,
        shares=list(np.eye(2)[[0, 0, 0, 0]]),
        direct=list(rows),
        value=np.full(4, np.nan),
    )
    assert told.reference == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])
    assert told.loss(told.heuristic).tolist() == [0, 0, 0, 1]


def test_a_model_is_asked_and_the_page_shows_it(asker):
    cfg = introspection.Config(n_texts=5, n_other=1)
    tables = as_read(introspection.measure(asker(), cfg))
    table = tables["introspection"]
    assert set(table["model"]) == {"own", "near"}
    assert all(abs(sum(shares) - 1) < 1e-9 for shares in table["shares"])
    assert ((table["mass"] > 0) & (table["mass"] <= 1 + 1e-6)).all()
    rows = introspection.score(tables, cfg, suite.Bootstrap(n_boot=0))
    (place,) = introspection.places(Rows(rows, [BASE]))
    assert values_of(rows, stage="base", split=place[0], slice=place[1])["score"] is not None
    shown = introspection.section(tables, Rows(rows, [BASE]))
    assert len(shown.tables[0].body) == len(TASKS) and shown.readings
