"""Writing whole or not at all, and hashes."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from antiimit_jax.errors import UserError


def sha256(file: Path) -> str:
    """The hash of a file's contents, as hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def replace_file(path: Path, write: Callable[[Path], Any]) -> Path:
    """Lets `write` fill a temporary file beside `path`, then renames it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


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


def json_text(values: Any, **how: Any) -> str:
    """Strict JSON, as all that this project writes: NaN and infinity raise ValueError."""
    return json.dumps(values, allow_nan=False, **how)


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object, UTF-8, keys in order.

    Raises:
      UserError: a value is NaN or infinity, which JSON does not know.
    """
    try:
        text = json_text(values, indent=2, sort_keys=True, ensure_ascii=False)
    except ValueError as error:
        raise UserError(f"{file}: cannot be written as strict JSON: {error}") from error
    file.write_text(text + "\n", encoding="utf-8")
