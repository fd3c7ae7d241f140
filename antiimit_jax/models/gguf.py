"""Reads GGUF files: metadata as a Hugging Face config, tensors in Hugging Face layout.

`gguf_header` reads the header, `gguf_config` its metadata; the `gguf` package dequantises. Here the
tensors go back to Hugging Face's layout: query and key rows that GGUF stores interleaved for its
own rotary embedding into half-split order, and Gemma's norms, stored as 1 + w, into w.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.gguf_config import ARCHITECTURES, config_of
from antiimit_jax.models.gguf_header import GgufHeader
from antiimit_jax.models.held_file import HeldFile
from antiimit_jax.models.leaves import Leaf, leaves_of

_INTEGERS = ("I8", "I16", "I32", "I64")


class GgufCheckpoint:
    """A GGUF file opened for reading; tensors are dequantised one at a time."""

    def __init__(self, path: Path) -> None:
        """Opens and checks the file.

        Raises:
          UserError: not a GGUF file, truncated, or an architecture that is not ported.
        """
        self.path = path
        self._file = HeldFile(path)
        try:
            header = GgufHeader(self._file)
        except ValueError as error:
            what = f"{path}: not a readable GGUF file ({str(error):.400})"
            raise UserError(f"{what}; fetch it again") from error
        self._values, self._tensors = header.values, header.tensors
        name = self.field("general.architecture")
        if not isinstance(name, str) or name not in ARCHITECTURES:
            known = f"this version reads: {', '.join(ARCHITECTURES)}"
            raise UserError(f"{path}: GGUF architecture {name!r} is not ported; {known}")
        self.architecture, self._rules = name, ARCHITECTURES[name]
        if (parts := self.field("split.count", 1)) not in (0, 1):
            how = "merge them first, with llama.cpp's `llama-gguf-split --merge`"
            raise UserError(f"{path}: one of {parts} parts; {how}")

    def field(self, key: str, default: Any = None) -> Any:
        """A metadata value as a Python object (str, int, float, bool or list)."""
        value = self._values.get(key, default)
        try:
            if isinstance(value, list):
                return [one.decode() if isinstance(one, bytes) else one for one in value]
            return value.decode() if isinstance(value, bytes) else value
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path}: metadata {key} is not UTF-8 ({error})") from error

    def check_unchanged(self) -> None:
        """Raises UserError where the file was replaced or written to since it was opened."""
        self._file.check_unchanged()

    def config(self) -> dict[str, Any]:
        """The metadata as a `config.json` dictionary.

        Raises:
          UserError: a metadata key of the architecture whose meaning is not known, or values that
            contradict each other.
        """
        prefix = f"{self.architecture}."
        own = [key for key in self._values if key.startswith(prefix)]
        metadata = {key.removeprefix(prefix): self.field(key) for key in own}
        shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        try:
            return config_of(self.architecture, metadata, shapes, self._dequantised)
        except ValueError as error:
            raise UserError(f"{self.path}: {error}") from error

    @functools.cached_property
    def _config(self) -> Any:
        return parse_config(self.config(), str(self.path))

    @functools.cached_property
    def _places(self) -> dict[str, tuple[str, Leaf]]:
        """Hugging Face name -> GGUF name and (one) entry of the leaf table."""
        return {
            leaf.hf.format(i=i): (leaf.gguf.format(i=i), leaf)
            for leaf in leaves_of(self._config)
            for i in (range(self._config.n_layers) if leaf.stacked else (0,))
        }

    def names(self) -> set[str]:
        """Hugging Face names of the stored tensors (unknown ones keep their GGUF name).

        Raises:
          UserError: the metadata are not those of a model that is ported.
        """
        to_hf = {name: hf for hf, (name, _) in self._places.items()}
        weights = self._tensors.keys() - {*self._rules.rope_tensors}
        return {to_hf.get(name, name) for name in weights}

    def problem(self, hf_name: str, shape: tuple[int, ...]) -> str:
        """What the header says against a tensor of this shape; empty if nothing."""
        tensor = self._tensors[self._places[hf_name][0]]
        if tensor.shape != shape:
            return f"{hf_name} has shape {tensor.shape}, not {shape}"
        kind = tensor.kind.name
        return f"{hf_name} has type {kind}, not a float" if kind in _INTEGERS else ""

    def read(self, hf_name: str) -> np.ndarray:
        """One tensor as float32 in Hugging Face's shape and row order.

        Raises:
          UserError: a storage type that is not read.
        """
        name, leaf = self._places[hf_name]
        array = self._dequantised(name)
        if leaf.rotary_heads and self._rules.interleaved:
            heads = getattr(self._config, leaf.rotary_heads)
            if array.ndim and len(array) % (2 * heads) == 0:  # else the caller reports the shape
                array = half_split_rows(array, heads)
        if leaf.path[-1] == "scale" and self._config.norm_offset:
            array = array - np.float32(1)
        return array

    def blocks(self, hf_name: str) -> Iterator[tuple[int, np.ndarray]]:
        """The same as rows from the first on, in one piece."""
        yield 0, self.read(hf_name)

    def _dequantised(self, name: str) -> np.ndarray:
        """One tensor by its GGUF name, as float32."""
        tensor = self._tensors[name]
        stored = np.empty(tensor.n_bytes, np.uint8)
        self._file.read_into(stored, tensor.start, name)
        stored = stored.reshape(*tensor.shape[:-1], tensor.row_bytes)
        try:
            with np.errstate(all="ignore"):  # who reads it looks for what is not finite
                array = gguf.quants.dequantize(stored, tensor.kind)
        except NotImplementedError as error:
            kind = tensor.kind.name
            raise UserError(f"{self.path}: tensor {name} of type {kind} is not read") from error
        return np.asarray(array.reshape(tensor.shape), np.float32)


def half_split_rows(array: np.ndarray, heads: int) -> np.ndarray:
    """Undoes GGUF's interleaving: rows (h, pair, 2) of each head become (h, 2, pair)."""
    rest = array.shape[1:]
    split = array.reshape(heads, -1, 2, *rest)
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(-1, *rest)
