"""Writing whole or not at all, and hashes.

What is said to be whole is on the disk: a file and the folder that names it are synced before and
after the rename that makes it appear.
"""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from antiimit_jax.errors import UserError

MARK = "antiimit_jax.json"  # in every folder that a program of ours made, and may replace
_TEMPORARY = ".antiimit_jax-tmp"  # ends the names of what is not whole yet, and no other's
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def sha256(file: Path) -> str:
    """The hash of a file's contents, as hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Waits until a file's contents, or a folder's names, are on the disk.

    Raises:
      OSError: they cannot be written; it names `path`.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(handle)
    finally:
        os.close(handle)


def sync_all(folder: Path) -> None:
    """Waits until a folder and all below it are on the disk."""
    for inside in [*folder.rglob("*"), folder]:
        sync(inside)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, as far as they are absent; their names are synced."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


@contextlib.contextmanager
def naming(path: Path, made: Path | None = None) -> Iterator[None]:
    """A disk's error without a name, as of a write, or with that of `made` names `path`."""
    try:
        yield
    except OSError as error:
        name = error.filename
        inner = made and name and Path(os.fsdecode(name)).is_relative_to(made)
        if error.errno not in _OF_DISKS or name and not inner:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def is_temporary(path: Path) -> bool:
    """Whether a file or folder is, by its name, what a program of ours makes or was killed at."""
    return path.name.startswith(".") and path.name.endswith(_TEMPORARY)


def temporary_folder(place: Path) -> Path:
    """Makes an empty folder beside `place`, of which `is_temporary` tells."""
    return Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.", suffix=_TEMPORARY))


def remove_temporaries(folder: Path) -> None:
    """Deletes what killed programs of ours left in a folder, where it is one; follows no link."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_temporary(path):
            is_folder = path.is_dir() and not path.is_symlink()
            shutil.rmtree(path) if is_folder else path.unlink()


def replace_file(path: Path, write: Callable[[Path], Any]) -> Path:
    """Lets `write` fill a temporary file beside `path`, then renames it into place.

    Raises:
      OSError: it cannot be written; what lay there before is intact.
    """
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY)
    os.close(handle)
    temporary = Path(name)
    try:
        with naming(path, temporary):
            write(temporary)
            temporary.chmod(0o644)
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder that takes the place of `folder` when the block ends without error.

    What lies at `folder` stays until then: the two change places at once where the file system can
    (Linux), and the old one is deleted after that.

    Raises:
      UserError: `folder` is a link.
      OSError: the folder above cannot be written.
    """
    folder = Path(os.path.abspath(folder))
    if folder.is_symlink():
        raise UserError(f"{folder}: is a link, which is not followed; name the folder itself")
    make_folder(folder.parent)
    made = temporary_folder(folder)
    try:
        with naming(folder, made):
            yield made
            made.chmod(0o755)
            sync_all(made)
            if folder.exists():
                _exchange(made, folder)
            else:
                os.rename(made, folder)
            sync(folder.parent)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    """Two folders change places, at once where the system can."""
    names = (os.fsencode(one), os.fsencode(other))
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is not None and rename(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0:
        return
    between = one.with_name(f".old{one.name}")
    os.rename(other, between)
    try:
        os.rename(one, other)
    except BaseException:
        os.rename(between, other)
        raise
    os.rename(between, one)


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


def write_sealed(file: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object whole or not at all, with a hash of itself under "seal"."""
    replace_file(file, lambda made: write_json(made, sealed(values)))


def read_sealed(file: Path) -> dict[str, Any] | None:
    """What `write_sealed` wrote; None where nothing lies there, or not what it wrote."""
    if file.is_symlink() or not file.is_file():
        return None
    return unsealed(file.read_bytes())


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values and a hash of them under "seal"."""
    return {**values, "seal": _seal(values)}


def unsealed(text: bytes) -> dict[str, Any] | None:
    """The values that a JSON text of `sealed` ones holds; None where it is none."""
    try:
        values = json.loads(text.decode())
        return values if values.pop("seal") == _seal(values) else None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None


def _seal(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json_text(values, sort_keys=True).encode()).hexdigest()


def write_mark(folder: Path, kind: str, **values: Any) -> None:
    """Marks a folder as an "adapter" or "stage" of ours, with the hashes of its files."""
    write_sealed(folder / MARK, {"kind": kind, "files": hashes(folder), **values})


def hashes(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 of all files of a folder but its mark."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != MARK)
    return {path.name: sha256(path) for path in files}
