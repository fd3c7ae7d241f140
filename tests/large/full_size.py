"""Random checkpoints with the exact shapes of released models, and what loading them costs.

python -m tests.large.full_size write llama-2-7b FOLDER [LAYERS]
python -m tests.large.full_size times FOLDER [REPEATS]
"""

from __future__ import annotations

import gc
import json
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from antiimit_jax.models.families import parse_config
from antiimit_jax.models.leaves import leaves_of
from tests.random_decoder import byte_tokenizer

_COMMON = {"torch_dtype": "bfloat16", "attention_bias": False}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama-2-7b": _COMMON
    | {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 11008,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    },
    "gemma-7b": _COMMON
    | {
        "model_type": "gemma",
        "vocab_size": 256000,
        "hidden_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "intermediate_size": 24576,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "hidden_act": "gelu_pytorch_tanh",
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    },
}
_SHARD = 4 * 10**9
_BLOCK = 2**22  # values that are drawn; the weights repeat them at shifting places
SCALE = 0.02


def config_of(name: str, layers: int | None = None) -> dict[str, Any]:
    """The released `config.json`, or that with fewer layers."""
    return CONFIGS[name] | ({"num_hidden_layers": layers} if layers else {})


def stored_tensors(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes on disk."""
    cfg = parse_config(config, "full size")
    for leaf in leaves_of(cfg):
        for i in range(cfg.n_layers) if leaf.stacked else (0,):
            yield leaf.hf.format(i=i), leaf.stored_shape(cfg)


def size(config: dict[str, Any]) -> int:
    """Bytes of all weights in bfloat16."""
    return sum(2 * int(np.prod(shape)) for _, shape in stored_tensors(config))


def write(config: dict[str, Any], folder: Path) -> Path:
    """Config, tokenizer and bfloat16 shards with an index, in the memory of a few blocks."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    byte_tokenizer(["a small text"], size=300).hf.save_pretrained(folder)
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    held = 0
    for name, shape in stored_tensors(config):
        held += 2 * int(np.prod(shape))
        if held > _SHARD and shards[-1]:
            shards.append({})
            held = 2 * int(np.prod(shape))
        shards[-1][name] = shape
    rng = np.random.default_rng(0)
    noise = (SCALE * rng.standard_normal(2 * _BLOCK, np.float32)).astype(ml_dtypes.bfloat16)
    weight_map = {}
    for number, shapes in enumerate(shards, 1):
        file = folder / f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= dict.fromkeys(shapes, file.name)
        _write_shard(file, shapes, noise, rng, neutral=config["model_type"] != "gemma")
    index = {"metadata": {"total_size": size(config)}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def _write_shard(
    file: Path, shapes: dict[str, tuple[int, ...]], noise: np.ndarray, rng, *, neutral: bool
) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            left = int(np.prod(shape))
            while left:
                start = int(rng.integers(_BLOCK))
                block = noise[start : start + min(left, _BLOCK)]
                if "norm" in name:  # about one; Gemma stores it less one
                    block = (block + np.float32(neutral)).astype(noise.dtype)
                out.write(block.tobytes())
                left -= len(block)


def times(folder: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds to read all files into new memory, and to load the model, in turns.

    Memory that is new in each turn, as a loader's must be: into a small buffer that stays in the
    processor's cache the same files are "read" at ten times the speed.
    """
    from antiimit_jax.models.weights import find_model, load_params

    result: dict[str, list[float]] = {"read": [], "load": []}
    for _ in range(repeats + 1):  # the first turn warms
        began = time.perf_counter()
        held = [np.fromfile(file, np.uint8) for file in sorted(folder.glob("*.safetensors"))]
        result["read"].append(time.perf_counter() - began)
        del held
        began = time.perf_counter()
        loaded = load_params(find_model(str(folder)), ml_dtypes.bfloat16)
        result["load"].append(time.perf_counter() - began)
        del loaded
        gc.collect()
    return {what: seconds[1:] for what, seconds in result.items()}


if __name__ == "__main__":
    if sys.argv[1] == "write":
        layers = int(sys.argv[4]) if len(sys.argv) > 4 else None
        write(config_of(sys.argv[2], layers), Path(sys.argv[3]))
    else:
        print(json.dumps(times(Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 3)))
