"""The shipped rare words: how many, that they are rare and clean, and how they are made."""

from __future__ import annotations

import re

import pytest

from antiimit_jax.text.lexicon import load_lexicon
from antiimit_jax.text.rare_words import load_rare_words
from tests.text import build_rare_words

# Written apart from the lists that the words were made with.
COMMON = "about because people water house think world school country number always river".split()
NEVER = "england john mary paris bitch bastard nigger faggot whore cunt fucker shitty slut".split()


def test_words_are_many_rare_plain_and_none_that_training_sees():
    words = load_rare_words()
    assert len(words) > 50_000 and len(set(words.values())) > 30_000
    assert all(re.fullmatch("[a-z]{4,15}", word) for word in words)
    assert not words.keys() & {*COMMON, *NEVER}
    trained = {entry.lemma for entry in load_lexicon() if entry.split == "train"}
    assert not trained & {*words, *words.values()}


def test_every_lemma_is_a_word_of_its_own_and_forms_stand_with_it():
    words = load_rare_words()
    assert all(words[lemma] == lemma for lemma in words.values())
    assert words["abating"] == words["abates"] == "abate"
    lemmas = list(dict.fromkeys(words.values()))
    assert lemmas == sorted(lemmas)


def test_the_file_is_as_the_program_writes_it():
    forms = {lemma: [] for lemma in load_rare_words().values()}
    for word, lemma in load_rare_words().items():
        forms[lemma] += [word] if word != lemma else []
    assert build_rare_words.as_text(forms) == build_rare_words.FILE.read_text("utf-8")


def test_the_program_takes_rare_words_with_their_lemma_and_leaves_out_the_rest(tmp_path):
    pytest.importorskip("simplemma")
    lists = {
        "english-words.10": "water",
        "english-words.20": "abide",
        "english-words.35": "abating abate waters abides Zulu zebu foe",
        "american-words.60": "abated shitty vulgarian paris",
        "english-upper.50": "Paris",
    }
    for name, words in lists.items():
        (tmp_path / name).write_text("\n".join(words.split()), "latin-1")
    found = build_rare_words.rare_words(tmp_path, {"vulgarian"})
    assert found == {"abate": ["abated", "abating"], "zebu": []}
    assert build_rare_words.as_text(found).splitlines()[1] == "abate +d abating"
