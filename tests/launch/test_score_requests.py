"""What `launch.score` is asked for: read, and refused with its place, before any model is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from antiimit_jax import json_files
from antiimit_jax.errors import UserError
from antiimit_jax.scoring.trie import FormPath, WordQuery
from antiimit_jax.text.formats import Message
from launch.score_requests import Request, read_batch, read_messages, read_text, shares

GOOD = {"prompt": "One two", "words": ["apple", "river"]}
TURN = {"role": "user", "content": "Hi "}


def written(folder: Path, *lines: object) -> Path:
    file = folder / "batch.jsonl"
    file.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n")
    return file


def test_a_batch_is_read_line_by_line(tmp_path):
    chat = {"messages": [TURN], "words": ["a"], "targets": [100]}
    first, second = read_batch(written(tmp_path, GOOD, chat))
    assert (first.prompt, first.words, first.targets) == ("One two", ("apple", "river"), ())
    assert second.prompt == (Message("user", "Hi "),) and second.targets == (100,)
    assert second.where.endswith("batch.jsonl: line 2")


@pytest.mark.parametrize(
    "line, parts",
    [
        ("{", ("not valid JSON",)),
        ("", ("not valid JSON",)),
        ("[1]", ("an object expected",)),
        ({"prompt": "x"}, ("lacks keys words",)),
        (GOOD | {"word": "x"}, ("unknown keys 'word'",)),
        (GOOD | {"prompt": 3}, ("prompt", "a text expected")),
        (GOOD | {"words": "apple"}, ("words", "a list expected")),
        (GOOD | {"words": []}, ("no words",)),
        (GOOD | {"words": ["a", "a"]}, ("is there twice",)),
        (GOOD | {"words": ["a", " b"]}, ("white space",)),
        (GOOD | {"messages": [TURN]}, ("both or none",)),
        ({"words": ["a"]}, ("both or none",)),
        ({"words": ["a"], "messages": []}, ("chat is empty",)),
        ({"words": ["a"], "messages": [{"role": "user"}]}, ("lacks keys content",)),
        (GOOD | {"targets": [70]}, ("1 targets for 2 words",)),
        (GOOD | {"targets": [70, 20]}, ("sum to 90", "to 100")),
        (GOOD | {"targets": [150, -50]}, ("-50 is negative",)),
        (GOOD | {"targets": ["70", "30"]}, ("targets", "a number expected")),
    ],
)
def test_a_line_that_is_none_is_named_by_its_number(tmp_path, line, parts):
    with pytest.raises(UserError) as error:
        read_batch(written(tmp_path, GOOD, line, GOOD))
    for part in ("batch.jsonl: line 2: ", *parts):
        assert part in str(error.value)


def test_files_that_are_none_are_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="batch.jsonl: is empty"):
        read_batch(written(tmp_path, ""))
    with pytest.raises(UserError, match="nowhere: no such file"):
        read_batch(tmp_path / "nowhere")
    with monkeypatch.context() as patch, pytest.raises(UserError, match="more than 0 MiB"):
        patch.setattr(json_files, "MOST_BYTES", 4)
        read_batch(written(tmp_path, GOOD))
    with pytest.raises(UserError, match="--prompt_file=.*nowhere: no such file"):
        read_text(tmp_path / "nowhere")
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(UserError, match="--prompt_file=.*latin: not UTF-8"):
        read_text(tmp_path / "latin")


@pytest.mark.parametrize("content", ["{", "[]", '[{"role": "user"}]', '"text"'])
def test_a_chat_that_is_none_is_refused(tmp_path, content):
    file = tmp_path / "chat.json"
    file.write_text(content)
    with pytest.raises(UserError, match="chat.json"):
        read_messages(file)


def test_targets_are_percentages_or_shares():
    assert shares((70, 30), "ab") == shares((0.7, 0.3), "ab") == (0.7, 0.3)
    assert shares((), "ab") == ()


def test_only_the_text_that_the_answer_goes_on_from_may_not_end_in_white_space():
    text = Request(where="line 3", prompt="One two \n", words=("a",))
    turns = (Message("user", "x "), Message("assistant", "Word: "))
    query = WordQuery((1,), (FormPath("a", (2,), 0), FormPath(" a", (3,), 0)), 1)
    (warned,) = text.oddities(query, raw=True, forms="strict")
    assert warned.startswith("line 3: ") and "'One two \\n'" in warned and "--strip" in warned
    assert text.oddities(query, raw=False, forms="strict") == []
    assert text.stripped().prompt == "One two"
    assert text.stripped().oddities(query, raw=True, forms="strict") == []
    chat = Request(prompt=turns, words=("a",))
    assert len(chat.oddities(query, raw=False, forms="strict")) == 1
    assert chat.stripped().prompt == (turns[0], Message("assistant", "Word:"))
    asked = Request(prompt=turns[:1], words=("a",))
    assert asked.oddities(query, raw=False, forms="strict") == []


def test_a_form_without_tokens_is_named():
    query = WordQuery((1,), (FormPath("a", (2,), 0), FormPath("b", (3,), 1)), 2)
    found = Request(prompt="x", words=("a", "b")).oddities(query, raw=True, forms="strict")
    assert [line.split(" is left out")[0] for line in found] == ["the form ' a'", "the form ' b'"]
