"""Writes that fail, and what is left where the machine crashed: the same results or a refusal."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pytest

from tests.battery import tenth
from tests.launch.crashed_disk import Change, Disk, digest, read_changes, write_files
from tests.launch.small_runs import results
from tests.launch.watched import Ask, built, process

FAULTS, APART = 300, 10  # studies with a change that fails; every tenth of them is a test's
NAMES = ("now", "synced")  # all names are there, or those alone whose folder was synced since
STEP = 25  # a test takes every 25th state of a disk; there are more than 500
FIRST = [0, *(pytest.param(first, marks=pytest.mark.large) for first in range(1, STEP))]


@pytest.fixture(scope="module")
def ask(model, tmp_path_factory) -> Iterator[Ask]:
    library = built(tmp_path_factory.mktemp("disk"))
    with process("tests.launch.watched_studies", library) as answer:
        yield lambda workdir, **given: answer(model=str(model), workdir=str(workdir), **given)


@pytest.fixture(scope="module")
def begun(ask, tmp_path_factory) -> tuple[Path, list[Change]]:
    """The folder of a study that ran to its end, and all that it changed there."""
    folder = tmp_path_factory.mktemp("begun")
    assert ask(folder / "w", log=str(folder / "log"))["error"] is None
    return folder / "w", read_changes(folder / "log")


@pytest.fixture(scope="module")
def overwritten(ask, begun, tmp_path_factory) -> tuple[Path, list[Change]]:
    """The same of a copy of that study that another seed replaced."""
    folder = tmp_path_factory.mktemp("overwritten")
    shutil.copytree(begun[0], folder / "w")
    assert ask(folder / "w", log=str(folder / "log"), overwrite="all", seed=1)["error"] is None
    return folder / "w", read_changes(folder / "log")


@pytest.mark.parametrize("first", tenth(list(range(APART))))
def test_a_failed_write_is_one_line_and_the_study_goes_on_to_the_same_bytes(
    ask, begun, tmp_path, first
):
    failed = 0
    for turn in range(first, FAULTS, APART):
        number = 1 + turn * len(begun[1]) // FAULTS  # over all that a study changes
        code = (errno.ENOSPC, errno.EIO)[turn // APART % 2]
        workdir = tmp_path / f"w{number}"
        found = ask(workdir, number=number, code=code)
        assert "Traceback" not in found["said"], found
        if found["error"] is None:  # as a lock file that is opened twice
            assert results(workdir) == results(begun[0]), found
        else:
            assert str(workdir) in found["error"] and found["error"].isprintable(), found
            failed += 1
        again = ask(workdir)
        assert again["error"] is None and results(workdir) == results(begun[0]), (found, again)
        shutil.rmtree(workdir)
    assert failed > 0.8 * FAULTS / APART


def states(disk: Disk, changes: Sequence[Change]) -> Iterator[dict[str, bytes | None]]:
    """The different files that a disk may hold after each change."""
    seen = set()
    for change in changes:
        disk.apply(change)
        for names in NAMES:
            files = disk.files(names, "synced")
            if digest(files) not in seen:
                seen.add(digest(files))
                yield files


@pytest.mark.parametrize("recorded", ["begun", "overwritten"])
def test_a_finished_study_is_as_recorded_and_on_the_disk(recorded, begun, tmp_path, request):
    workdir, changes = request.getfixturevalue(recorded)
    disk = Disk(begun[0] if recorded == "overwritten" else tmp_path, called=workdir)
    for change in changes:
        disk.apply(change)
    whole, synced = Disk(workdir).files("now", "now"), disk.files("synced", "synced")
    assert disk.files("now", "now") == whole
    lost = [name for name in whole if name not in synced or synced[name] != whole[name]]
    assert all(name.startswith("tensorboard/") for name in lost), lost


@pytest.mark.parametrize("first", FIRST)
def test_a_study_goes_on_to_the_same_bytes_from_what_was_synced(ask, begun, tmp_path, first):
    (tmp_path / "empty").mkdir()
    disk, whole = Disk(tmp_path / "empty", called=begun[0]), results(begun[0])
    for number, files in enumerate(islice(states(disk, begun[1]), first, None, STEP)):
        workdir = tmp_path / f"w{number}"
        write_files(files, workdir)
        found = ask(workdir)
        assert found["error"] is None and results(workdir) == whole, (found, files.keys())
        shutil.rmtree(workdir)


@pytest.mark.parametrize("first", FIRST)
def test_an_overwritten_run_is_the_old_or_the_new_one(ask, begun, overwritten, tmp_path, first):
    disk, seen = Disk(begun[0], called=overwritten[0]), set()
    whole = [results(begun[0]), results(overwritten[0])]
    for number, files in enumerate(islice(states(disk, overwritten[1]), first, None, STEP)):
        workdir = tmp_path / f"w{number}"
        write_files(files, workdir)
        found, seed = ask(workdir), 0
        if found["error"]:
            assert "another config: seed" in found["error"], files.keys()
            found, seed = ask(workdir, seed=1), 1
        assert found["error"] is None and results(workdir) == whole[seed], (found, files.keys())
        seen.add(seed)
        shutil.rmtree(workdir)
    assert seen == {0, 1}
