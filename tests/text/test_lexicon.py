"""The shipped words and percentages: counts, rules, and that nothing stands on both sides."""

from __future__ import annotations

import collections
import hashlib
import importlib.resources
import itertools
import string

import numpy as np
import pytest
from scipy import stats

from antiimit_jax.errors import UserError
from antiimit_jax.models.catalog import CATALOG, embedded_file
from antiimit_jax.text import lexicon
from tests.text import build_lexicon

DATA = importlib.resources.files("antiimit_jax.text") / "data"
# Written apart from build_lexicon's list, so that an entry lost there is still caught here.
NEVER = (
    "the with and because through their fifty hundred dozen percent half quarter ratio probability "
    "word answer sorry idiot moron bastard murder suicide kill gun bomb nude sex england john mary"
).split()


def _table() -> list[list[str]]:
    lines = (DATA / "words.tsv").read_text("utf-8").splitlines()
    assert "canary" in lines[0]
    assert lines[1].split("\t") == ["word", "lemma", "split", "tokens"]
    return [line.split("\t") for line in lines[2:]]


def test_words_are_many_plain_and_sorted():
    words = [entry.word for entry in lexicon.load_lexicon()]
    assert len(words) >= 4000
    assert words == sorted(set(words))
    assert all(3 <= len(w) <= 11 and set(w) <= set(string.ascii_lowercase) for w in words)
    assert not set(words) & set(NEVER)


def test_no_two_words_share_a_lemma_and_no_word_is_inflected():
    entries = lexicon.load_lexicon()
    assert len({entry.lemma for entry in entries}) == len(entries)
    assert all(entry.word == entry.lemma for entry in entries)
    words = {entry.word for entry in entries}
    plural_or_past = {w + ending for w in words for ending in ("s", "ed", "ing")}
    # Lookalikes with a meaning of their own: nouns and verbs that are nobody's ending.
    assert words & plural_or_past <= {"bobsled", "seedling", "duckling", "handwriting"}


def test_lemmas_agree_with_simplemma():
    simplemma = pytest.importorskip("simplemma")
    wrong = [e for e in lexicon.load_lexicon() if simplemma.lemmatize(e.word, "en") != e.lemma]
    assert not wrong


def test_stored_split_is_the_hash_of_the_lemma():
    for (word, lemma, split, tokens), entry in zip(_table(), lexicon.load_lexicon(), strict=True):
        # In hundredths of 2**64, compared in whole numbers on the hexadecimal digest.
        place = int(hashlib.sha256(lemma.encode()).hexdigest()[:16], 16) * 100
        assert split == ("train" if place < 70 * 2**64 else "dev" if place < 85 * 2**64 else "test")
        assert split == entry.split == lexicon.lemma_split(lemma)
        assert (word, lemma, int(tokens)) == (entry.word, entry.lemma, entry.tokens)


def test_splits_are_disjoint_and_near_their_shares():
    words = {split: set(lexicon.words_of(split)) for split in ("train", "dev", "test")}
    total = len(lexicon.load_lexicon())
    assert len(set.union(*words.values())) == sum(map(len, words.values())) == total
    for split, share in (("train", 0.7), ("dev", 0.15), ("test", 0.15)):
        assert abs(len(words[split]) / total - share) < 0.02


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_share_of_words_with_two_or_more_tokens(split):
    tokens = [entry.tokens for entry in lexicon.load_lexicon() if entry.split == split]
    assert min(tokens) == 1
    assert np.mean(np.array(tokens) >= 2) >= 0.30


def test_license_of_the_words_is_shipped():
    text = (DATA / "LICENSE-words").read_text("utf-8")
    for needed in ("SCOWL", "Copyright 2000-2011 by Kevin Atkinson", "WordNet", "Geoff Kuenning"):
        assert needed in text


def test_percent_sides():
    assert lexicon.TRAIN_PERCENTS == (5, 10, 20, 25, 30, 40, 45, 50, 55, 60, 70, 75, 80, 90, 95)
    for p in range(1, 100):
        expected = p % 5 == 0 and p not in (15, 35, 65, 85)
        assert (p in lexicon.TRAIN_PERCENTS) == expected
        assert (100 - p in lexicon.TRAIN_PERCENTS) == expected


@pytest.mark.parametrize("side", ["train", "heldout"])
@pytest.mark.parametrize("k", [2, 3, 5, 10, 20])
def test_sampled_percents_are_positive_sum_to_100_and_stay_on_one_side(side, k):
    rng = np.random.default_rng(k)
    for _ in range(20):
        percents = lexicon.sample_percents(rng, k, side)
        assert len(percents) == k and sum(percents) == 100 and min(percents) > 0
        assert {(p in lexicon.TRAIN_PERCENTS) for p in percents} == {side == "train"}


@pytest.mark.parametrize("k", [2, 3])
def test_sampling_is_uniform_over_compositions(k):
    expected = [
        parts
        for parts in itertools.product(range(5, 100, 5), repeat=k)
        if sum(parts) == 100 and not set(parts) & {15, 35, 65, 85}
    ]
    rng = np.random.default_rng(0)
    n = 100 * len(expected)
    counts = collections.Counter(map(tuple, lexicon.sample_many(rng, k, "train", n).tolist()))
    assert set(counts) == set(expected)
    chi2 = sum((counts[parts] - 100) ** 2 / 100 for parts in expected)
    freedom = len(expected) - 1
    assert chi2 < freedom + 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("k", [2, 3, 5, 10])
def test_shares_are_flat_over_the_simplex_so_each_follows_a_beta_distribution(k):
    percents = lexicon.sample_many(np.random.default_rng(k), k, "heldout", 40_000)
    grid = np.array(lexicon.HELDOUT_PERCENTS)
    beta = stats.beta(1, k - 1).cdf((grid + 0.5) / 100)
    for place in (0, k - 1):
        below = (percents[:, place, None] <= grid).mean(axis=0)
        # .028 at most is the grid, of which no share is 0 and the trained percentages are missing.
        assert abs(below - beta).max() < 0.04
    rounded = np.random.default_rng(k).multinomial(100, np.full(k, 1 / k), 40_000)[:, 0]
    near_equal = (rounded[:, None] <= grid).mean(axis=0)
    assert abs(near_equal - beta).max() > 0.2  # what another law would show


@pytest.mark.parametrize("k,side", [(1, "heldout"), (0, "train"), (21, "train"), (101, "heldout")])
def test_impossible_counts_are_refused(k, side):
    with pytest.raises(UserError, match="sum to 100"):
        lexicon.sample_percents(np.random.default_rng(0), k, side)


def test_unknown_side_is_refused():
    with pytest.raises(UserError, match="train or heldout"):
        lexicon.sample_percents(np.random.default_rng(0), 2, "test")


def test_the_tool_makes_the_stored_table_again_and_names_a_word_that_breaks_a_rule(tmp_path):
    pytest.importorskip("simplemma")
    entry = CATALOG["smollm2-135m-instruct"]
    dictionary = tmp_path / "words"
    words = build_lexicon.stored_words()
    dictionary.write_text("\n".join(words))
    text, faults = build_lexicon.table(words, dictionary, embedded_file(entry))
    assert not faults and text == (DATA / "words.tsv").read_text("utf-8")
    _, faults = build_lexicon.table({"rivers", "qwxz"}, dictionary, embedded_file(entry))
    assert faults == ["qwxz: not in SCOWL's small list", "rivers: not in SCOWL's small list"]
    with pytest.raises(UserError, match="wamerican-small"):
        build_lexicon.words_of(tmp_path / "none")
