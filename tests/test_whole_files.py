"""Files and folders appear whole: what is renamed into place is synced, and so is its folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.files import (
    read_sealed,
    remove_temporaries,
    replace_file,
    whole_folder,
    write_sealed,
)


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, str]]:
    """fsync and rename as they happen, by the name of what they were called on."""
    made: list[tuple[str, str]] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def synced(handle: int) -> None:
        made.append(("sync", Path(os.readlink(f"/proc/self/fd/{handle}")).name))
        fsync(handle)

    def moved(real):
        def move(old, new):
            made.append(("rename", Path(new).name))
            real(old, new)

        return move

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", moved(replace))
    monkeypatch.setattr(os, "rename", moved(rename))
    return made


def test_a_file_is_synced_before_its_rename_and_its_folder_after(tmp_path, calls):
    replace_file(tmp_path / "a.json", lambda file: file.write_text("{}"))
    (first, name), *others = calls
    assert first == "sync" and name.startswith(".a.json.")
    assert others == [("rename", "a.json"), ("sync", tmp_path.name)]


def test_the_names_of_new_folders_are_synced(tmp_path, calls):
    replace_file(tmp_path / "a" / "b" / "c.json", lambda file: file.write_text("{}"))
    (_, above), (_, a), (_, made), *others = calls
    assert (above, a) == (tmp_path.name, "a") and made.startswith(".c.json.")
    assert others == [("rename", "c.json"), ("sync", "b")]


@pytest.mark.parametrize("named", [False, True])
def test_an_error_names_what_was_to_be_written(tmp_path, named):
    def fails(made: Path) -> None:
        raise OSError(errno.ENOSPC, "no room", *[str(made)] * named)

    with pytest.raises(OSError, match=f"no room: '{tmp_path / 'a.json'}'$"):
        replace_file(tmp_path / "a.json", fails)
    with pytest.raises(OSError, match=f"no room: '{tmp_path / 'out'}'$"):
        with whole_folder(tmp_path / "out") as made:
            fails(made / "x")
    assert not list(tmp_path.iterdir())


def test_all_of_a_folder_is_synced_before_its_rename(tmp_path, calls):
    with whole_folder(tmp_path / "out") as made:
        (made / "inside").mkdir()
        (made / "inside" / "x").write_text("1")
        (made / "y").write_text("2")
    at = calls.index(("rename", "out"))
    assert {name for _, name in calls[:at]} == {"inside", "x", "y", made.name}
    assert calls[at + 1 :] == [("sync", tmp_path.name)]


def test_a_folder_that_cannot_be_made_leaves_the_old_one(tmp_path):
    for text in ("old", "new"):
        with whole_folder(tmp_path / "out") as made:
            (made / "x").write_text(text)
        assert (tmp_path / "out" / "x").read_text() == text
    with pytest.raises(KeyError), whole_folder(tmp_path / "out") as made:
        (made / "x").write_text("half")
        raise KeyError
    assert (tmp_path / "out" / "x").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_is_not_replaced_nor_what_it_leads_to(tmp_path):
    (tmp_path / "system").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "system")
    with pytest.raises(UserError, match="out: is a link"), whole_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out").is_symlink() and not list((tmp_path / "system").iterdir())


def test_a_link_with_a_temporary_name_is_deleted_and_what_it_leads_to_is_not(tmp_path):
    (tmp_path / "system").mkdir()
    (tmp_path / "system" / "x").write_text("1")
    for name, target in (("a", "system"), ("b", "system/x"), ("c", "nowhere")):
        (tmp_path / f".{name}.abcdefgh.antiimit_jax-tmp").symlink_to(tmp_path / target)
    remove_temporaries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["system"]
    assert (tmp_path / "system" / "x").read_text() == "1"


def test_any_change_of_a_sealed_file_is_noticed(tmp_path):
    file = tmp_path / "sealed.json"
    write_sealed(file, {"a": [1, "é"], "b": None})
    assert read_sealed(file) == {"a": [1, "é"], "b": None}
    data = file.read_bytes()
    for at in range(len(data)):
        for bit in (1, 16):
            changed = bytearray(data)
            changed[at] ^= bit
            file.write_bytes(changed)
            assert read_sealed(file) in (None, {"a": [1, "é"], "b": None})
        file.write_bytes(data[:at])
        assert read_sealed(file) is None or at == len(data) - 1  # the last line break alone
