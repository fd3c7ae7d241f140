"""The header of a GGUF file: metadata and where the tensors lie. No count in it is taken on trust.

Source of the format: ggml's `docs/gguf.md`; what is refused here, ggml's own reader refuses, too.
"""

import dataclasses
import math
import struct
from typing import Any

import gguf
import numpy as np

from antiimit_jax.models.held_file import HeldFile

_VERSIONS = (2, 3)
_STRING, _LIST = 8, 9
_NUMBERS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?"} | {
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_LONGEST_LIST = 2_000_000  # values of one metadata key; the longest known has half a million
_LONGEST_HEADER = 2**27  # bytes; the longest known has a tenth of it
_MOST_DIMENSIONS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class GgufTensor:
    """What the header says of a tensor."""

    kind: gguf.GGMLQuantizationType
    shape: tuple[int, ...]  # outermost dimension first
    row_bytes: int
    n_bytes: int
    start: int  # its first byte in the file


class GgufHeader:
    """Metadata by key, strings still as bytes, and tensors by name."""

    def __init__(self, file: HeldFile) -> None:
        """Reads the header.

        Raises:
          ValueError: what the file says makes no sense, or it is too short.
        """
        self.values: dict[str, Any] = {}
        self.tensors: dict[str, GgufTensor] = {}
        self._at, self._end = 0, min(file.size, _LONGEST_HEADER)
        with file.reader() as self._file:
            if self._take(4) != b"GGUF":
                raise ValueError("it does not begin with GGUF")
            version = self._number("<u4")
            if version & 0xFFFF == 0:
                raise ValueError("it is big-endian; only little-endian ones are read")
            if version not in _VERSIONS:
                raise ValueError(f"it has version {version}")
            n_tensors, n_keys = self._number("<u8"), self._number("<u8")
            for _ in range(n_keys):
                self._read_key()
            infos = {}
            for _ in range(n_tensors):
                self._read_info(infos)
        self._place(infos, file.size)

    def _take(self, count: int) -> bytes:
        self._at += count
        taken = self._file.read(count) if self._at <= self._end else b""
        if len(taken) != count:
            raise ValueError(f"{count} bytes reach past the end")
        return taken

    def _number(self, kind: str) -> Any:
        dtype = np.dtype(kind)
        return np.frombuffer(self._take(dtype.itemsize), dtype).item()

    def _bytes(self) -> bytes:
        return self._take(struct.unpack("<Q", self._take(8))[0])

    def _read_key(self) -> None:
        key = self._bytes().decode()
        if key in self.values:
            raise ValueError(f"metadata {key} is there twice")
        try:
            self.values[key] = self._value(self._number("<u4"))
        except ValueError as error:
            raise ValueError(f"metadata {key}: {error}") from error

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._bytes()
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind != _LIST:
            raise ValueError(f"has type {kind}")
        kind, length = self._number("<u4"), self._number("<u8")
        if length > _LONGEST_LIST:
            raise ValueError(f"a list of {length} values")
        if kind == _STRING:
            return [self._bytes() for _ in range(length)]
        if kind not in _NUMBERS:
            raise ValueError(f"a list of values of type {kind}")
        dtype = np.dtype(_NUMBERS[kind])
        return np.frombuffer(self._take(length * dtype.itemsize), dtype).tolist()

    def _read_info(self, infos: dict[str, Any]) -> None:
        name, n_dimensions = self._bytes().decode(), self._number("<u4")
        if name in infos:
            raise ValueError(f"tensor {name} is there twice")
        if not 1 <= n_dimensions <= _MOST_DIMENSIONS:
            raise ValueError(f"tensor {name} has {n_dimensions} dimensions")
        shape = tuple(self._number("<u8") for _ in range(n_dimensions))[::-1]
        infos[name] = shape, self._number("<u4"), self._number("<u8")

    def _place(self, infos: dict[str, Any], size: int) -> None:
        """Tensors lie one behind the other, as their sizes and the alignment say."""
        step = self.values.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
        if not isinstance(step, int) or step <= 0 or step & (step - 1):
            raise ValueError(f"metadata general.alignment is no power of two ({step!r:.60})")
        data = self._at + -self._at % step
        offset = 0
        for name, (shape, number, said) in infos.items():
            kind = gguf.GGMLQuantizationType(number)
            block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
            if shape[-1] % block:
                raise ValueError(f"tensor {name}: rows of {shape[-1]} are no blocks of {kind.name}")
            if said != offset:
                raise ValueError(f"tensor {name} lies at {said}, not at {offset}")
            row_bytes = shape[-1] // block * block_bytes
            n_bytes = math.prod(shape[:-1]) * row_bytes
            if data + offset + n_bytes > size:
                past = f"tensor {name!r} reaches past the end of the file ({size} bytes)"
                raise ValueError(f"truncated, {past}")
            self.tensors[name] = GgufTensor(
                kind=kind, shape=shape, row_bytes=row_bytes, n_bytes=n_bytes, start=data + offset
            )
            offset += n_bytes + -n_bytes % step
