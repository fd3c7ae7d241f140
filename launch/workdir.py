"""The folder of a run: one run at a time, one configuration for good."""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from antiimit_jax.errors import UserError
from antiimit_jax.reporting import run_files
from antiimit_jax.reporting.summary import console_table
from antiimit_jax.results import stage_named
from antiimit_jax.run_config import RunConfig, to_dict
from antiimit_jax.study import Study
from antiimit_jax.suites import SUITES
from antiimit_jax.trees import flat
from launch import cli

_LOCK = ".lock"


@contextlib.contextmanager
def open_study() -> Iterator[Study]:
    """The study that the flags tell of, alone in its folder.

    Raises:
      UserError: the configuration makes no sense, or the folder is not free for it.
    """
    config, name = cli.run_config(), cli.needed("workdir")
    with (
        open_workdir(name, config, overwrite=cli.FLAGS.overwrite) as workdir,
        cli.progress(workdir) as progress,
    ):
        yield Study(config, workdir, tell=cli.say, progress=progress)


def print_results(report: Path) -> None:
    """A run's main figures and where its page is, on standard output."""
    cli.show(console_table(report.parent, SUITES) + f"report: {report}")


def kept() -> str:
    """What a stopped run has in its folder, and how it goes on."""
    if cli.FLAGS.workdir is None:
        return "nothing was written"
    workdir = Path(cli.FLAGS.workdir).expanduser()
    done = [f"the stage {folder.name}" for folder in sorted(workdir.glob("stages/[!.]*"))]
    for folder in sorted(workdir.glob("checkpoints/*/")):
        steps = [int(step.name) for step in folder.iterdir() if step.name.isdecimal()]
        if (workdir / (stage_named(folder.name).folder or "?")).is_dir():
            done.append(f"the adapter {folder.name}")
        elif steps:
            done.append(f"{max(steps)} training steps of {folder.name}")
    if not done:
        return f"no part of the run in {workdir} is finished; start it again"
    command = f"the same command{' without --overwrite' if cli.FLAGS.overwrite else ''}"
    return f"{workdir} holds {', '.join(done)}; {command} goes on from there"


@contextlib.contextmanager
def open_workdir(name: str, config: RunConfig, *, overwrite: bool) -> Iterator[Path]:
    """Locks a run's folder, and checks or writes its configuration.

    The lock is the kernel's, so a run that is killed gives it back.

    Raises:
      UserError: another run is in it, it holds other files, or a run with another configuration.
    """
    workdir = Path(name).expanduser()
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={name}: is a file; name a folder")
    if workdir.is_dir() and any(workdir.iterdir()) and not (workdir / _LOCK).exists():
        raise UserError(f"--workdir={name}: holds files that are not of a run; name another folder")
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / _LOCK, "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"--workdir={name}: in use by another run; wait or name another"
            ) from error
        if overwrite:
            _clear(workdir)
        _settle_config(workdir, config)
        yield workdir


def _clear(workdir: Path) -> None:
    for path in workdir.iterdir():
        if path.name == _LOCK:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _settle_config(workdir: Path, config: RunConfig) -> None:
    values = to_dict(config)
    if not (workdir / run_files.CONFIG).exists():
        run_files.write_config(workdir, values)
        return
    stored = run_files.read_config(workdir)
    if stored["config_sha256"] == run_files.config_sha256(values):
        return
    theirs, ours = flat(stored["config"]), flat(json.loads(json.dumps(values)))
    differing = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
    shown = [f"{key} (there {theirs.get(key)}, now {ours.get(key)})" for key in differing[:4]]
    shown += ["..."] if len(differing) > 4 else []
    raise UserError(
        f"--workdir={workdir}: holds a run with another config: {', '.join(shown)}; "
        "name another folder, or --overwrite to start anew"
    )
