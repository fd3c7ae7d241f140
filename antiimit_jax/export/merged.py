"""A checkpoint's tensors with an adapter merged in, as safetensors shards.

One tensor at a time is read, merged in float32, cast once and kept until its shard is full, so
memory holds a shard and a tensor, never the model.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from huggingface_hub.serialization import split_state_dict_into_shards_factory

from antiimit_jax.errors import UserError
from antiimit_jax.files import write_json
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.leaves import Leaf, stored_tensors
from antiimit_jax.models.peft import Adapter
from antiimit_jax.models.safetensors_files import save_tensors
from antiimit_jax.models.weights import check_headers, check_tied_head, refuse_faulty

_BLOCK_BYTES = 64 * 2**20  # of float32, while a tensor is merged row by row
Held = Sequence[tuple[Leaf, int]]  # the parameters in one stored tensor, with their layers


def total_bytes(cfg: ModelConfig, dtype: str) -> int:
    """What all tensors take on disk."""
    return sum(_bytes(places, cfg, dtype) for places in stored_tensors(cfg).values())


def write_merged(
    folder: Path,
    checkpoint: Any,
    cfg: ModelConfig,
    adapter: Adapter | None,
    dtype: str,
    max_shard_size: int | str,
    done: Callable[[int], None],
) -> None:
    """Writes `model*.safetensors`, and the index where there is more than one file.

    Args:
      checkpoint: as `models.weights` says.
      dtype: of all tensors written.
      done: is told the number of tensors after each.

    Raises:
      UserError: tensors that are missing, unexpected, misshaped, not finite, or beyond float16; or
        a file of the checkpoint was replaced meanwhile.
      OSError: the disk is full.
    """
    places, _, problems = check_headers(checkpoint, cfg)
    refuse_faulty(checkpoint, problems)
    check_tied_head(checkpoint, cfg)
    plan = split_state_dict_into_shards_factory(
        places,
        get_storage_size=lambda held: _bytes(held, cfg, dtype),
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    for file, names in plan.filename_to_tensors.items():
        shard = {}
        for name in names:
            shard[name] = _merged(name, checkpoint, places[name], cfg, adapter, dtype)
            done(1)
        save_tensors(shard, folder / file)
    checkpoint.check_unchanged()
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        write_json(folder / "model.safetensors.index.json", index)


def _bytes(held: Held, cfg: ModelConfig, dtype: str) -> int:
    return int(np.prod(held[0][0].stored_shape(cfg))) * jnp.dtype(dtype).itemsize


def _merged(
    name: str, checkpoint: Any, held: Held, cfg: ModelConfig, adapter: Adapter | None, dtype: str
) -> np.ndarray:
    """One stored tensor, with what the adapter adds to the parameters in it."""
    array = checkpoint.read(name)
    fault = lambda what: UserError(f"{checkpoint.path}: {name} {what}")
    step = max(1, _BLOCK_BYTES // (4 * int(np.prod(array.shape[1:]))))
    merged = np.empty(array.shape, jnp.dtype(dtype))
    for leaf, i in held:
        own, pair = leaf.rows(cfg), _pair(adapter, leaf)
        for start in range(own.start, own.stop, step):
            rows = slice(start, min(start + step, own.stop))
            part = array[rows].astype(np.float32)
            if not np.isfinite(part).all():
                raise fault("holds NaN or infinity")
            if pair is not None:
                b = pair["b"][i, rows.start - own.start : rows.stop - own.start]
                part += np.float32(adapter.scale) * (b @ pair["a"][i])
            with np.errstate(over="ignore"):
                merged[rows] = part
            if not np.isfinite(merged[rows]).all():
                raise fault(f"does not fit {dtype}; export with --dtype=bfloat16 or float32")
    return merged


def _pair(adapter: Adapter | None, leaf: Leaf) -> Mapping[str, np.ndarray] | None:
    if adapter is None or not leaf.transposed:
        return None
    _, group, name, _ = leaf.path
    return adapter.tree["layers"].get(group, {}).get(name)
