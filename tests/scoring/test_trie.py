"""Surface forms, token paths, refusals, and which events lie inside which."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiimit_jax.errors import UserError
from antiimit_jax.scoring.trie import (
    FormPath,
    event_parents,
    form_variants,
    mass_by_first_token,
    word_query,
)
from antiimit_jax.text.formats import Prompt, text_prompt
from tests.random_decoder import END_OF_TURN, byte_tokenizer, char_tokenizer

QUICK = settings(derandomize=True, deadline=None, max_examples=100)


@pytest.fixture(scope="module")
def abc():
    """Letters a to c, a space and an apostrophe; "ab" and "c " have tokens of their own."""
    return char_tokenizer(["a", "b", "c", " ", "'", "ab", "c "], merges=[("a", "b"), ("c", " ")])


def ask(tokenizer, text: str, words, **options):
    return word_query(tokenizer, text_prompt(tokenizer, text), words, **options)


@pytest.mark.parametrize(
    "word,policy,forms",
    [
        ("apple", "strict", ["apple", " apple"]),
        ("McKay", "strict", ["McKay", " McKay"]),
        ("apple", "lenient", "apple| apple|\napple|Apple| Apple|\nApple|APPLE| APPLE|\nAPPLE"),
        ("naïve", "lenient", "naïve| naïve|\nnaïve|Naïve| Naïve|\nNaïve|NAÏVE| NAÏVE|\nNAÏVE"),
        ("3.5", "lenient", "3.5| 3.5|\n3.5"),
        ("A", "lenient", "A| A|\nA|a| a|\na"),
    ],
)
def test_surface_forms_by_hand(word, policy, forms):
    expected = forms.split("|") if isinstance(forms, str) else forms
    assert list(dict.fromkeys(form_variants(word, policy))) == expected


def test_forms_and_paths_of_a_word_are_as_the_tokenizer_reads_them(abc):
    query = ask(abc, "b", ["abc", "c'a"])
    assert query.prompt_ids == (1,) and query.n_words == 2
    assert query.paths == (
        FormPath("abc", (5, 2), 0),
        FormPath(" abc", (3, 5, 2), 0),
        FormPath("c'a", (2, 4, 0), 1),
        FormPath(" c'a", (3, 2, 4, 0), 1),
    )


def test_a_form_the_prompt_would_swallow_is_written_behind_the_prompt_as_it_stands(abc):
    # Behind "c" a space would become part of "c ", behind "a" a "b" part of "ab".
    for text, ids in (("bc", (1, 2)), ("ba", (1, 0))):
        query = ask(abc, text, ["a", "bc"])
        assert query.prompt_ids == ids
        assert [(p.text, p.tokens) for p in query.paths] == [
            ("a", (0,)),
            (" a", (3, 0)),
            ("bc", (1, 2)),
            (" bc", (3, 1, 2)),
        ]


def test_a_word_no_tokens_can_spell_is_refused(abc):
    with pytest.raises(UserError, match="'z' cannot be spelled.*choose another word"):
        ask(abc, "bc", ["a", "z"])


def test_words_of_which_one_has_a_form_that_another_lacks_are_refused():
    # "B" has no token: of "b" the lenient forms in capitals are missing, of "a" none.
    tokenizer = char_tokenizer(["a", "A", "b", " ", "\n"])
    assert len(ask(tokenizer, "b", ["a", "aa"], forms="lenient").paths) == 6 + 9
    assert len(ask(tokenizer, "b", ["a", "b"], forms="strict").paths) == 4
    with pytest.raises(UserError, match="'a' and 'b' do not have the same forms.*choose other"):
        ask(tokenizer, "b", ["a", "b"], forms="lenient")


def test_the_unknown_token_spells_nothing():
    tokenizer = char_tokenizer(["a", "b", " ", "?"], unk="?")
    assert tokenizer.encode_plain("az") == (0, 3)
    for word in ("z", "az"):
        with pytest.raises(UserError, match=f"'{word}' cannot be spelled"):
            ask(tokenizer, "b", [word])


@pytest.mark.parametrize(
    "words,says",
    [
        ([], "at least one"),
        (["a", ""], "empty"),
        (["  "], "empty"),
        ([" a"], "white space"),
        (["a\n"], "white space"),
        (["a", "b", "a"], "'a' is there twice"),
    ],
)
def test_words_that_make_no_sense_are_refused(abc, words, says):
    with pytest.raises(UserError, match=says):
        ask(abc, "b", words)


def test_two_words_that_share_a_form_are_refused_only_where_they_do():
    tokenizer = byte_tokenizer(["river River"] * 3, 270)
    assert ask(tokenizer, "Word:", ["river", "River"], forms="strict").n_words == 2
    with pytest.raises(UserError, match="'river' and 'River' share the form .*--forms=strict"):
        ask(tokenizer, "Word:", ["river", "River"], forms="lenient")


def test_an_unknown_policy_is_refused(abc):
    with pytest.raises(UserError, match="strict, lenient"):
        ask(abc, "b", ["a"], forms="loose")


def test_control_tokens_in_a_word_stay_text():
    tokenizer = byte_tokenizer(["Word"] * 3, 270)
    (control,) = tokenizer.hf.encode(END_OF_TURN)
    query = ask(tokenizer, "Word:", [END_OF_TURN])
    for path in query.paths:
        assert control not in path.tokens
        assert b"".join(tokenizer.pieces[t] for t in path.tokens) == path.text.encode()


def test_a_prompt_whose_ids_do_not_end_in_its_tail_is_refused(abc):
    with pytest.raises(UserError, match="does not tokenise by itself"):
        word_query(abc, Prompt((0, 1), "ab"), ["c"])  # "ab" alone is one token


def every_spelling(data: bytes, ids: dict[bytes, int]) -> set[tuple[int, ...]]:
    if not data:
        return {()}
    return {
        (ids[data[:n]], *rest)
        for n in range(1, len(data) + 1)
        if data[:n] in ids
        for rest in every_spelling(data[n:], ids)
    }


@QUICK
@given(
    word=st.text("ab", min_size=1, max_size=7),
    extra=st.sets(st.text("ab", min_size=2, max_size=3), max_size=5),
    limit=st.integers(1, 40),
)
def test_tokenisations_are_all_there_are_shortest_first_up_to_the_limit(word, extra, limit):
    pieces = ["a", "b", " ", *sorted(extra)]
    tokenizer = char_tokenizer(pieces)  # without merges: the canonical way is letter by letter
    query = ask(tokenizer, "b", [word], max_tokenisations=limit)
    ids = {piece.encode(): i for i, piece in enumerate(pieces)}
    for form in (word, " " + word):
        found = [path for path in query.paths if path.text == form]
        everything = every_spelling(form.encode(), ids)
        assert len(found) == min(limit, len(everything))
        assert len({path.tokens for path in found}) == len(found)
        assert {path.tokens for path in found} <= everything
        assert found[0].tokens == tuple(ids[letter.encode()] for letter in form)
        assert [path.canonical for path in found] == [True] + [False] * (len(found) - 1)
        lengths = [len(path.tokens) for path in found[1:]]
        left_out = [len(z) for z in everything - {path.tokens for path in found}]
        assert lengths == sorted(lengths)
        assert not lengths or not left_out or max(lengths) <= min(left_out)


@QUICK
@given(
    paths=st.sets(
        st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple), min_size=1, max_size=12
    ),
    stops=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_an_event_lies_inside_the_longest_other_path_that_a_terminator_ends(paths, stops):
    ordered = sorted(paths)
    forms = [FormPath("", z, 0) for z in ordered]
    for z, parent in zip(ordered, event_parents(forms, np.array(stops))):
        # The event of `outer` is: outer, then a terminator. Does z say so?
        around = [o for o in ordered if len(o) < len(z) and z[: len(o)] == o and stops[z[len(o)]]]
        assert (ordered[parent] if parent >= 0 else None) == max(around, key=len, default=None)


def test_characters_that_the_real_tokenizer_drops_cannot_be_spelled(smollm2):
    # SmolLM2 has no token for the byte 4 and leaves it out: "a\x04b" would be read as "ab".
    tokenizer = smollm2.tokenizer
    assert tokenizer.decode(tokenizer.encode_plain("a\x04b")) == "ab"
    prompt = text_prompt(tokenizer, "Say:")
    with pytest.raises(UserError, match="cannot be spelled"):
        word_query(tokenizer, prompt, ["a\x04b"])
    assert len(word_query(tokenizer, prompt, ["naïve", "日本", "a\u0301"]).paths) == 6


def test_mass_by_first_token_counts_what_lies_inside_another_word_once():
    stops = [False, False, True]
    paths = [FormPath("", z, n) for n, z in enumerate([(0,), (0, 2, 1), (0, 1), (1,), (0, 2, 0)])]
    found = mass_by_first_token(paths, [0.5, 0.25, 0.125, 0.0625, 0.03125], stops)
    assert found == {0: 0.625, 1: 0.0625}
