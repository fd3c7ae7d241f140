"""Rungs with figures of their own: known askers score what the ladder's docstring says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.results import BASE
from antiimit_jax.scoring.asks import Ask
from antiimit_jax.scoring.generate import Continuation
from antiimit_jax.suites.ladder import forbidden, quantifiers, sequence, shares, thinking
from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.rungs import rung_items, two_of_set
from antiimit_jax.tasks.sequences import at_places
from antiimit_jax.tasks.unnumbered import forbidding, quantified
from tests.suites.known import Known, knowing
from tests.suites.small import as_read, values_of

BOOT = Bootstrap(n_boot=50)
REQUESTS = rung_items("L9", 10, 0)
PLACED = [placed for item in REQUESTS for placed in at_places(item, 0)]
QUANTIFIED = quantified(10, 0)
FORBIDDING = forbidding(12, 0)


def figures(rows: list[dict], where: str = "all", stage: str = "base") -> dict[str, float]:
    return values_of(rows, stage=stage, slice=where)


def of_sequence(share: Callable[[Item], float], mass: float = 1) -> dict[str, float]:
    """Figures of one who gives the word named first this share."""
    asker = knowing(PLACED, lambda item: (mass * share(item), mass * (1 - share(item))))
    table = as_read({"ladder": shares.answered(asker, PLACED, "")})["ladder"]
    return figures(sequence.sequence_rows(table, "base", BOOT))


def missing(item: Item) -> float:
    return item.targets[0] * (item.facets["place"] - 1) - item.facets["said"]


def test_one_who_keeps_to_the_request_neither_drifts_nor_gambles():
    assert of_sequence(lambda item: item.targets[0]) == pytest.approx(
        {"drift_slope": 0, "gambler": 0}, abs=1e-9
    )


def test_one_with_a_share_of_his_own_does_not_gamble_whatever_was_said():
    assert of_sequence(lambda item: 0.3)["gambler"] == pytest.approx(0, abs=1e-9)


def test_a_distance_that_grows_is_found_as_it_was_put_in():
    strays = lambda item: item.targets[0] + 0.003 * (item.facets["place"] - 1)
    assert of_sequence(strays)["drift_slope"] == pytest.approx(0.003)


def test_one_who_makes_up_for_what_is_missing_is_found_as_he_was_put_in():
    makes_up = lambda item: item.targets[0] + 0.006 * missing(item)
    found = of_sequence(makes_up)
    assert found["gambler"] == pytest.approx(0.006) and found["drift_slope"] > 0


def test_one_who_repeats_what_was_said_is_below_0():
    repeats = lambda item: (item.targets[0] + item.facets["said"]) / item.facets["place"]
    assert of_sequence(repeats)["gambler"] < -0.02


def test_who_copies_the_words_before_has_a_slope_without_reading_the_request():
    asker = knowing(PLACED, lambda item: (0.2, 0.4))  # whatever the model itself says
    table = as_read({"ladder": shares.answered(asker, PLACED, "")})["ladder"]
    rows = sequence.sequence_rows(table, "base", BOOT)
    gamma = lambda where: values_of(rows, stage="baseline:copies", slice=where)["gamma"]
    assert gamma("all") == pytest.approx(0.571, abs=1e-3)
    along = values_of(rows, stage="baseline:copies", slice="all")
    assert along["gambler"] < -0.02 and along["drift_slope"] < 0  # nearer where more was said
    assert gamma("kind=place 1") == 0 and gamma("kind=place 16") == pytest.approx(1.03, abs=0.01)
    assert not any(
        row["stage"] == "baseline:copies" for row in sequence.sequence_rows(table, "tuned", BOOT)
    )
    said = sequence.copied(np.array([0, 1]), np.array([4]), np.array([3]))
    assert said.tolist() == [3.5 / 4, 0.5 / 4]


def test_shares_of_next_to_nothing_are_not_read():
    assert of_sequence(lambda item: item.targets[0], mass=1e-9)["gambler"] is None


@dataclasses.dataclass(frozen=True)
class Telling(Known):
    """Also says `tale(prompt, number)` where it is to go on."""

    tale: Callable[[str, int], Continuation] = None

    def generate(self, prompts, *, what, max_tokens, n=1):
        return [[self.tale(messages, i) for i in range(n)] for messages in prompts]


def said(text: str, ended: bool) -> Continuation:
    return Continuation(tokens=(), text=text, ended=ended)


@pytest.mark.parametrize(
    ("ended", "befores"), [(True, {2: " one", 4: " one two three"}), (False, {2: " one"})]
)
def test_own_words_stand_before_as_many_places_as_the_answer_reaches(ended, befores):
    requests, asked = two_of_set(REQUESTS), list[Ask]()

    def told(ask: Ask) -> tuple[float, float]:
        asked.append(ask)
        return (0.5, 0.5)

    asker = Telling(told, BASE, tale=lambda messages, i: said(" one two three", ended))
    own = {sequence.OWN: sequence.own_answers(asker, requests)}
    opened = {ask.messages[1].content for ask in asked}
    assert opened == {f"Words:{before}" for before in befores.values()}
    rows = sequence.own_rows(as_read(own)[sequence.OWN], "base", BOOT)
    expected = np.mean([abs(item.targets[0] - 0.5) for item in requests])
    assert {row["slice"] for row in rows} == {"all", *(f"kind=place {p}" for p in befores)}
    assert all(row["value"] == pytest.approx(expected) for row in rows)


def test_an_answer_of_nothing_has_no_own_words_to_ask_after():
    asker = Telling(lambda ask: (0.5, 0.5), BASE, tale=lambda messages, i: said("", True))
    assert sequence.own_answers(asker, REQUESTS) == {}


def test_thoughts_that_each_settle_a_word_are_right_in_their_mean_alone():
    requests = rung_items("L13", 10, 0)
    targets = {item.messages: item.targets[0] for item in requests}

    def tale(messages, number: int) -> Continuation:
        first = number < round(20 * targets[messages])
        return said(f" A toss: {'heads' if first else 'tails'}.\nWord: none", False)

    def told(ask: Ask) -> tuple[float, float]:
        opened = ask.messages[1].content
        assert opened.endswith(".\nWord:") and opened.count("Word:") == 1
        return (1, 0) if "heads" in opened else (0, 1)

    table = thinking.thinking_answers(Telling(told, BASE, tale=tale), requests, 20, 40)
    rows = thinking.thinking_rows(
        as_read({thinking.THOUGHTS: table})[thinking.THOUGHTS], "base", BOOT
    )
    found = figures(rows)
    assert found["tvd_res"] == pytest.approx(0, abs=1e-9) and found["gamma"] == pytest.approx(1)
    settled = np.mean([2 * item.targets[0] * item.targets[1] for item in requests])
    assert found["thought_tvd"] == pytest.approx(settled)


def rising(item: Item) -> float:
    return 0.1 + 0.12 * item.facets["level"]


def turned(item: Item) -> float:
    return rising(item) if item.facets["kind"] == "many askers" else 1 - rising(item)


@pytest.mark.parametrize(
    ("share", "tau", "agreement"), [(rising, 1, 1), (lambda item: 0.3, 0, 0), (turned, 0, -1)]
)
def test_quantifiers_are_ordered_and_alike_in_both_wordings(share, tau, agreement):
    asker = knowing(QUANTIFIED, lambda item: (0.8 * share(item), 0.8 * (1 - share(item))))
    table = {quantifiers.QUANTIFIED: quantifiers.quantified_answers(asker, QUANTIFIED)}
    rows = quantifiers.quantifier_rows(as_read(table)[quantifiers.QUANTIFIED], "base", BOOT)
    expected = {"tau": tau, "agreement": agreement, "mass": 0.8}
    assert figures(rows) == pytest.approx(expected, abs=1e-9)
    beside = figures(rows, stage="baseline:uniform")
    assert beside == pytest.approx({"tau": 0, "agreement": 0, "mass": 1})
    if share is rising:
        assert figures(rows, "often=rarely")["share"] == pytest.approx(0.22)


LIKED = np.array([0.5, 0.3, 0.2])  # by the place of a word in the alphabet


def as_before(item: Item) -> np.ndarray:
    liked = LIKED[np.argsort(np.argsort(item.words))]
    if item.facets["forbidden"] >= 0:
        liked[item.facets["forbidden"]] = 0
    return 0.9 * liked / liked.sum()


def always_one_other(item: Item) -> np.ndarray:
    place = item.facets["forbidden"]
    return as_before(item) if place < 0 else 0.9 * np.eye(3)[(place + 1) % 3]


def heedless(item: Item) -> np.ndarray:
    return 0.9 * LIKED[np.argsort(np.argsort(item.words))]


def provoked(item: Item) -> np.ndarray:
    place = item.facets["forbidden"]
    return as_before(item) if place < 0 else 0.9 * np.eye(3)[place]


@pytest.mark.parametrize(
    ("answer", "suppression", "others", "q"),
    [(as_before, 1, 0, 0), (always_one_other, 1, None, 0), (heedless, 0, 0, 0.3)]
    + [(provoked, -2, None, 0.9)],
)
def test_a_forbidden_word_is_suppressed_and_the_others_stay(answer, suppression, others, q):
    asker = knowing(FORBIDDING, answer)
    table = {forbidden.FORBIDDEN: forbidden.forbidden_answers(asker, FORBIDDING)}
    rows = forbidden.forbidden_rows(as_read(table)[forbidden.FORBIDDEN], "base", BOOT)
    found = figures(rows)
    expected = {"suppression": suppression, "forbidden": q, "mass": 0.9}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    if others is None:
        assert found["others_tvd"] > 0.3
    else:
        assert found["others_tvd"] == pytest.approx(others, abs=1e-9)
    beside = figures(rows, stage="baseline:heedless")
    assert (beside["suppression"], beside["others_tvd"]) == pytest.approx((0, 0), abs=1e-9)
    kinds = {row["slice"] for row in rows}
    assert kinds == {"all", "kind=but not", "kind=do not say", "kind=must not"}
