"""A run that is overwritten stands aside, in its own folder, until the first result of the new one.

Its mark goes first and comes back last, and the new mark is written when all is aside. So a program
that was killed at any moment leaves a folder of which this can be told:

    aside without a mark       nothing was moved, or all was moved back
    a mark only in the aside   moving was not finished: everything is moved back
    a mark in both             the new run has begun; the old one can still be had
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any

from antiimit_jax.errors import UserError
from antiimit_jax.files import MARK, is_temporary, remove_temporaries, sync
from antiimit_jax.reporting import run_files
from antiimit_jax.reporting.marks import read_mark
from antiimit_jax.reporting.report import PAGE, schemas
from antiimit_jax.reporting.verdicts import VERDICTS
from antiimit_jax.suites import SUITES

_ASIDE, _GONE = ".replaced", ".gone"
_ADAPTER = re.compile(r"(adapter|placebo)(@\d+)?")
_RESULTS = ("stages", "tensorboard", PAGE, VERDICTS, run_files.METRICS)


def adapters_there(workdir: Path) -> list[Path]:
    """Folders of the run's own adapters."""
    return [path for path in sorted(workdir.iterdir()) if _ADAPTER.fullmatch(path.name)]


def run_names(workdir: Path, what: str) -> list[str]:
    """Names in a run's folder that are its "results", or "all" but its mark."""
    tables = [f"{name}.parquet" for name in (*schemas(SUITES), run_files.TRAINING)]
    names = [name for name in (*_RESULTS, *tables) if os.path.lexists(workdir / name)]
    if what == "all":
        more = ("checkpoints", run_files.CONFIG)
        names += [name for name in more if os.path.lexists(workdir / name)]
        names += [folder.name for folder in adapters_there(workdir)]
    return names


def is_ours(workdir: Path) -> bool:
    """Whether a folder bears the mark of a run, also one that stands aside, or is yet empty."""
    if read_mark(workdir, "run") or aside_mark(workdir):
        return True
    return {path.name for path in workdir.iterdir() if not is_temporary(path)} <= {".lock"}


def check_plain(workdir: Path) -> None:
    """Raises UserError where a part of a run is a link, or neither a file nor a folder."""
    for name in (*run_names(workdir, "all"), MARK, _ASIDE, _GONE):
        if os.path.lexists(workdir / name):
            _check_plain(workdir / name)


def _check_plain(path: Path) -> None:
    if path.is_symlink() or not (path.is_file() or path.is_dir()):
        raise UserError(f"{path}: is a link or no file; a run holds files and folders alone")
    for inside in path.iterdir() if path.is_dir() else ():
        _check_plain(inside)


def set_aside(workdir: Path, what: str) -> None:
    """Moves a run's "results", or "all", aside; the caller writes the new mark."""
    for folder in adapters_there(workdir) if what == "all" else ():
        if read_mark(folder, "adapter") is None:
            raise UserError(f"{folder}: is not an adapter of this program's; move it away first")
    (workdir / _ASIDE).mkdir()
    _move([MARK, *run_names(workdir, what)], workdir, workdir / _ASIDE)
    sync(workdir)


def aside_mark(workdir: Path) -> dict[str, Any] | None:
    """The mark of the run that stands aside."""
    return read_mark(workdir / _ASIDE, "run")


def settle(workdir: Path) -> None:
    """Ends what a killed program had begun, as far as it can be told without a configuration.

    A folder without a mark stays as it is.
    """
    mark, old = read_mark(workdir, "run"), aside_mark(workdir)
    if mark is None and old is None:
        return
    for folder in (workdir, workdir / "stages", workdir / "checkpoints"):
        remove_temporaries(folder)
    shutil.rmtree(workdir / _GONE, ignore_errors=True)
    if not (workdir / _ASIDE).is_dir():
        return
    if mark is None:
        _move_back(workdir)
    elif old is None:
        (workdir / _ASIDE).rmdir()
    elif _first_result(workdir, mark["id"]):
        drop(workdir)


def drop(workdir: Path) -> None:
    """Deletes the run that stands aside, if there is one."""
    if (workdir / _ASIDE).is_dir():
        os.rename(workdir / _ASIDE, workdir / _GONE)
        shutil.rmtree(workdir / _GONE)


def roll_back(workdir: Path) -> None:
    """Puts the run that stands aside in the place of the new one, which has no result yet."""
    mark = read_mark(workdir, "run")
    (workdir / _GONE).mkdir()
    _move([*run_names(workdir, mark["replaces"]), MARK], workdir, workdir / _GONE)
    _move_back(workdir)
    shutil.rmtree(workdir / _GONE)


def _first_result(workdir: Path, run: str) -> bool:
    stages = workdir / "stages"
    marks = [read_mark(folder, "adapter") or {} for folder in adapters_there(workdir)]
    return (stages.is_dir() and any(stages.iterdir())) or run in [mark.get("run") for mark in marks]


def _move_back(workdir: Path) -> None:
    aside = workdir / _ASIDE
    names = [path.name for path in aside.iterdir() if path.name != MARK]
    _move([*names, MARK], aside, workdir)
    aside.rmdir()
    sync(workdir)


def _move(names: list[str], old: Path, new: Path) -> None:
    for name in names:
        if (old / name).exists():
            os.rename(old / name, new / name)
            sync(new)
