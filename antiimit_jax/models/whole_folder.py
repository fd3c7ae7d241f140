"""Folders that appear whole or not at all: made beside their place, then renamed into it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


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
