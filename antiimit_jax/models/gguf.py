"""Reads GGUF files: metadata as a Hugging Face config, tensors in Hugging Face layout.

The `gguf` package parses and dequantises. Two things are ours: the metadata becomes the same
config dictionary that `families` reads, and the query and key rows of the llama architecture, which
GGUF stores interleaved for its own rotary embedding, are put back into Hugging Face's half-split
order.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.leaves import Leaf, leaves_of

# GGUF metadata (after the architecture prefix) -> config.json
_CONFIG_KEYS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.key_length": "head_dim",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocab_size",
}
_IGNORED_KEYS = {"rope.dimension_count", "attention.value_length"}
_INTEGERS = ("I8", "I16", "I32", "I64")
_ARCHITECTURES = {"llama": "llama"}


class GgufCheckpoint:
    """A GGUF file opened for reading; tensors are dequantised one at a time."""

    def __init__(self, path: Path) -> None:
        """Opens and checks the file.

        Raises:
          UserError: not a GGUF file, truncated, or an architecture that is not ported.
        """
        self.path = path
        size = os.path.getsize(path)
        try:
            self._reader = gguf.GGUFReader(path)
        except (ValueError, IndexError, KeyError, OverflowError, MemoryError, OSError) as error:
            raise UserError(
                f"{path}: not a readable GGUF file ({error}); fetch it again"
            ) from error
        for tensor in self._reader.tensors:
            if tensor.data_offset + tensor.n_bytes > size:
                raise UserError(
                    f"{path}: truncated, tensor {tensor.name} reaches past the end of the file "
                    f"({size} bytes); fetch it again"
                )
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.architecture = self.field("general.architecture")
        if self.architecture not in _ARCHITECTURES:
            raise UserError(
                f"{path}: GGUF architecture {self.architecture!r} is not ported; "
                f"this version reads: {', '.join(_ARCHITECTURES)}"
            )

    def field(self, key: str, default: Any = None) -> Any:
        """A metadata value as a Python object (str, int, float, bool or list)."""
        field = self._reader.fields.get(key)
        try:
            return default if field is None else field.contents()
        except (ValueError, IndexError) as error:
            raise UserError(f"{self.path}: metadata {key} cannot be read ({error})") from error

    def config(self) -> dict[str, Any]:
        """The metadata as a `config.json` dictionary.

        Raises:
          UserError: a metadata key of the architecture whose meaning is not known.
        """
        prefix = f"{self.architecture}."
        config: dict[str, Any] = {"model_type": _ARCHITECTURES[self.architecture]}
        unknown = []
        for key in self._reader.fields:
            if not key.startswith(prefix):
                continue
            name = key.removeprefix(prefix)
            if name in _CONFIG_KEYS:
                config[_CONFIG_KEYS[name]] = self.field(key)
            elif name not in _IGNORED_KEYS:
                unknown.append(key)
        if unknown:
            raise UserError(f"{self.path}: metadata {', '.join(unknown)} is not understood")
        heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
        if heads and hidden and isinstance(heads, int):  # else `families` says what is wrong
            rotary = self.field(prefix + "rope.dimension_count")
            if rotary not in (None, config.get("head_dim", hidden // heads)):
                raise UserError(f"{self.path}: partial rotary embedding ({rotary}) is not ported")
        if "vocab_size" not in config and (table := self._tensors.get("token_embd.weight")):
            config["vocab_size"] = int(table.shape[1])
        config["tie_word_embeddings"] = "output.weight" not in self._tensors
        return config

    def names(self) -> set[str]:
        """Hugging Face names of the stored tensors (unknown ones keep their GGUF name)."""
        count = int(self.field(f"{self.architecture}.block_count", 0))
        layers = range(min(count, len(self._tensors)))  # a false count must not run for ever
        self._gguf_name: dict[str, tuple[str, Leaf]] = {}
        for leaf in leaves_of(parse_config(self.config(), str(self.path))):
            for i in layers if leaf.stacked else (0,):
                self._gguf_name[leaf.hf.format(i=i)] = (leaf.gguf.format(i=i), leaf)
        to_hf = {name: hf for hf, (name, _) in self._gguf_name.items()}
        return {to_hf.get(name, name) for name in self._tensors}

    def problem(self, hf_name: str, shape: tuple[int, ...]) -> str:
        """What the header says against a tensor of this shape; empty if nothing."""
        tensor = self._tensors[self._gguf_name[hf_name][0]]
        stored = tuple(int(n) for n in reversed(tensor.shape))
        if stored != shape:
            return f"{hf_name} has shape {stored}, not {shape}"
        kind = tensor.tensor_type.name
        return f"{hf_name} has type {kind}, not a float" if kind in _INTEGERS else ""

    def read(self, hf_name: str) -> np.ndarray:
        """One tensor as float32 in Hugging Face's shape and row order."""
        name, leaf = self._gguf_name[hf_name]
        tensor = self._tensors[name]
        shape = tuple(int(n) for n in reversed(tensor.shape))
        try:
            array = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        except (NotImplementedError, ValueError) as error:
            kind = tensor.tensor_type.name
            raise UserError(f"{self.path}: tensor {name} of type {kind} is not read") from error
        if leaf.rotary_heads:
            heads = int(self.field(f"{self.architecture}.attention.head_count"))
            if leaf.path[2] == "k":
                heads = int(self.field(f"{self.architecture}.attention.head_count_kv", heads))
            if len(array) % (2 * heads) == 0:  # else the wrong shape is the caller's to report
                array = half_split_rows(array, heads)
        return np.asarray(array, np.float32)


def half_split_rows(array: np.ndarray, heads: int) -> np.ndarray:
    """Undoes GGUF's interleaving: rows (h, pair, 2) of each head become (h, 2, pair)."""
    rest = array.shape[1:]
    split = array.reshape(heads, -1, 2, *rest)
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(-1, *rest)
