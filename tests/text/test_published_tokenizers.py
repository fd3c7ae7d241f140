"""Real tokenizers of every family: ids as their own readers give them, pieces, chats, words."""

from __future__ import annotations

import itertools

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.scoring.terminators import build_terminators
from antiimit_jax.scoring.trie import word_query
from antiimit_jax.tasks.neutral import load_neutral
from antiimit_jax.text.formats import Message, build_prompt, neutral_tokens, text_prompt
from antiimit_jax.text.tokenizer import load_tokenizer
from tests.text.published import KINDS, Published

TEXTS = [
    "The capital of France is Paris.",
    "tabs\tand\r\nlines\n\n\n  indented",
    "70% cat,  30.5%   dog; 1234567890",
    "don't they're I'll 'twas O'Neill’s",
    "naïve café Zürich Ångström São Łódź",
    "東京 서울 Москва",
    "🙂 👩‍👩‍👧‍👦",
    "def f(x): return {'a': [x**2, ~x]}  # ok?!",
    "trailing  ",
]
USER = Message("user", "70% cat, 30% dog?")
OPEN = Message("assistant", "The word is:")


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    """(what is published, our tokenizer)."""
    published = KINDS[request.param](tmp_path_factory.mktemp("tokenizer"))
    return published, load_tokenizer(published.folder)


def _spelled(tokenizer, ids) -> bytes:
    return b"".join(tokenizer.pieces[i] for i in ids)


def _behind(published: Published, text: str) -> list[int]:
    """A text behind a newline, as the package reads it there."""
    before = published.plain("\n")
    return published.plain("\n" + text)[len(before) :]


def _ids(published: Published, tokenizer, parts: list) -> list[int]:
    """Control tokens (lists of names) and texts, put together."""
    ids = []
    for part in parts:
        text = isinstance(part, str)
        ids += published.inside(part) if text else map(tokenizer.hf.convert_tokens_to_ids, part)
    return ids


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_read_as_the_package_reads_it_and_pieces_spell_it(kind, text):
    published, tokenizer = kind
    ids = published.plain(text)
    assert list(tokenizer.encode_plain(text)) == ids
    assert tokenizer.encode_text(text) == [*tokenizer.bos_ids, *ids]
    assert _spelled(tokenizer, ids) in (text.encode(), b" " + text.encode())
    inside = tokenizer.encode_continued(text)
    assert _spelled(tokenizer, inside) == text.encode()
    assert tokenizer.decode(inside) == text


def test_the_beginning_token_is_what_the_tokenizer_adds_and_never_doubled(kind):
    published, tokenizer = kind
    begins = [] if published.bos is None else [tokenizer.hf.convert_tokens_to_ids(published.bos)]
    assert list(tokenizer.bos_ids) == begins
    chat, base = (build_prompt(tokenizer, (USER, OPEN), style).ids for style in ("chat", "base"))
    written = text_prompt(tokenizer, (published.bos or "") + "a b").ids
    for ids in (chat, base, written):
        assert [i for i in ids if i in begins] == begins == list(ids[: len(begins)])


@pytest.mark.parametrize("answer", ["The word is:", 'Say "', "1"])
def test_an_open_turn_is_read_as_the_template_writes_it(kind, answer):
    published, tokenizer = kind
    prompt = build_prompt(tokenizer, (USER, Message("assistant", answer)), "chat")
    assert list(prompt.ids) == _ids(published, tokenizer, published.chat(USER.content, answer))
    assert prompt.tail.endswith(answer)


def test_an_answer_can_begin_right_behind_the_template(kind):
    _, tokenizer = kind
    whole = build_prompt(tokenizer, (USER, OPEN), "chat").ids
    asked = build_prompt(tokenizer, (USER,), "chat").ids
    assert whole[: len(asked)] == asked
    for style in ("chat", "base"):
        ids, first = neutral_tokens(tokenizer, (USER, Message("assistant", "A cat.")), "", style)
        assert _spelled(tokenizer, ids[first + 1 :]).strip() == b"A cat."


def test_control_tokens_in_messages_and_words_stay_text(kind):
    published, tokenizer = kind
    hostile = published.hostile
    control = {i for i, t in tokenizer.hf.added_tokens_decoder.items() if t.content.strip()}
    assert list(tokenizer.encode_plain(hostile)) == published.plain(hostile)
    assert not control & set(tokenizer.encode_continued(hostile))
    prompt = build_prompt(tokenizer, (Message("user", hostile), OPEN), "chat")
    usual = build_prompt(tokenizer, (USER, OPEN), "chat")
    assert [i for i in prompt.ids if i in control] == [i for i in usual.ids if i in control]
    assert hostile.encode() in _spelled(tokenizer, prompt.ids)
    for path in word_query(tokenizer, prompt, [hostile]).paths:
        assert not control & set(path.tokens)
        assert _spelled(tokenizer, path.tokens) == path.text.encode()


@pytest.mark.parametrize("style", ["chat", "base"])
@pytest.mark.parametrize("tail", ["Word:", 'I say "', ""])
def test_words_have_both_forms_and_join_as_the_package_joins_them(kind, style, tail):
    published, tokenizer = kind
    answer = (Message("assistant", tail),) if tail else ()
    prompt = build_prompt(tokenizer, (USER, *answer), style)
    words = ["apple", "naïve", "3.5", "xylophone"]
    query = word_query(tokenizer, prompt, words)
    found = {(path.word, path.text): path.tokens for path in query.paths}
    spaces = ("", " ")
    assert set(found) == {(i, s + word) for i, word in enumerate(words) for s in spaces}
    for (_, text), tokens in found.items():
        assert _spelled(tokenizer, tokens) == text.encode()
    if tail == "Word:":  # the whole text, read at once by the package
        before, assigned = published.plain("Word:"), {}
        for word, space in itertools.product(range(len(words)), ("", " ")):
            whole = published.plain("Word:" + space + words[word])
            stands = whole[: len(before)] == before
            joined = whole[len(before) :] if stands else _behind(published, space + words[word])
            assigned[word, space + words[word]] = tuple(joined)
        assert found == assigned


def test_words_end_at_spaces_signs_and_ends_whatever_the_vocabulary(kind):
    published, tokenizer = kind
    stops = build_terminators(tokenizer, tokenizer.size).standard
    ends_with = lambda text: bool(stops[tokenizer.encode_continued("river" + text)[-1]])
    for text in (" ", " the", "\n", ".", ",", "!", "\n\n", ")"):
        token = tokenizer.encode_continued(text)[0]
        assert stops[token], text
    for text in ("s", "ed", "0"):
        assert not stops[tokenizer.encode_continued(text)[0]], text
    assert stops[tokenizer.hf.eos_token_id] and ends_with("\n")
    if published.bos:
        assert not stops[tokenizer.hf.convert_tokens_to_ids(published.bos)]


def test_a_template_without_a_system_role_or_with_strict_turns_says_so_in_one_line(kind):
    _, tokenizer = kind
    if "take turns" not in tokenizer.hf.chat_template:
        pytest.skip("this family's template takes any roles")
    for messages in [(Message("system", "x"), USER), (USER, USER)]:
        with pytest.raises(UserError, match="refuses these messages: user and assistant must"):
            build_prompt(tokenizer, messages, "chat")


@pytest.mark.parametrize("answer", [" indented", "line\n"])
def test_a_template_that_trims_the_open_turn_is_refused_and_others_keep_it(kind, answer):
    _, tokenizer = kind
    messages = (USER, Message("assistant", answer))
    if "trim" in tokenizer.hf.chat_template:
        with pytest.raises(UserError, match="changes the open turn"):
            build_prompt(tokenizer, messages, "chat")
    else:
        assert build_prompt(tokenizer, messages, "chat").tail.endswith(answer.strip(" "))


@pytest.mark.parametrize("which", ["anchor", "drift"])
def test_every_unrelated_text_is_read_in_every_familys_chat(kind, which):
    """With a system turn or, where the template refuses one, its text before the user's."""
    published, tokenizer = kind
    begun = 0
    for prompt in load_neutral(which):
        ids, first = neutral_tokens(tokenizer, prompt.messages, prompt.text, "chat")
        assert 0 <= first < len(ids) - 1
        if not prompt.messages:
            continue
        shown = tokenizer.decode(ids)
        assert all(m.content.strip() in shown for m in prompt.messages)
        if prompt.messages[0].role == "system":
            system, user, *rest = prompt.messages
            joined = (Message("user", f"{system.content}\n\n{user.content}"), *rest)
            begun += ids == neutral_tokens(tokenizer, joined, "", "chat")[0]
    refuses = "no system role" in (published.folder / "tokenizer_config.json").read_text()
    assert (begun > 0) == refuses
