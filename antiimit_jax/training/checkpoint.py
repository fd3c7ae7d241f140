"""Checkpoints of a training run (Orbax): adapter, optimizer state and step, and the log so far.

A checkpoint is written beside the others and appears at once, so that a run killed at any moment
leaves the last whole one behind. Each holds a hash of its contents: one that was damaged, or whose
log is not of its step, is passed over for the one before. In a bucket Orbax writes them in place,
and a file that it writes last says that one is whole.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint import args

from antiimit_jax.errors import UserError, first_line
from antiimit_jax.files import json_text, make_folder, sync, sync_all
from antiimit_jax.training.step import TrainState
from antiimit_jax.trees import digest

Log = list[dict[str, Any]]


class _DamagedError(Exception):
    """A checkpoint was read, and is not what was written."""


class Checkpoints:
    """The checkpoints of one adapter's training, the newest two kept."""

    def __init__(self, folder: epath.PathLike) -> None:
        """Of this machine, or gs://BUCKET/NAME.

        Raises:
          UserError: a bucket that cannot be reached.
        """
        self._on_disk = not in_bucket(folder)
        self._folder = epath.Path(Path(folder).absolute() if self._on_disk else folder)
        if self._on_disk:
            make_folder(Path(self._folder))
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2,
            enable_async_checkpointing=False,
            create=jax.process_count() == 1,
            multiprocessing_options=_each_its_own(),
        )
        with reaching(self._folder, "cannot be reached"):
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: TrainState, log: Log) -> None:
        """Writes the state at its step, with the log of all steps before.

        Raises:
          UserError: it cannot be written; the checkpoints before it are intact.
        """
        step, tree = int(state.step), args.StandardSave(state._asdict())
        record = args.JsonSave({"log": log, "sha256": _hash(state, log)})
        what = f"the checkpoint of step {step} cannot be written"
        with reaching(self._folder, what, "; what was written before is intact"):
            with _unsaid():
                self._manager.save(step, args=args.Composite(state=tree, log=record), force=True)
            if self._on_disk:
                sync_all(Path(self._folder / str(step)))
                sync(Path(self._folder))

    def restore(self, like: TrainState) -> tuple[TrainState, Log] | None:
        """The newest state that is whole and its log, or None where there is none.

        What is not whole is named in the program's log and kept as `damaged-STEP`.

        Raises:
          UserError: a bucket does not give what it holds, which may be whole.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._read(step, like)
            except Exception as error:  # whatever Orbax and its stores say of a damaged file
                where, reason = self._folder / str(step), first_line(error)
                if not self._on_disk and not isinstance(error, _DamagedError):
                    hint = "try again, or delete it to go on from the one before"
                    raise UserError(f"{where}: cannot be read ({reason}); {hint}") from error
                logging.warning("%s: not a whole checkpoint (%s); passed over", where, reason)
                damaged = self._folder / f"damaged-{step}"
                with reaching(where, f"cannot be renamed to {damaged.name}"):
                    damaged.rmtree(missing_ok=True)
                    where.rename(damaged)
                    self._manager.reload()
        return None

    def _read(self, step: int, like: TrainState) -> tuple[TrainState, Log]:
        tree = args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict()))
        parts = args.Composite(state=tree, log=args.JsonRestore())
        found = self._manager.restore(step, args=parts)
        state, record = TrainState(**found["state"]), found["log"]
        log = list(record["log"])
        if [row["step"] for row in log] != list(range(1, step + 1)) or int(state.step) != step:
            raise _DamagedError(f"its log is of {len(log)} steps")
        if record["sha256"] != _hash(state, log):
            raise _DamagedError("its contents are not those that were written")
        return state, log

    def close(self) -> None:
        """Waits until all is written."""
        self._manager.close()


def _each_its_own() -> ocp.options.MultiprocessingOptions:
    """Where there are several processes, each reads and writes host arrays in its own folder."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    own = jax.process_index()
    prefix = f"process_{own}"  # of its barriers, where it meets itself alone
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=prefix
    )


def in_bucket(folder: epath.PathLike) -> bool:
    """Whether a folder is gs://BUCKET/NAME, and so not on a disk."""
    return str(folder).startswith("gs://")


@contextlib.contextmanager
def reaching(
    place: epath.PathLike, problem: str, after: str = "", flag: str = ""
) -> Iterator[None]:
    """What Orbax and its stores raise becomes a `UserError` about a place; buckets raise any type.

    Args:
      flag: stands before the place's name.
    """
    kinds = Exception if in_bucket(place) else (OSError, ValueError, RuntimeError)
    try:
        yield
    except kinds as error:
        raise UserError(f"{flag}{place}: {problem} ({first_line(error)}){after}") from error


@contextlib.contextmanager
def _unsaid() -> Iterator[None]:
    """Errors that Orbax also raises are not logged by its threads, with their tracebacks."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _hash(state: TrainState, log: Log) -> str:
    return digest((jax.device_get(state._asdict()), json_text(log, sort_keys=True).encode()))
