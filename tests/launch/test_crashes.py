"""Killed at each rename, unlink and mkdir: the old run, the new one or a refusal, never a mixture.

What a kill leaves behind is the folder as it is at that moment, so it is copied there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.export.folder import Form, export
from antiimit_jax.files import MARK
from antiimit_jax.models.weights import find_model
from antiimit_jax.reporting.marks import read_mark
from launch import aside
from launch.workdir import locked, open_run
from tests.launch.processes import ROOT, command, environment, launch, refused
from tests.launch.small_runs import QUIET, results, run_study, small_config

pytestmark = pytest.mark.usefixtures("shared")
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
_watch: list[Callable[[], None]] = []  # an audit hook cannot be taken away again


def _hook(event: str, args: tuple) -> None:
    if _watch and event in EVENTS:  # at the end of Python both are gone
        take = _watch.pop()
        try:
            take()
        finally:
            _watch.append(take)


@pytest.fixture(scope="module", autouse=True)
def hook() -> None:
    sys.addaudithook(_hook)


@contextmanager
def copied_at_each_change(folder: Path, copies: Path) -> Iterator[list[Path]]:
    """Copies of a folder from before each rename, unlink and mkdir in this process."""
    taken: list[Path] = []

    def take() -> None:
        taken.append(copies / str(len(taken)))
        shutil.copytree(folder, taken[-1], ignore=shutil.ignore_patterns("*.tmp"))

    _watch.append(take)
    try:
        yield taken
    finally:
        _watch.clear()
    take()


@pytest.mark.parametrize("what", ["results", "all"])
def test_an_overwrite_leaves_the_old_run_or_the_new_one(model, done, tmp_path, what):
    workdir, old, new = tmp_path / "w", small_config(model), small_config(model, seed=1)
    shutil.copytree(done, workdir)
    with copied_at_each_change(workdir, tmp_path / "copies") as copies:
        run_study(new, workdir, what, stop="base")
    measured = (workdir / "stages" / "base" / "items.parquet").read_bytes()
    first = read_mark(done, "run")["id"]
    found = {"old": 0, "new": 0}
    for copy in copies:
        try:
            with locked(str(copy)), open_run(old, copy, progress=QUIET) as study:
                assert study.finished and study.run == first
            found["old"] += 1
            assert results(copy) == results(done)
            assert not (copy / ".replaced").exists() and not (copy / ".gone").exists()
        except UserError as error:
            assert "another config: seed" in str(error)
            found["new"] += 1
            assert read_mark(copy, "run")["id"] != first
            assert (copy / "stages" / "base" / "items.parquet").read_bytes() == measured
            assert (copy / "adapter").exists() == (what == "results")
            assert not (copy / "stages" / "tuned").exists()
    assert min(found.values()) >= 2 and len(copies) > 15


@pytest.mark.parametrize("order", [sorted, lambda names: sorted(names, reverse=True)])
def test_putting_an_old_run_back_may_be_killed_too(model, done, tmp_path, order, monkeypatch):
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda *place: order(listdir(*place)))
    workdir, old, run = tmp_path / "w", small_config(model), read_mark(done, "run")["id"]
    shutil.copytree(done, workdir)
    with copied_at_each_change(workdir, tmp_path / "copies") as copies:
        aside.set_aside(workdir, "all")
    killed = 0
    for number, copy in enumerate(copies):
        with copied_at_each_change(copy, tmp_path / f"copies{number}") as again:
            aside.settle(copy)
        for place in (copy, *again):
            with locked(str(place)), open_run(old, place, progress=QUIET) as study:
                assert study.finished and study.run == run
            assert results(place) == results(done) and not (place / ".replaced").exists()
        killed += len(again)
    assert killed > 40


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.large), 10])
def test_a_study_goes_on_to_the_same_bytes_from_each_change(model, done, tmp_path, every):
    workdir = tmp_path / "w"
    workdir.mkdir()
    with copied_at_each_change(workdir, tmp_path / "copies") as copies:
        run_study(small_config(model), workdir)
    assert len(copies) > 40
    for copy in copies[every - 1 :: every]:
        run_study(small_config(model), copy)
        assert results(copy) == results(done), copy


def test_an_export_is_the_old_one_or_the_new_one(model, tmp_path):
    place = tmp_path / "place"
    arguments = (find_model(str(model)), None, place / "out")
    export(*arguments, Form(), suites={})
    whole = lambda folder: {p.name: p.read_bytes() for p in folder.iterdir()}
    old = whole(place / "out")
    with copied_at_each_change(place, tmp_path / "copies") as copies:
        export(*arguments, Form(dtype="bfloat16"), suites={}, overwrite=True)
    new = whole(place / "out")
    assert old != new and MARK in new and len(copies) > 3
    states = [whole(copy / "out") for copy in copies]
    assert all(state in (old, new) for state in states)
    assert states[0] == old and states[-1] == new


def test_a_full_disk_ends_in_one_line_and_leaves_the_run_as_it_was(done, tmp_path):
    workdir = tmp_path / "full"
    shutil.copytree(done, workdir)
    shutil.rmtree(workdir / "stages" / "placebo")
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file() and p.name != ".lock"}
    flags = (f"--config={done / 'config.json'}", f"--workdir={workdir}")
    # Every write beyond 4 KiB of a file fails, as on a full disk.
    limited = ["bash", "-c", 'ulimit -f 4; exec "$@"', "bash", *command("study", *flags)]
    result = subprocess.run(limited, cwd=ROOT, env=environment(), capture_output=True, text=True)
    refused(result, "intact")
    after = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file() and p.name != ".lock"}
    assert {p: after.get(p) for p in before} == before
    again = launch("study", *flags)
    assert again.returncode == 0, again.stderr
