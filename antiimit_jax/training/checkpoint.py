"""Checkpoints of a training run (Orbax): adapter, optimizer state and step, and the log so far.

A checkpoint is written beside the others and appears at once, so that a run killed at any moment
leaves the last whole one behind.
"""

import json
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import args

from antiimit_jax.errors import UserError, first_line
from antiimit_jax.training.step import TrainState

Log = list[dict[str, Any]]


class Checkpoints:
    """The checkpoints of one adapter's training, the newest two kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: TrainState, log: Log) -> None:
        """Writes the state at its step, with the log of all steps before."""
        tree = args.StandardSave(state._asdict())
        parts = args.Composite(state=tree, log=args.JsonSave(log))
        self._manager.save(int(state.step), args=parts, force=True)

    def restore(self, like: TrainState) -> tuple[TrainState, Log] | None:
        """The newest state and its log, or None where there is none.

        Raises:
          UserError: the checkpoint does not fit this model and configuration.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        tree = args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict()))
        parts = args.Composite(state=tree, log=args.JsonRestore())
        try:
            found = self._manager.restore(step, args=parts)
        except (ValueError, KeyError, TypeError, FileNotFoundError, json.JSONDecodeError) as error:
            raise UserError(
                f"{self._folder / str(step)}: the checkpoint cannot be restored "
                f"({first_line(error)}); start anew with --overwrite"
            ) from error
        return TrainState(**found["state"]), list(found["log"])

    def close(self) -> None:
        """Waits until all is written."""
        self._manager.close()
