"""Whose a run is: the model's files, the code and the packages that its results were made with."""

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import logging

import antiimit_jax
from antiimit_jax.errors import UserError
from antiimit_jax.files import json_text, replace_file
from antiimit_jax.gguf_cache import own_folder
from antiimit_jax.json_files import read_json
from antiimit_jax.models.held_file import HeldFile, HeldFiles
from antiimit_jax.models.weights import Source
from antiimit_jax.trees import digest, flat
from antiimit_jax.versions import versions

PACKAGES = ("antiimit_jax", "jax", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")
_QUANTISING = ("qwix",)  # has a part in the results of runs with quantised weights alone
_SHOW_ONLY = ("reporting", "planning", "export")  # rooms that change no result
_LARGE = 32 * 2**20  # bytes; the hash of such a file is kept
_SETTLED = 2.0  # seconds after its last change from which a file's times tell of its contents


def packages(quantize: str) -> tuple[str, ...]:
    """The packages that results with weights in a format are made with."""
    return PACKAGES if quantize == "none" else PACKAGES + _QUANTISING


def identity(
    source: Source, quantize: str, tell: Callable[[str], None]
) -> dict[str, dict[str, str]]:
    """{"model": file -> SHA-256, "code": package -> version, "source" the hash of ours}.

    Weights, tokenizer and chat template are among the model's files.

    Args:
      quantize: format of the weights in the run.
      tell: said when files are so large that it takes time.

    Raises:
      UserError: as `file_hashes`.
    """
    return {"model": file_hashes(source.files, tell), "code": code(quantize)}


def code(quantize: str) -> dict[str, str]:
    """Package -> version, and "source", the hash of ours."""
    return versions(packages(quantize)) | {"source": _source_hash()}


def file_hashes(held: HeldFiles, tell: Callable[[str], None]) -> dict[str, str]:
    """File -> SHA-256 of what it held when it was opened, and has held since.

    Args:
      tell: said when files are so large that it takes time.

    Raises:
      UserError: one was written to, replaced or added since.
    """
    kept, keys = _read_kept(), {name: _key(file) for name, file in held.files.items()}
    size = sum(file.size for name, file in held.files.items() if keys[name] not in kept)
    if size > 2**30:
        tell(f"hashing {size / 1e9:.0f} GB of the model; this is done once")
    now = {name: kept.get(keys[name]) or file.sha256() for name, file in held.files.items()}
    held.check_unchanged()
    new = {keys[n]: now[n] for n, file in held.files.items() if _may_be_kept(file)}
    if not new.items() <= kept.items():
        _keep(kept | new)
    return now


def differing(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names, dotted, whose values differ."""
    theirs, ours = flat(there), flat(now)
    return [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]


def _source_hash() -> str:
    root = Path(antiimit_jax.__file__).parent
    inside = {path.relative_to(root): path for path in root.rglob("*") if path.is_file()}
    counts = lambda name: name.parts[0] not in _SHOW_ONLY and "__pycache__" not in name.parts
    return digest({str(name): inside[name].read_bytes() for name in filter(counts, sorted(inside))})


def _key(file: HeldFile) -> str:
    """A file that was not written to since: place, inode, size and both times."""
    stat = file.stat()
    times = f"{stat.st_mtime_ns} {stat.st_ctime_ns}"
    return f"{file.path.resolve()} {stat.st_dev} {stat.st_ino} {stat.st_size} {times}"


def _may_be_kept(file: HeldFile) -> bool:
    stat = file.stat()
    return stat.st_size >= _LARGE and time.time() - stat.st_ctime > _SETTLED


def _kept_file() -> Path:
    """Where hashes are kept, which stand for the files themselves: nobody else may write there."""
    return own_folder("hashes") / "sha256.json"


def _read_kept() -> dict[str, str]:
    try:
        return read_json(_kept_file(), {str: str})
    except UserError:  # absent or damaged: files are hashed again
        return {}
    except OSError as error:
        logging.warning("hashes of the model's files are not kept: %s", error)
        return {}


def _keep(kept: Mapping[str, str]) -> None:
    text = json_text(dict(list(kept.items())[-1000:]), indent=1)
    with contextlib.suppress(OSError):  # then they are hashed again the next time
        replace_file(_kept_file(), lambda made: made.write_text(text))
