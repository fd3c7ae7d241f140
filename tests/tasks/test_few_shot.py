"""Few-shot sets, the mixture's checks, and the items that find a common beginning."""

from __future__ import annotations

import collections
import itertools
import re

import numpy as np
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.fields import problems
from antiimit_jax.scoring.packing import shared_beginning
from antiimit_jax.scoring.trie import word_query
from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.output_control import (
    N_SHOT_SETS,
    SPLITS,
    Mixture,
    few_shot_turns,
    last_shot,
)
from antiimit_jax.tasks.templates import TEMPLATES, TRAIN_TEMPLATES
from antiimit_jax.text.formats import Message, build_prompt
from antiimit_jax.text.lexicon import words_of

TRAINED_PERCENTS = {p for p in range(5, 100, 5)} - {15, 35, 65, 85}
LEXICON = frozenset(words_of("train"))
ALL = tuple(range(len(TEMPLATES)))
CELLS = list(itertools.product(ALL, (2, 3, 5), range(8)))


def read_turn(template: int, question: Message, answer: Message):
    """(words, percentages, answered word) of one turn, read from its text."""
    opening, prefill = TEMPLATES[template].opening, TEMPLATES[template].prefill
    assert (question.role, answer.role) == ("user", "assistant")
    assert question.content.startswith(opening)
    listing = question.content[len(opening) :].replace("times out of 100", "")
    percents = [int(n) for n in re.findall(r"\d+", listing)]
    words = [w for w in re.findall(r"[a-z]+", listing) if w in LEXICON]
    assert answer.content.startswith(prefill)
    return words, percents, answer.content[len(prefill) :].strip()


def cell(item: Item) -> tuple[int, int]:
    return item.facets["template"], item.facets["shot_set"]


def test_there_are_eight_different_sets_of_the_asked_length():
    assert N_SHOT_SETS == 8
    for template, k in itertools.product(ALL, (2, 3, 4, 5)):
        for n_shots in (2, 11):
            sets = {few_shot_turns(template, k, n_shots, number)[0] for number in range(8)}
            assert len(sets) == 8
            assert {len(turns) for turns in sets} == {2 * n_shots}
    assert few_shot_turns(0, 2, 0, -1) == ((), None)


def test_turns_ask_for_trained_words_and_percentages_and_answer_with_one_of_the_words():
    for template, k, number in CELLS:
        turns, last = few_shot_turns(template, k, 11, number)
        for question, answer in zip(turns[::2], turns[1::2]):
            words, percents, said = read_turn(template, question, answer)
            assert said in words and said in LEXICON
            assert len(percents) == k and sum(percents) == 100
            assert set(percents) <= TRAINED_PERCENTS
        assert last == tuple(p / 100 for p in percents)


def test_answers_are_drawn_with_the_asked_probabilities():
    """Pairs: how often the larger word is said, against the sum of what was asked."""
    said_larger, expected, spread = 0, 0.0, 0.0
    for template, number in itertools.product((0, 1, 2, 3, 6, 8), range(8)):
        turns, _ = few_shot_turns(template, 2, 11, number)
        for question, answer in zip(turns[::2], turns[1::2]):
            words, percents, said = read_turn(template, question, answer)
            assert len(words) == 2
            larger = int(np.argmax(percents))
            said_larger += said == words[larger]
            expected += percents[larger] / 100
            spread += percents[larger] * (100 - percents[larger]) / 1e4
    assert abs(said_larger - expected) < 4 * np.sqrt(spread)
    assert expected < 0.9 * 6 * 8 * 11  # a mode-only answer would be told apart


def test_sets_do_not_depend_on_the_item_the_split_or_the_run():
    mixture = Mixture(templates=TRAIN_TEMPLATES[:2], shots=(2,), shot_weights=(1.0,))
    sets = collections.defaultdict(set)
    for split, seed in itertools.product(SPLITS, (0, 1)):
        for item in mixture.evaluation(split, 128, seed):
            assert len(item.messages) == 2 * 2 + 2
            sets[cell(item)].add((item.messages[:-2], last_shot(item)))
    assert all(0 <= shot_set < 8 for _, shot_set in sets)
    for item in itertools.islice(mixture.training(np.random.default_rng([0, 1, 0, 0])), 5):
        sets[cell(item)].add((item.messages[:-2], last_shot(item)))
    assert set(map(len, sets.values())) == {1}
    assert len(sets) == 16


@pytest.mark.parametrize("count", range(1, len(TRAIN_TEMPLATES) + 1))
def test_shot_sets_are_crossed_with_templates_and_used_alike(count):
    templates = TRAIN_TEMPLATES[:count]
    mixture = Mixture(templates=templates, shots=(2,), shot_weights=(1.0,))
    items = mixture.evaluation("heldout_both", 8 * 16 * count, seed=0)
    for order in (0, 4):
        met = collections.Counter(cell(item) for item in items if item.facets["order"] == order)
        assert met == {pair: 2 for pair in itertools.product(templates, range(8))}


@pytest.mark.parametrize("k", [2, 3])
def test_shot_sets_are_crossed_with_word_sets(k):
    mixture = Mixture(ks=(k,), shots=(2,), shot_weights=(1.0,))
    met = {(i.cluster, i.facets["shot_set"]) for i in mixture.evaluation("dev_words", 160, 0)}
    of_words = collections.Counter(cluster for cluster, _ in met)
    of_sets = collections.Counter(shot_set for _, shot_set in met)
    assert min(of_words.values()) >= 2
    assert len(of_sets) == 8 and min(of_sets.values()) >= 3
    linked = {0}  # from word set to shot set to word set: all of them hang together
    for _ in range(8):
        words = {cluster for cluster, shot_set in met if shot_set in linked}
        linked |= {shot_set for cluster, shot_set in met if cluster in words}
    assert len(linked) == 8


def test_items_without_shots_have_no_set():
    for item in Mixture().evaluation("train", 8, seed=0):
        assert (item.facets["n_shots"], item.facets["shot_set"]) == (0, -1)
        assert last_shot(item) is None
        assert len(item.messages) == 2


@pytest.mark.parametrize(
    "changes,named",
    [
        (dict(ks=(2, 3)), "ks"),
        (dict(k_weights=(-1.0,)), "k_weights"),
        (dict(k_weights=(0.0,)), "k_weights"),
        (dict(ks=(), k_weights=()), "ks"),
        (dict(ks=(1,)), "from 2"),
        (dict(ks=(11,)), "to 10"),
        (dict(shots=(-1,)), "from 0"),
        (dict(shots=(0, 2)), "shot_weights"),
        (dict(templates=()), "templates"),
        (dict(templates=(len(TEMPLATES),)), "templates"),
    ],
)
def test_a_mixture_that_makes_no_sense_names_the_field(changes, named):
    (problem,) = problems(Mixture(**changes), "train.mixture")
    assert "train.mixture" in problem and named in problem


def test_a_sound_mixture_has_no_problems_and_a_bad_one_names_all():
    assert problems(Mixture(), "m") == []
    assert len(problems(Mixture(ks=(1, 2), shots=(-1,), templates=()), "m")) == 4


def test_an_unknown_split_is_refused():
    with pytest.raises(UserError, match="heldout_both"):
        Mixture().evaluation("test", 4, seed=0)


@pytest.mark.parametrize("style", ["chat", "base"])
def test_longest_items_share_what_all_items_of_their_kind_share(smollm2, style):
    def beginning(items):
        prompts = [build_prompt(smollm2.tokenizer, item.messages, style) for item in items]
        queries = [word_query(smollm2.tokenizer, p, i.words) for p, i in zip(prompts, items)]
        return shared_beginning(queries, 10_000)

    for template, (n_shots, shot_set) in itertools.product(ALL, [(0, -1), (2, 3)]):
        mixture = Mixture(templates=(template,), shots=(n_shots,), shot_weights=(1.0,))
        items = mixture.evaluation("heldout_both", 160, seed=0)
        of_set = [item for item in items if item.facets["shot_set"] == shot_set]
        (probes,) = (pair for pair in mixture.longest() if pair[0].facets["shot_set"] == shot_set)
        found = beginning(probes)
        expected = beginning(of_set)
        assert expected == found[: len(expected)]
        entry = TEMPLATES[template].entry
        if entry.index("{word}") < entry.index("{percent}"):
            assert found == expected
        else:  # both probes ask for 50% of their first word, so they share what leads from it there
            between = entry[entry.index("{percent}") : entry.index("{word}")].format(percent=50)
            more = len(smollm2.tokenizer.encode_plain(between.rstrip()))
            assert 0 <= len(found) - len(expected) <= more
