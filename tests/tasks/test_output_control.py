"""The control task: splits that share nothing, exact counterbalancing, items from seeds alone."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import re

import numpy as np
import pytest

from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.output_control import SPLITS, Mixture, few_shot_turns, without_percents
from antiimit_jax.tasks.templates import HELDOUT_TEMPLATES, TEMPLATES, TRAIN_TEMPLATES, Template
from antiimit_jax.text.formats import build_prompt
from antiimit_jax.text.lexicon import load_lexicon

TRAINED_PERCENTS = {p for p in range(5, 100, 5)} - {15, 35, 65, 85}
WIDE = Mixture(
    templates=tuple(range(len(TEMPLATES))),
    ks=(2, 3, 4, 5),
    k_weights=(4.0, 3.0, 2.0, 1.0),
    shots=(0, 2, 11),
    shot_weights=(0.5, 0.25, 0.25),
)
ASKED = dataclasses.replace(
    WIDE, k_weights=(0.6, 0.2, 0.1, 0.1), shot_weights=(0.8, 0.1, 0.1), heldout_weight=0.1
)


@pytest.fixture(scope="module")
def by_split() -> dict[str, list[Item]]:
    return {split: ASKED.evaluation(split, 800, seed=3) for split in SPLITS}


@pytest.fixture(scope="module")
def trained() -> list[Item]:
    """Items of many training rows."""
    rows = itertools.product(range(40), range(2))
    return [
        item
        for step, row in rows
        for item in itertools.islice(WIDE.training(np.random.default_rng([5, 1, step, row])), 12)
    ]


LEMMA = {entry.word: entry.lemma for entry in load_lexicon()}


def fraction(lemma: str) -> float:
    return int.from_bytes(hashlib.sha256(lemma.encode()).digest()[:8], "big") / 2**64


def lemmas(items: list[Item]) -> set[str]:
    return {LEMMA[word] for item in items for word in item.words}


def percents_of(item: Item) -> list[int]:
    percents = [round(100 * t) for t in item.targets]
    assert np.allclose([p / 100 for p in percents], item.targets, atol=1e-12)
    return percents


def numbers_in(text: str) -> list[int]:
    """All numbers of a request but the 100 of "out of 100"."""
    return [int(n) for n in re.findall(r"\d+", text.replace("out of 100", ""))]


def test_word_splits_share_no_lemma_and_follow_the_hash(by_split, trained):
    train = lemmas(by_split["train"]) | lemmas(by_split["heldout_percent"]) | lemmas(trained)
    test = lemmas(by_split["heldout_words"]) | lemmas(by_split["heldout_both"])
    dev = lemmas(by_split["dev_words"])
    assert len(train) > 1000 and len(dev) > 200 and len(test) > 300
    assert all(fraction(lemma) < 0.7 for lemma in train)
    assert all(0.7 <= fraction(lemma) < 0.85 for lemma in dev)
    assert all(fraction(lemma) >= 0.85 for lemma in test)


def test_percentages_of_an_item_are_all_on_its_splits_side(by_split, trained):
    for split, items in [*by_split.items(), ("train", trained)]:
        for item in items:
            side = set(percents_of(item))
            if split in ("train", "heldout_words", "dev_words"):
                assert side <= TRAINED_PERCENTS
                assert {100 - p for p in side} <= TRAINED_PERCENTS
            else:
                assert not side & TRAINED_PERCENTS


def test_no_heldout_percentage_and_no_heldout_word_stands_in_a_training_prompt(trained):
    heldout = {word for word, lemma in LEMMA.items() if fraction(lemma) >= 0.7}
    phrasing = " ".join(t.opening + t.entry + t.closing + t.prefill for t in TEMPLATES)
    heldout -= set(re.findall(r"\w+", phrasing.lower()))
    seen = set()
    for item in trained:
        for message in item.messages:
            seen |= set(numbers_in(message.content))
            assert not heldout & set(re.findall(r"\w+", message.content)), item.item
    assert seen and seen <= TRAINED_PERCENTS


def test_all_percentages_from_1_to_99_are_asked_and_each_item_sums_to_100():
    pairs = Mixture(ks=(2,), k_weights=(1.0,))
    seen = set()
    for split in ("heldout_words", "heldout_both"):
        for item in pairs.evaluation(split, 2000, seed=0):
            assert sum(percents_of(item)) == 100
            seen |= set(percents_of(item))
    assert seen == set(range(1, 100))


def test_items_have_2_to_5_distinct_words_and_shares_that_sum_to_one(by_split):
    for items in by_split.values():
        assert {len(item.words) for item in items} == {2, 3, 4, 5}
        for item in items:
            assert len(set(item.words)) == len(item.words) == len(item.targets)
            assert sum(percents_of(item)) == 100 and min(item.targets) > 0


def test_the_request_names_words_and_percentages_in_order_and_the_prior_only_words(by_split):
    for item in itertools.chain.from_iterable(by_split.values()):
        request, prior = item.messages[-2], without_percents(item)[-2]
        assert request.role == prior.role == "user"
        assert numbers_in(request.content) == percents_of(item)
        assert not re.search(r"\d|%|percent|probabilit", prior.content.lower())
        for text in (request.content, prior.content):
            places = [re.search(rf"\b{word}\b", text) for word in item.words]
            assert all(places), (text, item.words)
        assert item.messages[-1] == without_percents(item)[-1]
        assert item.messages[-1].role == "assistant"
        assert item.messages[:-2] == without_percents(item)[:-2]


def test_words_stand_in_the_order_the_item_gives(by_split):
    for item in by_split["heldout_words"][:200]:
        text = item.messages[-2].content[len(TEMPLATES[item.facets["template"]].opening) :]
        named = [w for w in re.findall(r"[a-z]+", text) if w in item.words]
        assert tuple(named) == item.words


def test_templates_are_split_by_the_hash_of_their_text():
    heldout = [
        hashlib.sha256((t.opening + t.entry + t.then + t.share + t.prefill).encode()).digest()[0]
        < 77
        for t in TEMPLATES
    ]
    assert HELDOUT_TEMPLATES == tuple(np.flatnonzero(heldout))
    assert TRAIN_TEMPLATES == tuple(np.flatnonzero(np.logical_not(heldout)))
    assert len(HELDOUT_TEMPLATES) >= 2 and len(TRAIN_TEMPLATES) >= 4
    assert len({t.opening for t in TEMPLATES}) == len(TEMPLATES)
    assert Mixture().templates == TRAIN_TEMPLATES


def test_only_the_mixtures_templates_counts_and_shots_are_used():
    mixture = Mixture(
        templates=TRAIN_TEMPLATES[:2],
        ks=(2, 4),
        k_weights=(1.0, 1.0),
        shots=(0, 2),
        shot_weights=(1.0, 1.0),
    )
    drawn = [
        item
        for row in range(60)
        for item in itertools.islice(mixture.training(np.random.default_rng([0, 1, 0, row])), 4)
    ]
    for items in (drawn, mixture.evaluation("heldout_both", 160, seed=0)):
        assert {item.facets["template"] for item in items} == set(TRAIN_TEMPLATES[:2])
        assert {len(item.words) for item in items} == {2, 4}
        assert {item.facets["n_shots"] for item in items} == {0, 2}


def by_set(items: list[Item]) -> list[list[Item]]:
    return [list(of_set) for _, of_set in itertools.groupby(items, lambda item: item.cluster)]


@pytest.mark.parametrize("split", SPLITS)
def test_word_sets_are_counterbalanced_in_fours(by_split, split):
    items = by_split[split]
    for of_set in by_set(items):
        assert [item.facets["order"] for item in of_set] == list(range(len(of_set)))
        for name in ("template", "template_heldout", "n_shots"):
            assert len({item.facets[name] for item in of_set}) == 1
    for block in zip(*[iter(items)] * 4, strict=True):
        first = block[0]
        assert len({(item.cluster, item.split) for item in block}) == 1
        assert len({item.facets["shot_set"] for item in block}) == 1
        orders = collections.Counter(item.words for item in block)
        assert orders == {first.words: 2, first.words[::-1]: 2} or len(first.words) < 2
        shares = [tuple(dict(zip(i.words, i.targets))[w] for w in first.words) for i in block]
        # Two assignments of the percentages to the words, each in both orders.
        assert shares[0] == shares[3] == first.targets
        assert shares[1] == shares[2] == first.targets[::-1]
        assert block[0].words == block[1].words != block[2].words == block[3].words
        places = collections.Counter(
            (word, i) for item in block for i, word in enumerate(item.words)
        )
        if len(first.words) == 2:
            assert set(places.values()) == {2}


def distance(item: Item) -> int:
    return abs(percents_of(item)[0] - 50)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("n_items", [200, 1000])
def test_pairs_are_asked_at_two_distances_and_all_distances_alike(split, n_items):
    """As often as the sampler draws them, to within one word set; |p - 1/2| = 0 besides."""
    sets = by_set(Mixture().evaluation(split, n_items, seed=1))
    met = collections.Counter(d for of_set in sets for d in {distance(item) for item in of_set})
    trained = split in ("train", "heldout_words", "dev_words")
    possible = {abs(p - 50) for p in range(1, 100) if (p in TRAINED_PERCENTS) == trained}
    for d in possible:
        share = len(sets) * (2 if d else 1) / len(possible - {0})
        assert abs(met[d] - share) < 1
    for of_set in sets:
        far = {distance(item) for item in of_set} - {0}
        assert len(far) == 2 and max(far) - min(far) >= (max(possible) - min(possible)) / 4
        assert len(of_set) in (8, 12)
    first = np.array([of_set[0].targets[0] for of_set in sets])
    assert 0.3 < np.mean(first > 0.5) < 0.7 and first.std() > 0.2  # whatever a set's first item is


def test_more_words_are_asked_as_the_sampler_draws(by_split):
    for items in by_split.values():
        for of_set in by_set(items):
            shots = of_set[0].facets["n_shots"]
            if len(of_set[0].words) > 2:
                assert len(of_set) == 4 and not shots
    (of_set,) = by_set(
        Mixture(ks=(3,), shots=(2,), shot_weights=(1.0,)).evaluation("dev_words", 8, 0)
    )
    assert len(of_set) == 8 and len({item.facets["shot_set"] for item in of_set}) == 2


def test_in_a_split_of_pairs_position_says_nothing_about_the_share():
    items = Mixture().evaluation("heldout_both", 400, seed=1)
    first = np.array([item.targets[0] for item in items])
    assert first.mean() == pytest.approx(0.5, abs=1e-12)
    by_word = collections.defaultdict(list)
    for item in items:
        for place, (word, share) in enumerate(zip(item.words, item.targets)):
            by_word[item.cluster, word].append((place, share))
    for seen in by_word.values():
        places, shares = np.array(seen).T
        assert places.mean() == 0.5 and shares.mean() == pytest.approx(0.5, abs=1e-12)
        assert np.cov(places, shares)[0, 1] == pytest.approx(0, abs=1e-12)


def test_items_and_word_sets_have_names_of_their_own(by_split):
    for items in by_split.values():
        assert len({item.item for item in items}) == len(items)
        assert len(by_set(items)) == len({item.cluster for item in items})
        for item in items:
            assert item.cluster.split(" ") == sorted(item.words)


def test_word_sets_depart_from_a_plain_request_in_one_respect_and_follow_the_weights(by_split):
    kinds = ("n_shots", "template_heldout")
    sets = collections.Counter(
        (len(item.words), *(item.facets[kind] for kind in kinds))
        for item in by_split["heldout_words"]
        if item.facets["order"] == 0
    )
    shares = {(3, 0, False): 0.2, (4, 0, False): 0.1, (5, 0, False): 0.1}
    shares |= {(2, 2, False): 0.1, (2, 11, False): 0.1, (2, 0, True): 0.1, (2, 0, False): 0.3}
    assert sets.keys() == shares.keys()
    for kind, share in shares.items():
        assert abs(sets[kind] - sets.total() * share) < 1


def test_a_plain_mixture_asks_plain_requests_alone():
    items = ASKED.plain.evaluation("heldout_words", 16 * len(TRAIN_TEMPLATES), seed=0)
    kinds = {(len(i.words), i.facets["n_shots"], i.facets["template_heldout"]) for i in items}
    assert kinds == {(2, 0, False)}
    assert {i.facets["template"] for i in items} == set(TRAIN_TEMPLATES)


def test_training_draws_word_counts_and_shots_by_weight(trained):
    rows = list(zip(*[iter(trained)] * 12))
    by_row = [row[0] for row in rows]  # with shots the word count is drawn once a row
    free = [item for item in trained if not item.facets["n_shots"]]
    for drawn, values, weights in (
        ([item.facets["n_shots"] for item in by_row], WIDE.shots, (0.5, 0.25, 0.25)),
        ([len(item.words) for item in by_row], WIDE.ks, (0.4, 0.3, 0.2, 0.1)),
        ([len(item.words) for item in free], WIDE.ks, (0.4, 0.3, 0.2, 0.1)),
    ):
        for value, weight in zip(values, weights):
            spread = np.sqrt(weight * (1 - weight) * len(drawn))
            assert abs(drawn.count(value) - weight * len(drawn)) < 4 * spread
    for row in rows:
        for name in ("template", "n_shots", "shot_set"):
            assert len({item.facets[name] for item in row}) == 1
        if row[0].facets["n_shots"]:
            assert len({item.messages[:-2] for item in row}) == 1


@pytest.mark.parametrize("k", [2, 3])
def test_training_in_both_orders_asks_the_same_requests_from_the_last_word_to_the_first(k):
    once = Mixture(ks=(k,))
    twice = dataclasses.replace(once, both_orders=True)
    take = lambda mixture, n: list(
        itertools.islice(mixture.training(np.random.default_rng([1, 1, 0, 0])), n)
    )
    requests = lambda items: [dict(zip(item.words, item.targets)) for item in items]
    sets = zip(*[iter(take(once, 10))] * 2), zip(*[iter(take(twice, 20))] * 4)
    for pair, four in zip(*sets, strict=True):
        assert [(i.words, i.targets, i.messages) for i in four[:2]] == [
            (i.words, i.targets, i.messages) for i in pair
        ]
        assert [item.words for item in four[2:]] == [pair[0].words[::-1]] * 2
        assert requests(four[2:]) == requests(pair)
        if k == 2:
            assert {(i.words, i.targets) for i in four} == set(
                itertools.product(
                    (pair[0].words, pair[0].words[::-1]), (pair[0].targets, pair[0].targets[::-1])
                )
            )
    assert len({item.item for item in take(twice, 20)}) == 20


def test_training_asks_a_word_set_for_each_of_its_percentages_in_both_assignments():
    mixture, rng = Mixture(percents_per_set=3), np.random.default_rng(1)
    items = list(itertools.islice(mixture.training(rng), 60))
    for of_set in zip(*[iter(items)] * 6, strict=True):
        assert len({item.words for item in of_set}) == 1
        for one, other in zip(of_set[::2], of_set[1::2]):
            assert one.targets == other.targets[::-1]
    assert len({item.words for item in items}) == 10
    assert len({item.targets for item in items}) > 10


def test_a_phrasing_may_name_all_words_before_their_percentages():
    apart = Template(
        opening="Words: ", entry="{word}", then="; chances: ", share="{percent}%", prior_opening=""
    )
    assert apart.request(("river", "apple"), (70, 30)) == "Words: river, apple; chances: 70%, 30%."
    assert apart.prior_request(("river", "apple")) == "river, apple."


@pytest.mark.parametrize(
    "split,asked,given",
    [
        ("train", 1, 12),
        ("train", 12, 12),
        ("train", 13, 20),
        ("train", 208, 208),
        ("heldout_both", 1, 8),
        ("heldout_both", 208, 208),
    ],
)
def test_item_counts_are_rounded_up_to_whole_word_sets(split, asked, given):
    assert len(Mixture().evaluation(split, asked, seed=0)) == given


def test_items_are_functions_of_the_seed_and_the_indices_alone(by_split):
    few_shot_turns.cache_clear()
    for split in reversed(SPLITS):
        assert ASKED.evaluation(split, 800, seed=3) == by_split[split]
    take = lambda *where: list(
        itertools.islice(WIDE.training(np.random.default_rng([where[0], 1, *where[1:]])), 6)
    )
    later, earlier = take(7, 3, 1), take(7, 2, 0)
    assert take(7, 2, 0) == earlier and take(7, 3, 1) == later
    words = lambda items: [item.words for item in items]
    others = [words(take(8, 2, 0)), words(take(7, 3, 0)), words(take(7, 2, 1)), words(earlier)]
    assert all(a != b for a, b in itertools.combinations(others, 2))
    other = ASKED.evaluation("train", 40, seed=4)
    assert words(other) != words(by_split["train"][:40])


def test_evaluation_does_not_ask_the_training_streams_items(trained):
    asked = {item.cluster for item in WIDE.evaluation("train", 400, seed=5)}
    assert len(asked & {item.cluster for item in trained if len(item.words) > 2}) == 0


@pytest.mark.parametrize("split", SPLITS)
def test_at_least_three_in_ten_words_have_two_or_more_tokens(smollm2, by_split, split):
    words = sorted({word for item in by_split[split] for word in item.words})
    tokens = [len(smollm2.tokenizer.encode_plain(" " + word)) for word in words]
    assert np.mean(np.array(tokens) >= 2) >= 0.30


@pytest.mark.parametrize("style", ["chat", "base"])
def test_every_phrasing_leaves_the_answer_open(smollm2, style):
    mixture = dataclasses.replace(ASKED, shots=(0, 2), shot_weights=(0.7, 0.3), heldout_weight=0.3)
    tokenizer = smollm2.tokenizer
    items = mixture.evaluation("heldout_words", 40 * len(TEMPLATES), seed=0)
    assert {item.facets["template"] for item in items} == set(range(len(TEMPLATES)))
    for item in items:
        for messages in (item.messages, without_percents(item)):
            prompt = build_prompt(tokenizer, messages, style)
            prefill = TEMPLATES[item.facets["template"]].prefill
            opened, otherwise = {
                "chat": ("<|im_start|>assistant\n", ""),
                "base": ("\n\n", "Answer:"),
            }[style]
            assert tokenizer.decode(prompt.ids).endswith(opened + (prefill or otherwise))
