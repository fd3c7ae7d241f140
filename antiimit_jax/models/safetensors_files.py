"""A Hugging Face folder: `config.json` and one or several safetensors files, read strictly.

The safetensors library judges the files (offsets, sizes, coverage). Tensors are then read from
their place by plain reads of some rows at a time, which cost a fraction of the library's own
way through a mapped file.
"""

import dataclasses
import errno
import json
import math
import os
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import save_file

from antiimit_jax.errors import UserError
from antiimit_jax.json_files import parse_json, read_json
from antiimit_jax.models.families import text_name
from antiimit_jax.models.held_file import HeldFile
from antiimit_jax.models.host_arrays import ALIGNMENT

_IGNORED_SUFFIXES = ("rotary_emb.inv_freq",)
_FLOATS = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32, "F64": np.float64}
_BLOCK_ROWS = 256
_LONGEST_HEADER = 2**24  # bytes; a model of 50,000 tensors has a third of it
_TENSOR = {"dtype": str, "shape": [int], "data_offsets": [int], str: object}
_HEADER = {"__metadata__?": object, str: _TENSOR}
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """What a file's header says of a tensor."""

    name: str
    file: HeldFile
    dtype: str  # as the format spells it: BF16, F32, ...
    shape: tuple[int, ...]
    start: int  # its first byte in the file

    def blocks(self, rows: int = _BLOCK_ROWS) -> Iterator[tuple[int, np.ndarray]]:
        """The values in the stored dtype, some rows at a time: first row and rows.

        The same small buffer each time, which stays in the processor's cache: copy what you keep.

        Raises:
          UserError: a dtype that is no float, or the file has become shorter.
        """
        if problem := self.dtype_problem:
            raise UserError(f"{self.file.path}: {self.name} {problem}")
        dtype = np.dtype(_FLOATS[self.dtype])
        total, rest = (self.shape[0], self.shape[1:]) if len(self.shape) > 1 else (1, self.shape)
        buffer = np.empty((min(rows, total), *rest), dtype)
        raw = buffer.reshape(-1).view(np.uint8)
        row = raw.nbytes // max(1, len(buffer))
        for first in range(0, max(total, 1), rows):
            block = buffer[: total - first]
            self.file.read_into(raw[: block.nbytes], self.start + first * row, self.name)
            yield first, block if len(self.shape) > 1 else block.reshape(self.shape)

    def read(self) -> np.ndarray:
        """All of it, as `blocks`."""
        ((_, array),) = self.blocks(rows=max(1, *self.shape[:1]))
        return array

    def mapped(self) -> np.ndarray:
        """All of it as it lies in the file, read when it is used; cannot be written to."""
        count = math.prod(self.shape)
        values = np.frombuffer(self.file.map, _FLOATS[self.dtype], count, self.start)
        return values.reshape(self.shape)

    @property
    def dtype_problem(self) -> str:
        """Why the values cannot be weights; empty if they can."""
        if self.dtype in _FLOATS:
            return ""
        return f"has dtype {self.dtype}, which is not one of {', '.join(_FLOATS)}"


class SafetensorsCheckpoint:
    """A model folder. Opening it reads the headers of all files, and no weights."""

    def __init__(self, path: Path) -> None:
        """Opens and checks the folder.

        Raises:
          UserError: no config, no weights, or files and index that contradict each other.
        """
        self.path = path
        if not (path / "config.json").is_file():
            raise UserError(f"{path}: no config.json; name a Hugging Face model folder")
        self._held = [HeldFile(path / "config.json")]
        self._config = read_json(path / "config.json")
        stored = self._indexed() if (path / _INDEX).is_file() else self._single()
        self._tensors: dict[str, StoredTensor] = {}
        for tensor in stored:
            name = text_name(tensor.name, self._config)
            if name and name in self._tensors:
                twice = f"{name} is there twice"
                raise UserError(f"{tensor.file.path}: {twice}; take it from one source")
            self._tensors[name] = tensor

    def config(self) -> dict[str, Any]:
        """The parsed `config.json`."""
        return self._config

    def names(self) -> set[str]:
        """Names of the language model's tensors, without the prefix of a model that also sees."""
        return {name for name in self._tensors if name and not name.endswith(_IGNORED_SUFFIXES)}

    def problem(self, name: str, shape: tuple[int, ...]) -> str:
        """What the header says against a tensor of this shape; empty if nothing."""
        tensor = self._tensors[name]
        if tensor.shape != shape:
            return f"{name} has shape {tensor.shape}, not {shape}"
        return f"{name} {tensor.dtype_problem}" if tensor.dtype_problem else ""

    def read(self, name: str) -> np.ndarray:
        """One tensor as stored (float64, float32, float16 or bfloat16).

        Raises:
          UserError: a dtype that is no float, or the file has become shorter.
        """
        return self._tensors[name].read()

    def blocks(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
        """The same some rows at a time: first row and rows, valid until the next are asked for."""
        return self._tensors[name].blocks()

    def check_unchanged(self) -> None:
        """Raises UserError where a file was replaced or written to since the folder was opened."""
        for file in self._held:
            file.check_unchanged()

    def _hold(self, name: str) -> HeldFile:
        self._held.append(HeldFile(self.path / name))
        return self._held[-1]

    def _single(self) -> list[StoredTensor]:
        file = self.path / _SINGLE
        if not file.is_file():
            hint = pickle_hint(self.path)
            raise UserError(f"{self.path}: no {_SINGLE}{hint}; convert to safetensors")
        check_inside(file)
        return read_header(self._hold(_SINGLE))

    def _indexed(self) -> list[StoredTensor]:
        index = self.path / _INDEX
        self._hold(_INDEX)
        where = read_json(index, {"weight_map": {str: str}, str: object})["weight_map"]
        if not where:
            raise UserError(f"{index}: has no weight_map")
        for name, shard in where.items():
            # Only plain names beside the index: an index must not point anywhere else.
            if Path(shard).name != shard or _leads_out(self.path / shard, self.path):
                raise UserError(f"{index}: {name} points outside the folder ({shard!r})")
            if not (self.path / shard).is_file():
                raise UserError(f"{index}: shard {shard} is missing; fetch it again")
        tensors = {}
        for shard in sorted(set(where.values())):
            for tensor in read_header(self._hold(shard)):
                if where.get(tensor.name, shard) != shard:
                    told = f"the index says {where[tensor.name]}"
                    raise UserError(f"{index}: {tensor.name} lies in {shard}, {told}")
                if tensor.name in tensors:
                    other = tensors[tensor.name].file.path.name
                    raise UserError(f"{index}: {tensor.name} lies in {other} and in {shard}")
                tensors[tensor.name] = tensor
        if lost := sorted(set(where) - set(tensors)):
            raise UserError(f"{index}: {lost[0]} is not in {where[lost[0]]}; fetch it again")
        return list(tensors.values())


def check_inside(file: Path, model: Path | None = None) -> None:
    """Raises UserError where a file of a model's folder is, or lies in, a link to some other place.

    The files of a snapshot in the hub's cache are links to the blobs of their repository.

    Args:
      model: the folder, where the file lies in another one in it.
    """
    if _leads_out(file, model or file.parent):
        raise UserError(f"{file}: is a link that leads out of the folder; copy the file")


def _leads_out(file: Path, model: Path) -> bool:
    try:
        parent, folder = file.resolve().parent, model.resolve()
    except (OSError, RuntimeError, ValueError):  # a ring of links, a name with a zero byte
        return True
    snapshot = folder.parent.name == "snapshots" and parent == folder.parent.parent / "blobs"
    return parent != folder / file.parent.relative_to(model) and not snapshot


def pickle_hint(folder: Path) -> str:
    """Says that pickles in a folder are never read; empty where there are none."""
    pickles = sorted(f.name for f in folder.iterdir() if f.suffix in (".bin", ".pt", ".pth"))
    return f" ({', '.join(pickles)} is a pickle and never read)" if pickles else ""


def read_header(file: HeldFile) -> list[StoredTensor]:
    """What a safetensors file holds; reads no weights.

    Raises:
      UserError: not a sound safetensors file, or a header that is larger than any known.
    """
    size = np.zeros(1, "<u8")
    try:
        with safetensors.safe_open(file.path, framework="np"):  # refuses all but duplicate names
            pass
        file.read_into(size.view(np.uint8), 0, "its first number")
        if (length := int(size[0])) > _LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        header = np.empty(length, np.uint8)
        file.read_into(header, size.nbytes, "its header")
        rows = parse_json(header.tobytes(), _HEADER, source="header")
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        why = f"not a readable safetensors file ({error!s:.400})"
        raise UserError(f"{file.path}: {why}; fetch it again") from error
    return [
        StoredTensor(
            name=name,
            file=file,
            dtype=row["dtype"],
            shape=tuple(row["shape"]),
            start=8 + length + row["data_offsets"][0],
        )
        for name, row in rows.items()
        if name != "__metadata__"
    ]


def write_aligned(file: Path, name: str, array: np.ndarray) -> None:
    """A file of one tensor, which a CPU device takes over where it is mapped, without a copy.

    The format allows white space after the header: here so much that the values are aligned.

    Raises:
      OSError: the disk is full, or the place cannot be written.
    """
    kind = next(kind for kind, dtype in _FLOATS.items() if array.dtype == dtype)
    row = {"dtype": kind, "shape": array.shape, "data_offsets": [0, array.nbytes]}
    header = json.dumps({name: row}).encode()
    header += b" " * (-(8 + len(header)) % ALIGNMENT)
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", len(header)) + header)
        opened.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


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
