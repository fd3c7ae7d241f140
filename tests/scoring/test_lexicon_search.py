"""The search through a lexicon: exact probabilities in any tokens, best first, an honest bound."""

from __future__ import annotations

import itertools
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.scoring import lexicon_search
from antiimit_jax.scoring.batching import pack_batches
from antiimit_jax.scoring.lexicon_search import (
    UNVISITED,
    Lexicon,
    LexiconSearch,
    following,
    search_groups,
)
from antiimit_jax.text.formats import text_prompt
from tests.enumeration import PlainModel

WORDS = ("apple", "apples", "applesauce", "river", "rock", "carpet", "carton", "zebra")
LEFT = 1e-3
LIKE = ("Pick a word: apple or rock?\n\nAnswer:", "Pick a word: apple or carton?\n\nAnswer:")


@pytest.fixture(scope="module")
def plain(tiny) -> PlainModel:
    return PlainModel(tiny.decoder, tiny.variables, 48)


@pytest.fixture(scope="module")
def words(tiny) -> tuple[str, ...]:
    """Some words, and all that the tokenizer has letters for in one token: much of the mass."""
    pieces = (piece.decode(errors="replace").strip() for piece in tiny.tokenizer.pieces)
    letters = {piece for piece in pieces if re.fullmatch("[a-z]+", piece)}
    return tuple(sorted(letters | set(WORDS)))


@pytest.fixture(scope="module")
def lexicon(tiny, words) -> Lexicon:
    return Lexicon(words, tiny.tokenizer.id_of_piece)


@pytest.fixture(scope="module")
def ask(tiny):
    """Answers rounds of queries as a runner does, and keeps them in `rounds`."""
    follow = jax.jit(following, static_argnums=0)

    def ask(queries):
        ask.rounds.append([[path.tokens for path in query.paths] for query in queries])
        for work in pack_batches(queries, tiny.stops):
            for batch, rows in zip(work.batches, work.queries):
                result = follow(tiny.decoder, tiny.variables, tiny.stops, batch)
                result = type(result)(*map(np.asarray, result))
                starts = [np.cumsum([0, *(queries[i].n_words for i in row)]) for row in rows]
                places = [
                    (i, b, slice(start, start + queries[i].n_words), None)
                    for b, row in enumerate(rows)
                    for i, start in zip(row, starts[b])
                ]
                yield result, places

    ask.rounds = []
    return ask


@pytest.fixture(scope="module")
def searched(tiny, lexicon, ask) -> SimpleNamespace:
    """Two prompts that are alike, searched as far as it goes, and the rounds that it took."""
    prompts = [text_prompt(tiny.tokenizer, text).ids for text in LIKE]
    done = []
    with pytest.MonkeyPatch.context() as patch:  # the random model is sure of a few tokens
        patch.setattr(lexicon_search, "UNVISITED", LEFT)
        ((one, other),) = search_groups([prompts], lexicon, 10**6, ask, done.append)
    rounds = [queries[0] for queries in ask.rounds]  # one prompt is searched at a time
    second = next(i for i, paths in enumerate(rounds) if i and () in paths)
    return SimpleNamespace(
        prompts=prompts,
        searches=(one, other),
        lead=rounds[:second],
        begun=rounds[second],
        done=sum(done),
    )


def all_cuts(tokenizer, text: bytes) -> list[tuple[int, ...]]:
    """All ways to write a text in tokens."""
    if not text:
        return [()]
    ends = (end for end in range(1, len(text) + 1) if text[:end] in tokenizer.id_of_piece)
    return [
        (tokenizer.id_of_piece[text[:end]], *rest)
        for end in ends
        for rest in all_cuts(tokenizer, text[end:])
    ]


def said(plain, tiny, prompt, path) -> float:
    """P(the answer is this path, then a terminator)."""
    ending = np.exp(plain.log_next(prompt + path))[tiny.stops].sum()
    return float(np.exp(plain.log_path(prompt, path)) * ending)


def test_words_have_their_exact_probability_over_the_paths_visited(tiny, searched, words, plain):
    for prompt, search in zip(searched.prompts, searched.searches):
        expected = dict.fromkeys(words, 0.0)
        for path in search.visited:
            word = tiny.tokenizer.decode(path).removeprefix(" ")
            if word in expected:
                expected[word] += said(plain, tiny, prompt, path)
        for word, p in search.words.items():
            assert p == pytest.approx(expected[word], rel=1e-3, abs=1e-9)
        assert len(search.words) >= 3


def test_what_is_unvisited_bounds_what_was_missed_over_all_tokenisations(
    tiny, searched, words, plain
):
    for prompt, search in zip(searched.prompts, searched.searches):
        assert 0 <= search.unvisited <= LEFT
        missed = 0.0
        for word, space in itertools.product(words, ("", " ")):
            cuts = all_cuts(tiny.tokenizer, (space + word).encode())
            unseen = (path for path in cuts if path not in search.visited)
            missed += sum(said(plain, tiny, prompt, path) for path in unseen)
        assert missed <= search.unvisited + 1e-6
        assert search.query() is None


def test_paths_are_asked_for_widest_first_and_only_within_the_lexicon(tiny, searched, words, plain):
    prompt = searched.prompts[1]  # the middle one of two leads
    assert searched.lead[0] == [()] and len(searched.lead) >= 2
    forms = [space + word for word in words for space in ("", " ")]
    for paths in searched.lead[1:]:
        texts = [tiny.tokenizer.decode(path) for path in paths]
        assert all(any(form.startswith(text) for form in forms) for text in texts)
        reach = [plain.log_path(prompt, path) for path in paths]
        assert all(a >= b - 1e-4 for a, b in itertools.pairwise(reach))


def test_a_prompt_that_is_alike_begins_with_all_paths_of_the_first(searched):
    assert searched.done == 2
    other, lead = searched.searches
    assert searched.begun == lead.visited
    assert len(set(other.visited) & set(lead.visited)) > 1


def test_a_search_that_may_not_go_on_says_what_it_leaves(tiny, lexicon, ask, searched):
    ((search,),) = search_groups([searched.prompts[:1]], lexicon, 1, ask, lambda done: None)
    assert search.visited == [()] and not search.words
    assert search.unvisited > UNVISITED
    assert sum(search.words.values()) + search.unvisited <= 1 + 1e-6


def test_a_lexicon_opens_where_a_text_can_become_a_word(lexicon, tiny):
    tokens, texts = lexicon.children(b" appl")
    beginnings = {b" applesauce"[:n] for n in range(6, 12)} | {b" apples"}
    assert b" apple" in texts and set(texts) <= beginnings
    assert [tiny.tokenizer.pieces[token] for token in tokens] == [text[5:] for text in texts]
    assert lexicon.children(b"zebras")[1] == [] and lexicon.word(b" river") == "river"
    assert lexicon.word(b"zeb") is None


def test_logits_that_are_not_finite_give_nan(tiny, ask, lexicon):
    search = LexiconSearch(text_prompt(tiny.tokenizer, LIKE[0]).ids, lexicon, 1)
    (work,) = pack_batches([search.query()], tiny.stops)
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.inf), tiny.variables)
    result = following(tiny.decoder, broken, tiny.stops, work.batches[0])
    assert np.isnan(np.asarray(result.prob)[0, 0]).all()


def test_a_lexicon_that_the_tokenizer_cannot_spell_is_refused():
    with pytest.raises(UserError, match="spells none of the lexicon's 2 words: leave out"):
        Lexicon(("αβγ", "δε"), {b"a": 0, b" b": 1})
    assert Lexicon(("αβγ", "bee"), {b"a": 0, b" b": 1}).children(b"")[1] == [b" b"]
