"""Writing: folders that appear whole or not at all, JSON and tensors for other programs."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save_file


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder that takes the place of `folder` when the block ends without error.

    What lies at `folder` stays until then, and is deleted only when the new one is in its place.

    Raises:
      OSError: the folder above cannot be written.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".new"))
    old = made.with_suffix(".old")
    try:
        yield made
        made.chmod(0o755)
        if folder.exists():
            os.rename(folder, old)
        os.rename(made, folder)
    except BaseException:
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object, UTF-8, keys in order."""
    text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def save_tensors(tensors: Mapping[str, np.ndarray], file: Path) -> None:
    """Writes a safetensors file as torch programs want it.

    Raises:
      OSError: the disk is full, or the place cannot be written.
    """
    try:
        save_file(dict(tensors), file, metadata={"format": "pt"})
    except safetensors.SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code), str(file)) from error
