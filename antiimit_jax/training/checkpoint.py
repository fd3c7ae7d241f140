"""Checkpoints of a training run (Orbax): adapter, optimizer state and step, and the log so far.

A checkpoint is written beside the others and appears at once, so that a run killed at any moment
leaves the last whole one behind.
"""

import json
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from antiimit_jax.errors import UserError
from antiimit_jax.training.step import TrainState

Log = list[dict[str, Any]]


class Checkpoints:
    """The checkpoints of one adapter's training, the newest two kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=2, create=True, enable_async_checkpointing=False
            ),
        )

    def save(self, state: TrainState, log: Log) -> None:
        """Writes the state at its step, with the log of all steps before."""
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state._asdict()), log=ocp.args.JsonSave(log)
            ),
            force=True,
        )

    def restore(self, like: TrainState) -> tuple[TrainState, Log] | None:
        """The newest state and its log, or None where there is none.

        Raises:
          UserError: the checkpoint does not fit this model and configuration.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        try:
            found = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(target), log=ocp.args.JsonRestore()
                ),
            )
        except (ValueError, KeyError, TypeError, FileNotFoundError, json.JSONDecodeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{self._folder / str(step)}: the checkpoint cannot be restored ({reason}); "
                "start anew with --overwrite"
            ) from error
        return TrainState(**found["state"]), list(found["log"])

    def close(self) -> None:
        """Waits until all is written."""
        self._manager.close()
