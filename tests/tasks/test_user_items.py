"""A user's files are read to what they say, or refused in one line that names the place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.files import sha256
from antiimit_jax.tasks.templates import Template, load_templates
from antiimit_jax.tasks.user_items import line_of, load_items
from antiimit_jax.text.formats import Message
from antiimit_jax.text.lexicon import lemma_split, load_words, words_of

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
    one, two, three = held.entries
    assert one.messages == (Message("user", GOOD["prompt"]),)
    assert (one.words, one.targets, one.facets) == (("heads", "tails"), (0.7, 0.3), {})
    assert two.messages == tuple(Message(**t) for t in chat)
    assert two.facets == {"topic": "coins", "fair": "true", "n": "3"}
    assert one.cluster == two.cluster != three.cluster == "coins"  # the same words in any order
    assert three.targets == (0.0, 1.0)
    assert len({item.item for item in held.entries}) == 3
    assert {item.split for item in held.entries} == {"items"}
    assert held.sha256 == sha256(Path(path))


@pytest.mark.parametrize("targets", [[33.3, 66.7], [1 / 3, 2 / 3], [100, 0], [1, 0]])
def test_shares_and_percentages_are_told_apart_by_their_sum(tmp_path, targets):
    (item,) = load_items(written(tmp_path, GOOD | {"targets": targets})).entries
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
    held = load_items(path, True)
    assert [line_of(item) for item in held.entries] == [1, 3] and held.faults == (message,)


def test_a_file_without_an_item_is_refused_whatever_may_be_left_out(tmp_path):
    path = written(tmp_path, "{", GOOD | {"words": ["heads"]})
    with pytest.raises(UserError, match=r"line 1: not valid JSON.*of 2 lines none is an item"):
        load_items(path, True)


def test_no_file_an_empty_one_and_too_many_slices_are_refused(tmp_path):
    with pytest.raises(UserError, match="absent.jsonl: no such file; give a JSONL file of items"):
        load_items(str(tmp_path / "absent.jsonl"))
    with pytest.raises(UserError, match="mine.jsonl: is empty"):
        load_items(written(tmp_path, ""))
    (tmp_path / "many").mkdir()
    many = [GOOD | {"facets": {"number": i}} for i in range(51)]
    with pytest.raises(UserError, match="line 51: facet number has more than 50 values"):
        load_items(written(tmp_path / "many", *many))


WORDS = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("abel", "orin", "etta", "uska", "ilo")] * 4
WORDS = [f"{word}{i // 60}" for i, word in enumerate(WORDS)]  # 240 of them
PHRASING = {
    "opening": "Say one: ",
    "entry": "{word} {percent}%",
    "prior_opening": "Say one of ",
    "prefill": "Word:",
}
PHRASINGS = [PHRASING | {"opening": f"Say one, number {i}: "} for i in range(10)]


def words_file(folder: Path, *lines: str | bytes) -> str:
    data = [line if isinstance(line, bytes) else line.encode() for line in lines]
    (folder / "words.txt").write_bytes(b"\n".join(data) + b"\n")
    return str(folder / "words.txt")


def test_words_are_split_by_the_hash_of_their_lemmas(tmp_path):
    lines = [*WORDS, "mice\tmouse", "mouse"]
    held = load_words(words_file(tmp_path, *lines))
    assert [entry.word for entry in held.entries] == [*WORDS, "mice", "mouse"]
    assert all(entry.split == lemma_split(entry.lemma) for entry in held.entries)
    assert held.entries[-1].split == held.entries[-2].split and held.entries[-2].lemma == "mouse"
    assert held.sha256 == sha256(Path(held.path))
    mine = {word for split in ("train", "dev", "test") for word in words_of(split, held.path)}
    assert mine == {line.split("\t")[0] for line in lines}
    assert not set(WORDS) & set(words_of("train"))  # ours are as they were


@pytest.mark.parametrize(
    "line, said",
    [
        ("", "word '' is empty"),
        (" pad", "begins or ends with white space"),
        ("ding\x07", "control characters"),
        ("long" * 26, "longer than 100"),
        (WORDS[0], "is there twice"),
        ("mice\tmouse\tnoun", "2 tabs"),
        ("mice\t", "word '' is empty"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_malformed_word_is_named_by_its_line(tmp_path, line, said):
    path = words_file(tmp_path, *WORDS, line)
    with pytest.raises(UserError) as refused:
        load_words(path)
    assert str(refused.value).startswith(f"{path}: line 241: ") and said in str(refused.value)


def test_too_few_words_are_counted(tmp_path):
    with pytest.raises(UserError, match=r"words.txt: .* of the 40 words are .* 20 are needed"):
        load_words(words_file(tmp_path, *WORDS[:40]))


def test_phrasings_are_split_by_the_hash_of_their_texts(tmp_path):
    held = load_templates(written(tmp_path, *PHRASINGS))
    assert [t.opening for t in held.entries] == [p["opening"] for p in PHRASINGS]
    assert 0 < sum(t.heldout for t in held.entries) < len(PHRASINGS)
    assert held.entries[0].request(("a", "b"), (70, 30)) == "Say one, number 0: a 70%, b 30%."
    assert held.sha256 == sha256(Path(held.path))


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"opening": 3}, "opening: a text expected, 3 found"),
        ({"Entry": ""}, "unknown keys 'Entry'"),
        ({"entry": "{word}"}, "entry must hold {percent} and {word} once"),
        ({"entry": "{word}", "then": "; ", "share": "{word}"}, "share must hold {percent} once"),
        ({"share": "{percent}", "then": "; "}, "entry must hold {word} once, and no other"),
        ({"entry": "{word}", "share": "{percent}"}, "then and share go together"),
        ({"entry": "{word} {word} {percent}"}, "entry must hold {percent} and {word} once"),
        ({"entry": "{word.__class__} {percent}"}, "entry must hold {percent} and {word} once"),
        ({"entry": "{word!r} {percent}"}, "entry must hold {percent} and {word} once"),
        ({"entry": "{word} {percent:1000000}"}, "entry must hold {percent} and {word} once"),
        ({"entry": "{word} {percent}}"}, "write a brace of the text twice"),
        ({"prior_entry": "{word} {percent}"}, "prior_entry must hold {word} once"),
        ({"prefill": "Word: "}, "prefill ends in white space"),
        ({"opening": PHRASINGS[2]["opening"]}, "the same phrasing as in line 3"),
    ],
)
def test_a_malformed_phrasing_is_named_by_its_line(tmp_path, changes, said):
    path = written(tmp_path, *PHRASINGS, PHRASING | changes)
    with pytest.raises(UserError) as refused:
        load_templates(path)
    assert str(refused.value).startswith(f"{path}: line 11: ") and said in str(refused.value)


@pytest.mark.parametrize("heldout, said", [(True, "are held out"), (False, "are trained on")])
def test_phrasings_of_one_kind_alone_are_refused(tmp_path, heldout, said):
    chosen = [p for p in PHRASINGS if Template(**p).heldout == heldout]
    with pytest.raises(UserError, match=f"all {len(chosen)} phrasings {said}; both kinds"):
        load_templates(written(tmp_path, *chosen))
