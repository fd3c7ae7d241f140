"""Marks of folders and logs of trainings: sealed when they were written, and read in one shape.

What is sealed is as a program of ours wrote it, but another version may hold other things in it.
"""

from pathlib import Path
from typing import Any

from antiimit_jax.files import MARK, read_sealed
from antiimit_jax.json_files import OBJECT, of_shape
from antiimit_jax.models.peft_write import WEIGHTS_FILE
from antiimit_jax.results import STAGE

_HASHES = {str: str}  # of files, by name; or versions of packages
_MARKS = {
    "run": {
        "id": str,
        "config": OBJECT,
        "identity": {"model": _HASHES, "code": _HASHES, str: _HASHES},
        "replaces": frozenset(("", "results", "all")),
        "checkpoints?": (str, None),
    },
    "stage": {
        "files": _HASHES,
        "stage": STAGE,
        "run": str,
        "own_files?": _HASHES,
        "versions": _HASHES,
        "device": str,
        **dict.fromkeys(("adapter", "adapter_sha256", "hub_id?", "commit?"), (str, None)),
    },
    "adapter": {"files": {WEIGHTS_FILE: str, **_HASHES}, "run": str},
    "export": {"files": _HASHES},
}
_NUMBER = (float, None)
_STEP = {"adapter": str, "step": int, "skipped": bool, str: _NUMBER}
_STEP |= dict.fromkeys(("loss", "grad_norm", "lr", "tokens_per_s"), _NUMBER)


def read_mark(folder: Path, kind: str) -> dict[str, Any] | None:
    """The mark of a folder that is a "run", "stage", "adapter" or "export"; None where it has none.

    Raises:
      UserError: it lacks what this version needs, or holds something else there.
    """
    mark = read_sealed(folder / MARK)
    if mark is None or mark.get("kind") != kind:
        return None
    return _as_ours(mark, _MARKS[kind], folder / MARK, "folder")


def read_log(file: Path) -> list[dict[str, Any]] | None:
    """The steps of a finished training, as `run_files.write_training` takes them; None if absent.

    Raises:
      UserError: as `read_mark`.
    """
    record = read_sealed(file)
    return None if record is None else _as_ours(record, {"log": [_STEP]}, file, "file")["log"]


def _as_ours(values: dict[str, Any], shape: dict, file: Path, what: str) -> dict[str, Any]:
    hint = f"another version wrote it: go on with that one, or move this {what} away"
    return of_shape(values, {**shape, str: object}, source=str(file), hint=hint)
