"""Broken adapters and GGUF files: name -> how to break a sound one, and what must be named."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.models.broken_checkpoints import Case


def _adapter_config(**changes: Any) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return rewrite


def _adapter_tensors(change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")

    return rewrite


def _first(tensors: dict[str, np.ndarray]) -> str:
    return sorted(tensors)[0]


ADAPTERS: dict[str, Case] = {
    "another rank than its config": (_adapter_config(r=3), ("shape",)),
    "rank of zero": (_adapter_config(r=0), ("r",)),
    "rank in words": (_adapter_config(r="two"), ("two",)),
    "unknown kind": (_adapter_config(peft_type="TRAP"), ("TRAP",)),
    "DoRA": (_adapter_config(use_dora=True), ("use_dora",)),
    "config a list": (
        lambda folder: (folder / "adapter_config.json").write_text("[]"),
        ("adapter_config.json",),
    ),
    "NaN": (_adapter_tensors(lambda t: t[_first(t)].fill(np.nan)), ("NaN",)),
    "half a pair": (_adapter_tensors(lambda t: t.pop(_first(t))), ("lora_A",)),
    "a layer too many": (
        _adapter_tensors(
            lambda t: t.update({_first(t).replace("layers.0", "layers.7"): t[_first(t)]})
        ),
        ("layers.7",),
    ),
    "cut": (
        lambda folder: os.truncate(folder / "adapter_model.safetensors", 300),
        ("safetensors",),
    ),
    "a pickle alone": (
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        ("adapter_model.bin", "pickle"),
    ),
}


def _gguf_count(place: int, count: int) -> Callable[[Path], None]:
    def rewrite(file: Path) -> None:
        whole = file.read_bytes()
        file.write_bytes(whole[:place] + struct.pack("<Q", count) + whole[place + 8 :])

    return rewrite


def _gguf_cut(share: float) -> Callable[[Path], None]:
    return lambda file: os.truncate(file, int(share * (file.stat().st_size - 1)))


GGUF_FILES: dict[str, Case] = {
    "empty": (_gguf_cut(0.0), ("GGUF",)),
    "cut in the metadata": (_gguf_cut(0.01), ("GGUF",)),
    "cut in the data": (_gguf_cut(0.6), ("fetch it again",)),
    "cut before the last byte": (_gguf_cut(1.0), ("fetch it again",)),
    "false tensor count": (_gguf_count(8, 2**40), ("GGUF",)),
    "false key count": (_gguf_count(16, 2**63), ("GGUF",)),
    "another magic": (lambda file: file.write_bytes(b"PK\3\4" + file.read_bytes()[4:]), ("GGUF",)),
}
