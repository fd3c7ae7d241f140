"""JSON of any origin is read within bounds and of the shape asked for, or refused in one line."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.json_files import (
    DEEPEST,
    MOST_BYTES,
    parse_json,
    read_json,
    read_json_lines,
    read_lines,
)
from tests.models.refusals import refused

ROW = {"name": str, "value": (float, None), "tags?": [str], "kind?": frozenset(("new", "old"))}


def test_what_fits_is_read_as_json_reads_it(tmp_path):
    rows = [{"name": "é\u0000", "value": 3}, {"name": "", "value": None, "tags": ["a"]}]
    values = {"rows": rows, "other": {"deep": [[True, None, 1e-300, -(2**63) + 1]]}}
    (tmp_path / "a.json").write_text(json.dumps(values))
    assert read_json(tmp_path / "a.json", {"rows": [ROW], str: object}) == values
    assert parse_json(b'{"rows": {"a": {"kind": "old", "name": "", "value": 0}}}', source="x") == {
        "rows": {"a": {"kind": "old", "name": "", "value": 0}}
    }


@pytest.mark.parametrize(
    "text, shape, parts",
    [
        ("[1, 2.5, true]", [float], ("[2]", "a number", "True")),
        ("[1, 2.5]", [int], ("[1]", "a whole number", "2.5")),
        ('{"a": {"b": [0]}}', {"a": {str: [str]}}, ("a.b[0]", "a text")),
        ('{"name": "x"}', ROW, ("lacks keys", "value")),
        ('{"name": "x", "value": "y"}', ROW, ("value", "a number or null", "y")),
        ('{"name": "x", "value": 1, "colour": 2}', ROW, ("unknown keys", "colour")),
        ('{"name": "x", "value": 1, "kind": "blue"}', ROW, ("kind", "new or old", "blue")),
        ("[]", {str: object}, ("an object", "[]")),
        ("3", [object], ("a list", "3")),
    ],
)
def test_another_shape_is_refused_by_its_place(text, shape, parts):
    with refused("file.json", *parts, "do this"):
        parse_json(text.encode(), shape, source="file.json", hint="do this")


@pytest.mark.parametrize(
    "data, part",
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff{}", "utf-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e999}', "beyond all bounds"),
        (b'{"a": ' + b"9" * 400 + b"}", "beyond all bounds"),
        (b'{"a": ' + b"9" * 5000 + b"}", "beyond all bounds"),
        (b'{"a": 1, "b": 2, "a": 1}', "twice"),
        (b'{"a": ["\\ud800"]}', "Unicode"),
        (b'{"\\udfff": 1}', "Unicode"),
        (b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1), "deep"),
        (b"[" * 100_000, "recursion"),
        (b"[" * 900 + b"]" * 900, "an object"),
    ],
    ids=range(15),
)
def test_what_is_beyond_the_bounds_is_refused(data, part):
    with refused("file.json", part):
        parse_json(data, source="file.json", hint="fetch it again")


def test_bounds_hold_where_the_shape_allows_anything():
    nested = b"[" * DEEPEST + b"]" * DEEPEST
    parse_json(nested, object, source="x")
    with refused(f"{DEEPEST} deep"):
        parse_json(b"[" + nested + b"]", object, source="x")
    assert parse_json(b"[1000000000000000019884624838656]", [float], source="x") == [1e30]


def test_files_that_are_none_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")  # reading it would wait for a writer
    for name in ("nowhere.json", "pipe.json", ".", "x" * 300, "a\0b"):
        with pytest.raises(UserError, match="no such file|cannot be read"):
            read_json(tmp_path / name)
    with open(tmp_path / "huge.json", "wb") as file:
        file.truncate(MOST_BYTES + 1)
    with refused("huge.json", "MiB"):
        read_json(tmp_path / "huge.json")


def test_a_message_quotes_no_more_than_it_needs():
    with pytest.raises(UserError, match=r"'xx+\.\.\.xx+'") as error:
        parse_json(json.dumps(["x" * 10_000]).encode(), [float], source="x")
    assert len(str(error.value)) < 150
    assert len(str(UserError("a" * 5_000_000 + "\x1b[31m end"))) < 1500
    assert str(UserError("\x1b[31m\u202e\udc80")) == "\\x1b[31m\\u202e\\udc80"


@pytest.mark.parametrize("read", [read_lines, read_json_lines])
def test_the_hash_of_lines_is_of_the_bytes_that_were_read(tmp_path, monkeypatch, read):
    file, later, plain = tmp_path / "mine", tmp_path / "later", Path.open
    file.write_bytes(b"{}\r\n{}")
    later.write_bytes(b"{}\n{}\n")

    def then_replaced(path: Path, *how):
        opened = plain(path, *how)
        later.replace(path)  # fails where the file is opened a second time
        return opened

    monkeypatch.setattr(Path, "open", then_replaced)
    held = read(file, hint="")
    assert (len(held.entries), held.path) == (2, str(file))
    assert held.sha256 == hashlib.sha256(b"{}\r\n{}").hexdigest()
