"""Breaking a pattern: controls through the suite get the figures that its docstring states."""

from __future__ import annotations

import dataclasses
import types

import numpy as np
import pytest

from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.reporting.rows import Rows
from antiimit_jax.results import BASE, Stage
from antiimit_jax.scoring.asks import Scoring, TextAnswer
from antiimit_jax.scoring.generate import Continuation
from antiimit_jax.suites import deviate
from antiimit_jax.suites.deviate import LENGTHS, PATTERNS, Config, drawn, hazard, items_of
from tests.suites.small import as_read, small_config, values_of

CFG = Config(n_starts=2, n_drawn=0)
ITEMS = items_of(CFG, 0)
ASKED = {i.ask(at, True): (i.length, at) for i in ITEMS for at in range(1, i.length + 2)}
FITTED = 0.227  # the constant chance that is best at these lengths, each asked alike often
# As asked, unasked, gain, early.
BEHAVIOURS = {
    "does as asked": (lambda length, at: float(at <= length), (1.0, 0.0, 1.0, 0.0)),
    "never departs": (lambda length, at: 1.0, (0.0, 0.0, 0.0, 0.0)),
    "departs at once": (lambda length, at: 0.0, (0.0, 0.0, 0.0, 1.0)),
    "constant hazard": (lambda length, at: 1 - FITTED, (0.083, 0.083, 0.0, 0.634)),
}


class Behaving:
    """An asker whose model says an element with the probability that a behaviour gives it."""

    eval_seed, scoring = 0, Scoring()

    def __init__(self, behaviour, stage=BASE, unasked=None) -> None:
        self.behaviour, self.stage = behaviour, stage
        self.unasked = unasked if unasked is not None else behaviour(9, 1)

    def words(self, asks, *, what, scoring):
        assert scoring.tokenisations == 8 and len(set(asks)) == len(asks)
        for ask in asks:
            p = self.behaviour(*ASKED[ask]) if ask in ASKED else self.unasked
            yield types.SimpleNamespace(q=np.array([p]), prompt="")


def scored(*askers, n_boot=0):
    pieces = [deviate.measure(asker, CFG)["deviate"] for asker in askers]
    tables = as_read({"deviate": deviate.suite.joined(pieces)})
    return deviate.score(tables, CFG, Bootstrap(n_boot=n_boot))


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_a_behaviour_gets_what_the_docstring_states(name):
    behaviour, expected = BEHAVIOURS[name]
    found = values_of(scored(Behaving(behaviour)), stage="base", slice="all")
    figures = [found[metric] for metric in ("departs", "unasked", "gain", "early")]
    assert figures == pytest.approx(expected, abs=5e-4)
    assert found["departs"] + found["early"] + found["late"] == pytest.approx(1)


def test_the_constant_hazard_is_the_best_of_its_kind_over_all_items():
    rows = scored(Behaving(BEHAVIOURS["never departs"][0]))
    found = values_of(rows, stage="baseline:constant_hazard", slice="all")
    assert found == pytest.approx({"departs": 0.083}, abs=5e-4)
    (question,) = deviate.questions(Rows(rows, [BASE]))
    assert question.found == ["base has 0.000, 0.000 of it by the request; a constant hazard 0.083"]
    paired = values_of(rows, stage="diff:base-baseline:constant_hazard", slice="all")
    assert paired == pytest.approx({"departs": -0.083}, abs=5e-4)
    lengths = np.array(LENGTHS)
    one = [np.mean(h * (1 - h) ** lengths) for h in np.linspace(0, 1, 301)]
    assert hazard(lengths).mean() >= max(one) - 1e-6
    assert hazard(np.array([3, 3])) == pytest.approx([27 / 256] * 2, abs=1e-6)


def test_surprisal_is_the_base_s_whatever_the_stage_does():
    tuned = Stage(name="tuned", kind="tuned")
    as_asked = BEHAVIOURS["does as asked"][0]
    rows = scored(Behaving(as_asked, unasked=0.9), Behaving(as_asked, tuned, unasked=0.5))
    for stage in ("base", "tuned"):
        found = values_of(rows, stage=stage, slice="all")
        assert found["surprisal"] == pytest.approx(-np.log(0.1))
    assert values_of(rows, stage="tuned", slice="length=2")["unasked"] == pytest.approx(0.125)


def test_elements_follow_the_rule_and_only_the_request_differs():
    assert len(ITEMS) == len(PATTERNS) * 2 * len(LENGTHS)
    week = [PATTERNS["weekdays"](6, i) for i in range(3)]
    assert week == ["Sunday", "Monday", "Tuesday"]
    assert [PATTERNS["doubling"](1, i) for i in range(4)] == ["3", "6", "12", "24"]
    for item in ITEMS:
        assert len(item.elements) == 4 + item.length + 1
        last, bare = item.ask(item.length + 1, True), item.ask(item.length + 1, False)
        assert last.words == bare.words == (item.elements[-1],)
        assert last.messages[1] == bare.messages[1]
        assert last.messages[1].content == " ".join(["Next:", *item.elements[4:-1]])
        assert last.messages[0].content.startswith(bare.messages[0].content)
        assert f"exactly {item.length} more" in last.messages[0].content


def test_a_model_is_asked_and_the_page_shows_it(asker):
    cfg = small_config().deviate
    tables = as_read(deviate.measure(asker(), cfg))
    table = tables["deviate"]
    assert len(table["p"]) == 2 * len(PATTERNS) * sum(length + 1 for length in LENGTHS)
    assert ((table["p"] > 0) & (table["p"] < 1)).all()
    rows = deviate.score(tables, cfg, Bootstrap(n_boot=50))
    shown = deviate.section(tables, deviate.suite.Rows(rows))
    assert [len(table.body) for table in shown.tables] == [2, 1, len(LENGTHS)]
    texts, logp = tables["deviate_drawn"]["text"], tables["deviate_drawn"]["logp"]
    assert len(texts) == len(PATTERNS) * len(LENGTHS)
    assert all(bool(text) == bool(len(p)) for text, p in zip(texts, logp))


def test_the_base_reads_a_departure_alone_after_the_pattern(asker, lm):
    """Its log-probabilities are those of the tokens that follow the open turn."""
    place = ITEMS[0].place
    answers = asker().texts([drawn.goes_on(place.plain, " seven stones")], what="")
    tokens = lm.tokenizer.encode_continued(" seven stones")
    assert answers[0].token == list(tokens)
    prompt = lm.prompt(place.plain.messages).ids
    assert answers[0].position[0] == len(prompt) - 1
    q = asker().words([dataclasses.replace(place.plain, words=("seven",))], what="")[0].q
    assert q[0] > 0  # the same turn may be asked for words


DRAWS = {  # what a stage draws: text, log-probabilities and entropies by the base -> its figures
    "as the base would": (" a stone", [-6.0, -2.0], [3.0, 2.0], (0.0, 4.0, 0.0)),
    "random tokens": (" a zq", [-6.0, -12.0], [3.0, 2.0], (0.0, 9.0, 1.0)),
    "ends": ("", [], [], (1.0, None, None)),
    "never departs": (None, [-1.0, -1.0], [1.0, 1.0], (None, None, None)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_departures_are_told_from_gibberish_and_from_silence(name):
    text, logp, entropy, expected = DRAWS[name]

    class Drawing(Behaving):
        def generate(self, prompts, *, what, max_tokens, n):
            said = iter(f" {item.elements[-1]} on" if text is None else text for item in ITEMS)
            return [[Continuation((), next(said), False)] * n for _ in prompts]

        def texts(self, texts, *, what):
            read = {"logp_base": logp, "entropy_base": entropy}
            return [TextAnswer(text, [], [], read) for text in reversed(texts)]

    cfg = dataclasses.replace(CFG, n_drawn=2)
    tables = as_read(deviate.measure(Drawing(BEHAVIOURS["never departs"][0]), cfg))
    assert len(tables["deviate_drawn"]["text"]) == 2 * len(ITEMS)
    rows = deviate.score(tables, cfg, Bootstrap(n_boot=0))
    found = values_of(rows, stage="base", slice="all")
    assert tuple(found[s.name] for s in drawn.STATISTICS) == pytest.approx(expected)
    missing = [row for row in rows if row["value"] is None]
    assert all("was drawn" in row["note"] for row in missing)


@pytest.mark.parametrize(
    "text, element, stays",
    [
        (" 12 13", "12", True),
        (" 123", "12", False),
        ("12.", "12", True),
        ("", "12", False),
        (" Mondays", "Monday", False),
    ],
)
def test_an_element_is_said_as_a_whole(text, element, stays):
    assert drawn.stays(text, element) is stays
