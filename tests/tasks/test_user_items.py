"""A user's files are read to what they say, or refused in one line that names the place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.files import sha256
from antiimit_jax.tasks.user_items import load_items
from antiimit_jax.text.formats import Message

GOOD = {"prompt": "Heads 70%, tails 30%.", "words": ["heads", "tails"], "targets": [70, 30]}


def written(folder: Path, *records: dict | str | bytes) -> str:
    """A file with a line for each record, texts and bytes as they are."""
    lines = [r if isinstance(r, (str, bytes)) else json.dumps(r) for r in records]
    data = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    (folder / "mine.jsonl").write_bytes(data + b"\n")
    return str(folder / "mine.jsonl")


def turn(role: str, content: str) -> dict:
    return {"role": role, "content": content}


def test_items_are_what_the_lines_say(tmp_path):
    chat = [turn("system", "Obey."), turn("user", "Coin?"), turn("assistant", "It shows:")]
    facets = {"topic": "coins", "fair": True, "n": 3}
    second = {"messages": chat, "words": ["tails", "heads"], "targets": [0.5, 0.5]}
    third = GOOD | {"cluster": "coins", "targets": [0, 1.0]}
    path = written(tmp_path, GOOD, second | {"facets": facets}, third)
    held = load_items(path)
    one, two, three = held.items
    assert one.messages == (Message("user", GOOD["prompt"]),)
    assert (one.words, one.targets, one.facets) == (("heads", "tails"), (0.7, 0.3), {})
    assert two.messages == tuple(Message(**t) for t in chat)
    assert two.facets == {"topic": "coins", "fair": "true", "n": "3"}
    assert one.cluster == two.cluster != three.cluster == "coins"  # the same words in any order
    assert three.targets == (0.0, 1.0)
    assert len({item.item for item in held.items}) == 3
    assert {item.split for item in held.items} == {"items"}
    assert held.sha256 == sha256(Path(path))


@pytest.mark.parametrize("targets", [[33.3, 66.7], [1 / 3, 2 / 3], [100, 0], [1, 0]])
def test_shares_and_percentages_are_told_apart_by_their_sum(tmp_path, targets):
    (item,) = load_items(written(tmp_path, GOOD | {"targets": targets})).items
    assert item.targets == pytest.approx([t / sum(targets) for t in targets])
    assert sum(item.targets) == pytest.approx(1, abs=1e-12)


BAD_ITEMS = {  # the second line of three -> what the message says of it
    "no JSON": ("{", "not valid JSON"),
    "no UTF-8": (b'{"prompt": "\xff"}', "not valid JSON"),
    "a list": ("[1, 2]", "an object expected"),
    "empty line": ("", "not valid JSON"),
    "unknown key": (GOOD | {"answers": []}, "unknown keys 'answers'"),
    "no words": ({"prompt": "x", "targets": [1]}, "lacks keys words"),
    "no prompt": ({k: GOOD[k] for k in ("words", "targets")}, "give either prompt or messages"),
    "two prompts": (GOOD | {"messages": [turn("user", "x")]}, "either prompt or messages"),
    "empty prompt": (GOOD | {"prompt": " \n"}, "the prompt is empty"),
    "one word": (GOOD | {"words": ["heads"], "targets": [100]}, "1 words; give 2 to 20"),
    "repeated word": (GOOD | {"words": ["heads", "heads"]}, "'heads' is there twice"),
    "empty word": (GOOD | {"words": ["heads", ""]}, "word '' is empty"),
    "spaced word": (GOOD | {"words": ["heads", " tails"]}, "begins or ends with white space"),
    "control sign": (GOOD | {"words": ["heads", "ta\x07ils"]}, "control characters"),
    "a number": (GOOD | {"words": ["heads", 7]}, "words[1]: a text expected, 7 found"),
    "too few": (GOOD | {"targets": [100]}, "1 targets for 2 words"),
    "wrong sum": (GOOD | {"targets": [70, 20]}, "targets sum to 90"),
    "negative": (GOOD | {"targets": [110, -10]}, "target -10 is negative"),
    "NaN": ('{"prompt": "x", "words": ["a", "b"], "targets": [NaN, 1]}', "NaN is not JSON"),
    "bad role": (GOOD | {"messages": [turn("bot", "x")]}, "messages[0].role"),
    "facet name": (GOOD | {"facets": {"k": 2}}, "facet 'k': a name is of letters"),
    "facet value": (GOOD | {"facets": {"topic": "a,b"}}, "without , and ="),
    "facet list": (GOOD | {"facets": {"topic": ["a"]}}, "facets.topic"),
    "cluster": (GOOD | {"cluster": ""}, "cluster is empty"),
}
BAD_ITEMS |= {
    name: ({k: v for k, v in GOOD.items() if k != "prompt"} | {"messages": turns}, said)
    for name, turns, said in (
        ("no turns", [], "must end in a turn of the user"),
        ("system last", [turn("system", "x")], "must end in a turn of the user"),
        ("empty turn", [turn("user", ""), turn("assistant", "x")], "a message is empty"),
        ("assistant alone", [turn("assistant", "x")], "a message is empty"),
        ("open space", [turn("user", "x"), turn("assistant", "It: ")], "ends in white space"),
    )
}


@pytest.mark.parametrize("name", BAD_ITEMS)
def test_a_malformed_item_is_named_by_its_line(tmp_path, name):
    record, said = BAD_ITEMS[name]
    path = written(tmp_path, GOOD, record, GOOD)
    with pytest.raises(UserError) as refused:
        load_items(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: line 2: ") and said in message
    assert "\n" not in message


def test_no_file_an_empty_one_and_too_many_slices_are_refused(tmp_path):
    with pytest.raises(UserError, match="absent.jsonl: no such file; give a JSONL file of items"):
        load_items(str(tmp_path / "absent.jsonl"))
    with pytest.raises(UserError, match="mine.jsonl: is empty"):
        load_items(written(tmp_path, ""))
    (tmp_path / "many").mkdir()
    many = [GOOD | {"facets": {"number": i}} for i in range(51)]
    with pytest.raises(UserError, match="line 51: facet number has more than 50 values"):
        load_items(written(tmp_path / "many", *many))
