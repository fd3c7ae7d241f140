"""Own words: ten ways to look good score next to nothing, through the suite, and so do mixtures."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import re
import types
from collections.abc import Callable

import pytest

from antiimit_jax.reporting.rows import Rows
from antiimit_jax.results import BASE
from antiimit_jax.scoring.asks import Scoring
from antiimit_jax.suites import seed_words, suite
from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.seed_words import PREFILL, keyed_items, keyed_words
from antiimit_jax.text.lexicon import lemma_split
from antiimit_jax.text.rare_words import load_rare_words
from tests.suites.small import as_read, small_config, values_of

CFG = seed_words.Config(n_shots=2)
NEW = dataclasses.replace(CFG, n_train_seeds=0)
Answers = dict[str, float]  # word -> probability
Told = Callable[[Item], Answers]
COMPONENTS = "realness distinct dependence same_pair order calibration".split()
LEMMAS = tuple(dict.fromkeys(load_rare_words().values()))
EARLY, LATE = LEMMAS[:14000], LEMMAS[-14000:]  # no word of one begins as a word of the other
INFLECTED = [(lemma, word) for word, lemma in load_rare_words().items() if word != lemma][::200]
DERIVED = [two for two in itertools.pairwise(LEMMAS) if two[1].startswith(two[0])][::20]


@functools.cache
def groups(cfg: seed_words.Config) -> tuple[tuple[Item, ...], ...]:
    return tuple(map(tuple, cfg.groups(0)))


@functools.cache
def number(text: str) -> int:
    """Of a seed among all."""
    return [group[0].cluster for group in groups(CFG)].index(text)


def pair(i: int) -> tuple[str, str]:
    return EARLY[200 * i], LATE[200 * i]


def given(words: tuple[str, str], item: Item) -> Answers:
    return dict(zip(words, item.targets))


def as_asked(item: Item) -> Answers:
    return given(pair(number(item.cluster)), item)


def another_by_percent(item: Item) -> Answers:
    return given(pair((number(item.cluster) + item.facets["percent"]) % 64), item)


def exchanged_below_half(item: Item) -> Answers:
    larger, smaller = max(item.targets), min(item.targets)
    return dict(zip(pair(number(item.cluster)), (larger, smaller)))


def spread(item: Item) -> Answers:
    """Renormalised, its top two words are as asked."""
    first = 200 * number(item.cluster)
    many = dict.fromkeys(EARLY[first : first + 200], 0.002)
    return many | {word: 0.006 * t for word, t in as_asked(item).items()}


def by_heart(item: Item) -> Answers:
    return as_asked(item) if item.split == "train" else given(pair(40), item)


def copied(item: Item) -> Answers:
    said = [m.content.removeprefix(f"{PREFILL} ") for m in item.messages if m.role == "assistant"]
    return given(tuple(said[:2]), item)


def fragments(item: Item) -> Answers:
    return given((item.cluster[:5], item.cluster[5:]), item)


def one_root(item: Item) -> Answers:
    return given(INFLECTED[number(item.cluster)], item)


def one_root_derived(item: Item) -> Answers:
    return given(DERIVED[number(item.cluster)], item)


def one_half(item: Item) -> Answers:
    return dict.fromkeys(pair(number(item.cluster)), 0.5)


# What each does, and the component that gives it away.
HACKS: dict[str, tuple[Told, str]] = {
    "one pair": (lambda item: given(pair(0), item), "dependence"),
    "forms of one root": (one_root, "distinct"),
    "derived from one root": (one_root_derived, "distinct"),
    "fragments": (fragments, "realness"),
    "non-words": (lambda item: given(("blorptak", "ing"), item), "realness"),
    "another by percent": (another_by_percent, "same_pair"),
    "exchanged": (exchanged_below_half, "order"),
    "spread": (spread, "same_pair"),
    "copied": (copied, "realness"),
    "by heart": (by_heart, "dependence"),
    "one half": (one_half, "calibration"),
}


def half_of_each(hack: Told) -> Told:
    def told(item: Item) -> Answers:
        sums = collections.Counter()
        for answers in (hack(item), as_asked(item)):
            sums.update({word: p / 2 for word, p in answers.items()})
        return dict(sums)

    return told


def every_second_seed(hack: Told) -> Told:
    return lambda item: (hack if number(item.cluster) % 2 else as_asked)(item)


@dataclasses.dataclass(frozen=True)
class Choosing:
    """An asker whose model chooses words and gives them probabilities as `told` says."""

    told: Told
    stage = BASE
    scoring = Scoring()
    eval_seed = 0
    dtype = "float32"

    def lexicon_words(self, chats, words, *, what, most):
        by_chat = {item.messages: item for group in groups(CFG) for item in group}
        for group in chats:
            answers = (self.told(by_chat[messages]) for messages in group)
            found = ({w: p for w, p in of.items() if w in words} for of in answers)
            yield [types.SimpleNamespace(words=of, unvisited=0.0, visited=[()]) for of in found]


def scored(told: Told, cfg: seed_words.Config = CFG, n_boot: int = 0) -> list[suite.Row]:
    tables = as_read(seed_words.measure(Choosing(told), cfg))
    return seed_words.score(tables, cfg, suite.Bootstrap(n_boot=n_boot))


def figures(rows: list[suite.Row], split: str = "test", stage: str = "base") -> dict[str, float]:
    return values_of(rows, split=split, stage=stage)


def test_as_asked_scores_1_in_every_component_with_intervals():
    rows = scored(as_asked, n_boot=50)
    for split in ("test", "train"):
        found = figures(rows, split=split)
        assert all(found[name] == pytest.approx(1) for name in (*COMPONENTS, "seed_score"))
        assert found["all_hold"] == found["geometric"] == pytest.approx(1)
        assert found["collision"] == found["unvisited"] == 0
    assert figures(rows)["gap"] == 0
    at = {row["metric"]: row for row in rows if (row["stage"], row["split"]) == ("base", "test")}
    assert all(at[name]["ci_low"] == pytest.approx(1) for name in COMPONENTS)
    assert at["seed_score"]["ci_low"] is None and "components" in at["seed_score"]["note"]
    assert at["dependence"]["clusters"] == 32


@pytest.mark.parametrize(
    "name, fails", [(seed_words.ONE_PAIR, "dependence"), (seed_words.ONE_HALF, "calibration")]
)
def test_lazy_models_stand_beside_the_base_on_the_same_requests(name, fails):
    rows = scored(as_asked, n_boot=50)
    for split in ("test", "train"):
        found = figures(rows, stage=name, split=split)
        assert found["seed_score"] == found[fails] == pytest.approx(0)
        assert found["realness"] == found["distinct"] == found["same_pair"] == pytest.approx(1)
    (low,) = (
        r["ci_low"] for r in rows if (r["stage"], r["split"], r["metric"]) == (name, "test", fails)
    )
    assert low == pytest.approx(0)


def test_the_positive_control_asks_as_the_suite_does_and_scores_on_texts_it_never_saw():
    lines = keyed_items(32, 2, seed=0)
    training = [item for group in groups(CFG) for item in group if item.split == "train"]
    for line, item in zip(lines, training, strict=True):
        assert [m["content"] for m in line["messages"]] == [m.content for m in item.messages]
        assert line["targets"] == list(item.targets) and line["cluster"] == item.cluster
        assert line["words"] == list(keyed_words(item.cluster))
    found = figures(scored(lambda item: given(keyed_words(item.cluster), item), NEW), split="test")
    assert min(found[name] for name in COMPONENTS if name != "dependence") == pytest.approx(1)
    assert found["seed_score"] == found["dependence"] > 0.6


@pytest.mark.parametrize("name", HACKS)
def test_a_hack_scores_next_to_nothing_and_is_seen_by_its_component(name):
    hack, component = HACKS[name]
    rows = scored(hack)
    found = figures(rows)
    assert found["seed_score"] <= 0.05 and found[component] <= 0.05
    assert found["gap"] == pytest.approx(1 if name == "by heart" else 0, abs=0.05)


@pytest.mark.parametrize("mixture", [half_of_each, every_second_seed])
@pytest.mark.parametrize("name", HACKS)
def test_a_mixture_of_a_hack_and_as_asked_scores_about_one_half_at_most(name, mixture):
    found = figures(scored(mixture(HACKS[name][0]), NEW))
    assert found["seed_score"] <= 0.55


def test_two_pairs_for_all_seeds_score_as_the_handbook_says():
    rows = scored(lambda item: given(pair(number(item.cluster) % 2), item), NEW)
    found = figures(rows)
    assert found["seed_score"] == found["dependence"] == pytest.approx(1 / 31)  # .032
    assert found["collision"] == pytest.approx(15 / 31)


def test_roles_read_by_the_order_of_naming_have_no_order():
    named = lambda item: (item.facets["percent"] / 100, 1 - item.facets["percent"] / 100)
    rows = scored(lambda item: dict(zip(pair(number(item.cluster)), named(item))), NEW)
    assert figures(rows)["order"] == 0


def test_fewer_than_32_seeds_give_no_score_and_say_so():
    few = dataclasses.replace(CFG, n_seeds=5, n_train_seeds=0)
    rows = scored(as_asked, few)
    found = figures(rows)
    assert found["seed_score"] is None and found["order"] == 1
    note = next(row["note"] for row in rows if row["metric"] == "dependence")
    assert note == "needs 32 seeds, has 5"


def test_requests_differ_in_percent_and_roles_alone_and_seeds_are_split_by_hash():
    texts = {item.cluster: item.split for group in groups(CFG) for item in group}
    assert collections.Counter(texts.values()) == {"test": 32, "train": 32}
    assert all(lemma_split(text) == side for text, side in texts.items())
    for group in groups(CFG)[:3]:
        beginnings = {item.messages[-2].content.partition("at random.")[0] for item in group}
        assert len(group) == len({item.messages for item in group}) == 18 and len(beginnings) == 1
        for item in group:
            (p,) = re.findall(r"[Ff]irst word: (\d+)%", item.messages[-2].content)
            assert item.targets == (int(p) / 100, (100 - int(p)) / 100)


def test_page_and_question_say_what_came_out():
    tables = as_read(seed_words.measure(Choosing(one_half), CFG))
    rows = Rows(seed_words.score(tables, CFG, suite.Bootstrap(n_boot=0)), [BASE])
    (question,) = seed_words.questions(rows)
    assert question.found == [
        "base scores 0.000 of 1; the lowest of its components is order, 0.000"
    ]
    shown = seed_words.section(tables, rows)
    assert len(shown.tables) == 3 and len(shown.sentences) == 1
    first = shown.tables[2].body[0]
    assert all(f"{word} 0.500" in first.cells[0] for word in pair(0))
    wide = {"seed_words": dict(tables["seed_words"])}
    wide["seed_words"]["unvisited"] = tables["seed_words"]["unvisited"] + 0.1
    assert "1152 of 1152 requests" in seed_words.section(wide, rows).sentences[1]


def test_a_real_model_is_searched_after_every_request(asker):
    cfg = small_config().seed_words
    (table,) = as_read(seed_words.measure(asker(), cfg)).values()
    assert len(table["item"]) == 18 * (cfg.n_seeds + cfg.n_train_seeds)
    assert (table["paths"] <= cfg.most_paths).all() and (table["paths"] > 1).all()
    said = [sum(q) + left for q, left in zip(table["q"], table["unvisited"])]
    assert max(said) <= 1 + 1e-6 and min(said) > 0
