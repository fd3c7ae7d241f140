"""Rungs: their targets, their exchanged twins and the questions about them."""

from __future__ import annotations

import collections
import re
from fractions import Fraction

import numpy as np
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.tasks.rungs import (
    RUNGS,
    UNNUMBERED,
    composed_share,
    rung_items,
    second_asks,
    wordings,
)
from antiimit_jax.tasks.sequences import PLACES, at_places
from antiimit_jax.tasks.unnumbered import QUANTIFIERS, forbidding, quantified
from antiimit_jax.text.lexicon import HELDOUT_PERCENTS, TRAIN_PERCENTS, words_of

_COUNTED = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "seven": 7, "nine": 9}
_COUNTED |= {"ten": 10, "eleven": 11, "thirteen": 13, "seventeen": 17, "nineteen": 19, "twenty": 20}
NUMBERED = [rung for rung in RUNGS if rung not in UNNUMBERED]
PAIRS = [rung for rung in NUMBERED if rung != "L3"]


@pytest.mark.parametrize("rung", NUMBERED)
def test_sets_are_distinct_named_apart_and_the_same_for_a_seed(rung):
    items = rung_items(rung, 20, 0)
    assert items == rung_items(rung, 20, 0) != rung_items(rung, 20, 1)
    assert len({item.item for item in items}) == len(items)
    assert len({item.cluster for item in items}) == 20
    assert {item.facets["kind"] for item in items} == {w.kind for w in wordings(rung)}
    assert all(sum(item.targets) == pytest.approx(1) for item in items)


@pytest.mark.parametrize("rung", PAIRS)
def test_a_pair_is_asked_in_both_orders_and_both_assignments_alike_often(rung):
    by_set = collections.defaultdict(collections.Counter)
    for item in rung_items(rung, 20, 0):
        first, second = item.words
        larger = first if item.targets[0] > 0.5 else second
        by_set[item.cluster][first, larger] += 1
    for counts in by_set.values():
        assert len(counts) == 4 and set(counts.values()) == {2}


def test_more_words_are_asked_for_two_lists_of_shares_in_both_orders_and_end_for_end():
    by_set = collections.defaultdict(list)
    for item in rung_items("L3", 20, 0):
        by_set[item.cluster].append((item.words, item.targets))
    assert collections.Counter(len(asked[0][0]) for asked in by_set.values()) == {
        k: 5 for k in (3, 4, 5, 10)
    }
    for asked in by_set.values():
        assert len(asked) == 8 and len({tuple(sorted(targets)) for _, targets in asked}) == 2
        for words, targets in asked:
            assert (words[::-1], targets) in asked and (words, targets[::-1]) in asked


def test_what_is_held_out_is_what_the_rung_is_about():
    words, percents = {}, {}
    for rung in ("L0", "L1", "L2", "L5", "L11"):
        items = rung_items(rung, 20, 0)
        words[rung] = {word for item in items for word in item.words}
        percents[rung] = {round(100 * target) for item in items for target in item.targets}
    assert words["L1"] <= set(words_of("test"))
    assert all(words[rung] <= set(words_of("train")) for rung in words if rung != "L1")
    assert percents["L2"] <= set(HELDOUT_PERCENTS)
    assert all(percents[rung] <= set(TRAIN_PERCENTS) for rung in percents if rung != "L2")


def test_chances_in_other_styles_are_the_targets():
    read = {
        "fractions": lambda text: re.findall(r"\d+/\d+", text),
        "decimals": lambda text: re.findall(r"0\.\d+", text),
    }
    items = rung_items("L6", 20, 0)
    for item in items:
        kind, text = item.facets["kind"], item.messages[0].content
        if kind in read:
            assert tuple(float(Fraction(x)) for x in read[kind](text)) == item.targets
        elif kind in ("odds", "ratios"):
            x, y = map(int, re.findall(r"\d+", text))
            assert x / (x + y) == pytest.approx(item.targets[0])
        else:
            part, whole = re.search(r"(\w+) in (\w+) draws", text).groups()
            assert _COUNTED[part] / _COUNTED[whole] == pytest.approx(item.targets[0])


def test_composed_requests_and_their_twins_by_hand():
    numbers = {"n": 4, "x": 40, "y": 10, "z": 50}
    assert composed_share("n / (n + 1)", numbers) == Fraction(4, 5)
    assert composed_share("1 - x / 100", numbers) == Fraction(3, 5)
    assert composed_share("x / (x + y)", numbers) == Fraction(4, 5)
    assert composed_share("n * n / (n * n + z)", numbers) == Fraction(16, 66)
    with pytest.raises(ValueError, match="no arithmetic"):
        composed_share("n()", numbers)


@pytest.mark.parametrize("rung", ("L10", "L11"))
def test_a_twin_has_the_same_words_and_another_answer(rung):
    by_set = collections.defaultdict(dict)
    for item in rung_items(rung, 20, 0):
        by_set[item.cluster][item.facets["order"]] = item
    for items in by_set.values():
        for order in range(4):
            one, other = items[order], items[order + 4]
            assert one.words == other.words and one.targets != other.targets
            assert one.messages != other.messages


def test_a_question_offers_the_requested_percentage_once_and_both_places_alike_often():
    for rung in NUMBERED:
        items = {item.item: item for item in rung_items(rung, 20, 0)}
        asked_first = []
        for question in second_asks(list(items.values())):
            (right,) = [w for w, t in zip(question.words, question.targets) if t]
            assert len(set(question.words)) == 4 and sum(question.targets) == 1
            request = items[question.item]
            assert request.messages[0].content in question.messages[0].content
            about = re.search(r"ask for “(.+?)”", question.messages[0].content)[1]
            place = request.words.index(about)
            assert int(right) == round(100 * request.targets[place])
            asked_first.append(place == 0)
        if rung in PAIRS:
            assert sum(asked_first) * 2 == len(asked_first)


def test_more_sets_than_a_rung_has_words_for_are_refused():
    with pytest.raises(UserError, match=r"ladder.n_sets = 500: L8 has words for \d+ sets"):
        rung_items("L8", 500, 0)


def test_words_before_a_place_are_drawn_as_requested():
    requests = rung_items("L9", 20, 0)
    drawn = []
    for request in requests:
        items = at_places(request, 0)
        assert [item.facets["place"] for item in items] == list(PLACES)
        assert items == at_places(request, 0)
        before = ""
        for item in items:
            said = item.messages[1].content.removeprefix("Words:").split()
            assert item.messages[1].content.startswith(before)
            assert len(said) == item.facets["place"] - 1
            assert said.count(item.words[0]) == item.facets["said"]
            before = item.messages[1].content
        drawn.append(items[-1].facets["said"] / (PLACES[-1] - 1) - request.targets[0])
    assert any(at_places(request, 0) != at_places(request, 1) for request in requests)
    assert abs(np.mean(drawn)) < 3 * 0.5 / (15 * len(requests)) ** 0.5


def test_quantifiers_are_said_of_either_word_in_every_wording():
    by_scale = collections.defaultdict(list)
    for item in quantified(3, 0):
        assert item.messages[0].content.count(QUANTIFIERS[item.facets["level"]]) == 1
        by_scale[item.cluster, item.facets["kind"], item.words[0]].append(item.facets["level"])
    assert len(by_scale) == 3 * len(wordings("L7")) * 2
    assert all(levels == list(range(len(QUANTIFIERS))) for levels in by_scale.values())


def test_each_of_three_words_is_forbidden_in_either_order():
    by_set = collections.defaultdict(set)
    for item in forbidding(3, 0):
        text = item.messages[0].content
        place = item.facets["forbidden"]
        twice = [word for word in item.words if len(re.findall(rf"\b{word}\b", text)) == 2]
        assert twice == ([] if place < 0 else [item.words[place]])
        by_set[item.cluster].add((item.words, place))
    assert {len(asked) for asked in by_set.values()} == {8}
