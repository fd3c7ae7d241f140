"""The residual broken down: what is found is what the core gives, and all shares are counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.results import BASE
from antiimit_jax.scoring.asks import Ask, FirstToken, Scoring
from antiimit_jax.scoring.top_words import TopWord
from antiimit_jax.scoring.trie import FormPath, WordQuery
from antiimit_jax.suites import control, residual, suite
from antiimit_jax.suites.residual import CATEGORIES, category, partition
from antiimit_jax.tasks.items import Item
from tests.suites.known import Known, by_item
from tests.suites.small import as_read, small_config, values_of

CFG = small_config().residual


def test_found_words_have_the_probability_that_the_core_gives_their_path(asker, runner, lm):
    items = CFG.control.mixture.evaluation("heldout_words", 8, 0)[:3]
    searches = asker().top_words([i.messages for i in items], what="most probable words")
    for item, search in zip(items, searches, strict=True):
        found = search.words
        assert found and search.unvisited >= 0
        assert sum(w.p for w in found) + search.unvisited == pytest.approx(1, abs=1e-5)
        assert [w.p for w in found] == sorted((w.p for w in found), reverse=True)
        prompt = lm.prompt(item.messages)
        paths = [tuple(lm.tokenizer.encode_plain(w.text)) for w in found[:10]]
        texts = [lm.tokenizer.decode(path) for path in paths]
        query = WordQuery(
            prompt.ids,
            tuple(FormPath("", path, n) for n, path in enumerate(dict.fromkeys(paths))),
            len(set(paths)),
        )
        (answer,) = runner.word_probs(runner.base, [query])
        mass = dict(zip(dict.fromkeys(paths), answer.path_mass))
        for word, path, text in zip(found, paths, texts):
            if text == word.text:
                assert word.p >= mass[path] * (1 - 1e-4)


def test_a_partition_by_hand():
    texts = [" apple", "app", " Apple", " APP", " I", "\n", " 70", ' "', "é", "\ufffd", ""]
    p = np.array([0.2, 0.1, 0.1, 0.05, 0.1, 0.15, 0.05, 0.05, 0.05, 0.05, 0.1])
    said = {0: 0.15, 1: 0.02}, {0: 0.15, 1: 0.03, 2: 0.04, 3: 0.01, 5: 0.05}
    first = FirstToken(p=p, said=said, texts=texts)
    as_given, any_case = partition(first, np.array([category(t) for t in texts]))
    expected = {
        "begun": 0.05 + 0.07,
        "refusal": 0.1,
        "quotes_markup": 0.05,
        "digits": 0.05,
        "other_words": 0.06 + 0.04 + 0.05,
        "white_space": 0.1,
        "other_signs": 0.05,
        "end_of_turn": 0.1,
    }
    strict_only = {"target_words": 0.17, "other_case": 0.11}
    assert as_given == pytest.approx(expected | strict_only)
    assert any_case == pytest.approx(expected | {"target_words": 0.28, "other_case": 0.0})


def test_the_classes_are_exactly_the_residual_that_the_words_leave(asker):
    table = as_read(residual.measure(asker(), CFG))["residual"]
    items = control.plain_pairs(CFG.control, 0, CFG.n_items)
    for forms in ("strict", "lenient"):
        scoring = Scoring(forms=forms)
        answers = asker().words(suite.asks_of(items), what="words", scoring=scoring)
        for item, answer in zip(items, answers, strict=True):
            rest = (table["forms"] == forms) & (table["item"] == item.item)
            rest &= table["category"] != "target_words"
            assert table["share"][rest].sum() == pytest.approx(answer.residual, abs=1e-6)


def test_shares_of_the_residual_sum_to_one(asker):
    tables = as_read(residual.measure(asker(), CFG))
    table = tables["residual"]
    assert set(table["category"]) == set(CATEGORIES)
    assert table["share"].min() >= -1e-7
    for forms in ("strict", "lenient"):
        for item in set(table["item"]):
            of_item = (table["forms"] == forms) & (table["item"] == item)
            assert table["share"][of_item].sum() == pytest.approx(1, abs=1e-9)
    rows = residual.score(tables, CFG, Bootstrap(n_boot=0))
    for forms in ("strict", "lenient"):
        shares = {
            name: values_of(rows, slice=f"forms={forms},category={name}")["share"]
            for name in CATEGORIES
        }
        assert sum(shares.values()) == pytest.approx(1, abs=1e-4) and min(shares.values()) >= 0


def test_samples_show_prompts_with_their_most_probable_words(asker):
    found = residual.samples(as_read(residual.measure(asker(), CFG)))
    assert {s["stage"] for s in found} == {"base"} and len(found) == 6
    for sample in found:
        assert len(sample["words"]) == len(sample["targets"]) == len(sample["q"]) == 2
        assert len(sample["top_text"]) == len(sample["top_p"]) > 0
        assert all(word in sample["prompt"] for word in sample["words"])


@pytest.mark.parametrize(
    "text, expected",
    [
        (' "', "quotes_markup"),
        ("**", "quotes_markup"),
        ("<|im_start|>", "quotes_markup"),
        (" 75", "digits"),
        ("12.5%", "digits"),
        (" Sorry", "refusal"),
        ("I'm", "refusal"),
        (" I’m", "refusal"),
        ("", "end_of_turn"),
        ("\n", "white_space"),
        (" banana", "other_words"),
        ("Éb", "other_words"),
        ("\ufffd", "other_signs"),
        (" 🙂", "other_signs"),
    ],
)
def test_first_tokens_fall_into_their_category(text, expected):
    assert category(text) == expected


Says = dict[tuple[str, str], float]  # (first token, the rest of the answer) -> probability
ITEMS = control.plain_pairs(CFG.control, 0, CFG.n_items)
WORDS = sorted({word for item in ITEMS for word in item.words})
VOCABULARY = [" I", ' "', "\n", " 50", " river", " \U0001f642", ""]
VOCABULARY += [f" {form}" for word in WORDS for form in (word, word.upper())]


def forms(word: str, rule: Scoring) -> list[tuple[str, str]]:
    lenient = [(f" {word.upper()}", ""), ("\n", word)]
    return [(f" {word}", ""), *(lenient if rule.forms == "lenient" else [])]


@dataclasses.dataclass(frozen=True)
class Writer(Known):
    """Says what `says` holds of an item, in a vocabulary that has all asked words."""

    says: Callable[[Item], Says] = None

    def first_tokens(
        self, asks: Sequence[Ask], *, what: str, scorings: Sequence[Scoring]
    ) -> list[FirstToken]:
        says = by_item(ITEMS, self.says)
        return [self._begins(ask, says(ask), scorings) for ask in asks]

    def _begins(self, ask: Ask, says: Says, scorings: Sequence[Scoring]) -> FirstToken:
        p, said = np.zeros(len(VOCABULARY)), []
        for (first, _), probability in says.items():
            p[VOCABULARY.index(first)] += probability
        for rule in scorings:
            counted = [form for word in ask.words for form in forms(word, rule)]
            held = dict.fromkeys((VOCABULARY.index(first) for first, _ in counted), 0.0)
            for form in counted:
                held[VOCABULARY.index(form[0])] += says.get(form, 0.0)
            said.append(held)
        return FirstToken(p=p, said=tuple(said), texts=VOCABULARY)

    def top_words(self, prompts: Sequence, *, what: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(words=[TopWord(" river", 1.0)]) for _ in prompts]


def words_as(write: Callable[[str], tuple[str, str]]) -> Callable[[Item], Says]:
    """The asked words in their shares, each written in one way."""
    return lambda item: {write(word): t for word, t in zip(item.words, item.targets)}


def always(first: str, rest: str = "") -> Callable[[Item], Says]:
    return lambda item: {(first, rest): 1.0}


def halves(*says: Callable[[Item], Says]) -> Callable[[Item], Says]:
    """Half of the time one, half the other."""
    return lambda item: {said: p / 2 for half in says for said, p in half(item).items()}


as_asked = words_as(lambda word: (f" {word}", ""))
running_on = words_as(lambda word: (f" {word}", "ish"))
refusing = always(" I", " cannot")


KNOWN = {  # model -> (what it says, shares of strict forms, of lenient forms where they differ)
    "as asked": (as_asked, {"target_words": 1}, None),
    "capitals": (words_as(lambda w: (f" {w.upper()}", "")), {"other_case": 1}, {"target_words": 1}),
    "new line": (words_as(lambda w: ("\n", w)), {"other_case": 1}, {"target_words": 1}),
    "half refuses": (halves(as_asked, refusing), {"target_words": 0.5, "refusal": 0.5}, None),
    "half runs on": (halves(as_asked, running_on), {"target_words": 0.5, "begun": 0.5}, None),
    "refuses": (refusing, {"refusal": 1}, None),
    "quotes": (words_as(lambda w: (' "', f'{w}"')), {"quotes_markup": 1}, None),
    "digits": (always(" 50", "%"), {"digits": 1}, None),
    "another word": (always(" river"), {"other_words": 1}, None),
    "blank line": (always("\n", "\n"), {"white_space": 1}, None),
    "face": (always(" \U0001f642"), {"other_signs": 1}, None),
    "silent": (always(""), {"end_of_turn": 1}, None),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_models_get_their_shares(name):
    says, strict, lenient = KNOWN[name]
    asker = Writer(lambda ask: (0.5, 0.5), BASE, says=says)
    rows = residual.score(as_read(residual.measure(asker, CFG)), CFG, Bootstrap(n_boot=0))
    for policy, expected in (("strict", strict), ("lenient", lenient or strict)):
        for kind in CATEGORIES:
            found = values_of(rows, stage="base", slice=f"forms={policy},category={kind}")
            assert found["share"] == pytest.approx(expected.get(kind, 0), abs=1e-9), kind
