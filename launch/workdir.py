"""The folder of a run: one run at a time, one model and one configuration for good."""

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from antiimit_jax.errors import UserError, first_line
from antiimit_jax.evaluation.progress import Progress
from antiimit_jax.files import MARK, make_folder, write_sealed
from antiimit_jax.parallel import keeps
from antiimit_jax.reporting import marks, run_files
from antiimit_jax.reporting.summary import console_table
from antiimit_jax.results import stage_named
from antiimit_jax.run_config import RunConfig, read_own_files, to_dict
from antiimit_jax.study import Study, write_results
from antiimit_jax.suites import SUITES
from launch import aside, cli, hosts, same_run
from launch.copied_folder import copied
from launch.own_files import check_against, check_own
from launch.place import bind, given, place_of, stay_in_place
from launch.saved_config import read_saved

_LOCK = ".lock"
_ITEMS = {"training": "train", "evaluation": "control"}  # part -> group of fields with its items
_SPARE = 64 * 2**20  # bytes that must be free before a run begins


@contextlib.contextmanager
def open_study(*reads: str, check: Callable[[Study], Any] = lambda study: None) -> Iterator[Study]:
    """The study that the flags tell of (`open_run`)."""
    config = cli.run_config(items_for=[_ITEMS[part] for part in reads])
    what = cli.FLAGS.overwrite
    with locked(cli.needed("workdir")) as workdir, cli.progress(workdir) as progress:
        with open_run(config, workdir, reads, what, check, progress, given()) as study:
            yield study


@contextlib.contextmanager
def open_run(
    config: RunConfig,
    workdir: Path,
    reads: Sequence[str] = ("training", "evaluation"),
    overwrite: str | None = None,
    check: Callable[[Study], Any] = lambda study: None,
    progress: Progress = cli.bar,
    checkpoints: str | None = None,
) -> Iterator[Study]:
    """A study in a locked folder: a new one, or the one that lies there.

    What it needs is read and checked first; only then is anything in the folder changed.

    Args:
      reads: "training", "evaluation": fields that the program uses. Others may differ from those
        of the run that lies there, and stay as they are.
      overwrite: "results" or "all" that lies there is replaced.
      check: what else must be right.
      checkpoints: where they lie, if not in the folder (`place_of`).

    Raises:
      UserError: the model does not fit the configuration, or either the run that lies there.
    """
    place = place_of(checkpoints, workdir) if checkpoints else None
    there = _there(workdir, config, overwrite)
    bound = same_run.bound_by(workdir, overwrite) if there else frozenset()
    if there:
        config = same_run.settled(workdir, config, there["config"], reads, bound)
    mark = {"kind": "run", "id": there["id"] if there and not overwrite else uuid.uuid4().hex}
    study = Study(
        config,
        workdir,
        run=mark["id"],
        tell=cli.say,
        progress=progress,
        on_result=lambda: aside.drop(workdir),
        hold=hosts.held,
        checkpoints=place,
    )
    same = there and there["config"] == same_run.plain(config)
    if same and not overwrite and len(reads) == 2 and study.finished:
        study.stays = same_run.is_to_stay(workdir, config, there["identity"])
        if not study.stays:
            run_files.write_config(workdir, to_dict(config))
        yield study
        return
    own = read_own_files(config, reads)
    for held in {held.path: held for held in own.values() if held.faults}.values():
        of = len(held.entries) + len(held.faults)
        cli.say(f"note: {len(held.faults)} of {of} lines left out, as {held.faults[0]}")
    stays = there["identity"] if bound else {}
    mark |= {
        "config": same_run.plain(config),
        "identity": same_run.identity_of(study, own, reads, stays),
        "replaces": overwrite or (there["replaces"] if there else ""),
    }
    hosts.agree(mark["identity"])
    if there:
        same_run.check_identity(workdir, there["identity"], mark["identity"], bound)
    check_own(study.lm, config.forms, own)
    if "evaluation" in reads and config.against:
        check_against(config, study.lm)
    anew = overwrite == "all"
    if "training" in reads:
        study.check_training(anew=anew)
    check(study)
    _check_space(workdir)
    was = there.get("checkpoints") if there and not anew else None
    if "training" in reads and (anew or study.left(study.config.stages(), ())[0]):
        if not anew:
            stay_in_place(was, place, workdir)
        if place is not None:
            bind(place, config, mark["identity"], anew=anew)
        was = place and str(place)
    if there and overwrite:
        aside.set_aside(workdir, overwrite)
    write_sealed(workdir / MARK, mark | {"checkpoints": was})
    run_files.write_config(workdir, to_dict(config))
    yield study


def computed_again(workdir: Path) -> Path:
    """Writes metrics.json and what is made from it again; the path of the page.

    Raises:
      UserError: a file of the run is missing, damaged or of another version, or the tables'
        values contradict each other.
    """
    info = run_files.read_metrics(workdir)["run"]
    run_files.check_tables(workdir, info)
    config = read_saved(workdir)
    try:
        return write_results(workdir, config, info)
    except UserError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{workdir}: its tables contradict each other or themselves ({first_line(error)}); "
            "the run's own command writes them again"
        ) from error


def print_results(report: Path) -> None:
    """A run's main figures and where its page is, on standard output."""
    cli.show(console_table(report.parent, SUITES) + f"report: {report}")


def kept() -> str:
    """What a stopped run has in its folder, and how it goes on."""
    if cli.FLAGS.workdir is None:
        return "nothing was written"
    workdir = Path(cli.FLAGS.workdir).expanduser()
    done = [f"the stage {folder.name}" for folder in sorted(workdir.glob("stages/[!.]*"))]
    for name in sorted({path.stem for path in workdir.glob("checkpoints/[!.]*")}):
        steps = [p.name for p in (workdir / "checkpoints" / name).glob("*") if p.name.isdecimal()]
        if (workdir / (stage_named(name).folder or "?")).is_dir():
            done.append(f"the adapter {name}")
        elif steps:
            done.append(f"{max(map(int, steps))} training steps of {name}")
    if not done and not given():
        return f"no part of the run in {workdir} is finished; start it again"
    command = f"the same command{' without --overwrite' if cli.FLAGS.overwrite else ''}"
    also = f" and from the checkpoints in {given()}" if given() else ""
    return f"{workdir} holds {', '.join(done) or 'nothing yet'}; {command} goes on from there{also}"


@contextlib.contextmanager
def locked(name: str) -> Iterator[Path]:
    """Locks a run's folder, new or one that a run of ours was in; nothing else in it changes.

    The lock is the kernel's, so a run that is killed gives it back. With several processes only the
    first works in the folder; each other gives a private copy of it.

    Raises:
      UserError: another run is in it, or it holds other files.
    """
    if not keeps():
        with copied(None) as private:
            yield private
        return
    workdir = Path(name).expanduser()
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={name}: is a file; name a folder")
    make_folder(workdir)
    if not aside.is_ours(workdir):
        raise UserError(
            f"--workdir={name}: holds files that are not of a run (no whole {MARK}); "
            "name another folder"
        )
    lock = workdir / _LOCK
    if lock.is_symlink() or lock.exists() and not lock.is_file():
        raise UserError(f"{lock}: is no file; remove it")
    try:
        held = FileLock(lock, timeout=0, fallback_to_soft=False).acquire()
    except Timeout as error:
        raise UserError(f"--workdir={name}: in use by another run; wait or name another") from error
    except OSError as error:
        raise UserError(f"{lock}: cannot be locked ({error.strerror})") from error
    with held, copied(workdir):
        yield workdir


def _there(workdir: Path, config: RunConfig, overwrite: str | None) -> dict[str, Any] | None:
    """The mark of the run that lies in the folder, once what was killed in it is ended."""
    aside.check_plain(workdir)
    aside.settle(workdir)
    there, old = marks.read_mark(workdir, "run"), aside.aside_mark(workdir)
    ours = same_run.plain(config)
    if old and (overwrite or there["config"] != ours and old["config"] == ours):
        aside.roll_back(workdir)
        there = old
    return there


def _check_space(workdir: Path) -> None:
    free = shutil.disk_usage(workdir).free
    if free < _SPARE:
        needed = f"{_SPARE >> 20} MiB are needed to begin"
        raise UserError(f"--workdir={workdir}: {free >> 20} MiB are free, {needed}")
