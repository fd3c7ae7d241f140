"""Adapters on disk in PEFT's format: `adapter_config.json` beside `adapter_model.safetensors`.

Our tree stores a and b in PEFT's orientation, stacked over layers, so each file tensor is one slice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save_file

from antiimit_jax.errors import UserError
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.leaves import LORA_TARGETS, Leaf
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.weights import read_json

Tree = Any
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_REFUSED = {
    "use_dora": "DoRA is not ported",
    "modules_to_save": "fully trained modules are not ported",
    "rank_pattern": "ranks that differ between modules are not ported",
    "alpha_pattern": "scales that differ between modules are not ported",
    "trainable_token_indices": "trained tokens are not ported",
    "lora_bias": "biases in LoRA are not ported",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter ready to be applied, with what its file says."""

    tree: Tree  # the `lora` collection, numpy float32
    scale: float
    base_model: str
    sha256: str  # of the weights file


def save_adapter(
    folder: Path, adapter: Tree, cfg: ModelConfig, lora: LoraConfig, base_model: str
) -> str:
    """Writes an adapter whole or not at all, replacing one that is there; returns its sha256.

    Layers outside the trained range are left out (`layers_to_transform`).

    Raises:
      OSError: the folder cannot be written.
    """
    first, last = lora.layer_range(cfg)
    tensors = {}
    for name in lora.targets:
        leaf = LORA_TARGETS[name]
        pair = adapter["layers"][leaf.path[1]][name]
        for i in range(first, last):
            for side, array in (("lora_A", pair["a"]), ("lora_B", pair["b"])):
                tensors[_file_name(leaf, i, side)] = np.ascontiguousarray(array[i], np.float32)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(LORA_TARGETS[name].hf.split(".")[-2] for name in lora.targets),
        "layers_to_transform": None if (first, last) == (0, cfg.n_layers) else [*range(first, last)],
        "layers_pattern": None if (first, last) == (0, cfg.n_layers) else "layers",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "inference_mode": True,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        save_file(tensors, made / WEIGHTS_FILE, metadata={"format": "pt"})
        (made / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        made.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return _sha256(folder / WEIGHTS_FILE)


def load_adapter(folder: Path, cfg: ModelConfig) -> Adapter:
    """Reads a PEFT LoRA adapter and checks it against the model.

    Raises:
      UserError: not an adapter folder, a kind of adapter that is not ported, or tensors that do
        not fit the model; all faulty tensors in one message.
    """
    config = _read_config(folder)
    rank, alpha = config["r"], config["lora_alpha"]
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    file = folder / WEIGHTS_FILE
    try:
        with safetensors.safe_open(file, framework="np") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{file}: not a readable safetensors file ({error})") from error
    tree: dict = {}
    problems = []
    for name, leaf in LORA_TARGETS.items():
        pair = _stacked(name, leaf, tensors, cfg, rank, problems)
        if pair is not None:
            tree.setdefault(leaf.path[1], {})[name] = pair
    problems += [f"unexpected {name}" for name in sorted(tensors)]
    if not tree:
        problems.append("holds no LoRA tensors of this model")
    if problems:
        shown = "; ".join(problems[:6]) + ("; ..." if len(problems) > 6 else "")
        raise UserError(f"{file}: does not fit the model: {shown}")
    base = str(config.get("base_model_name_or_path") or "")
    return Adapter(tree={"layers": tree}, scale=scale, base_model=base, sha256=_sha256(file))


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise UserError(f"{folder}: no {CONFIG_FILE}; name a folder with a PEFT adapter")
    if not (folder / WEIGHTS_FILE).is_file():
        pickles = [f.name for f in folder.iterdir() if f.suffix in (".bin", ".pt")]
        hint = f" ({', '.join(pickles)} is a pickle and never read)" if pickles else ""
        raise UserError(f"{folder}: no {WEIGHTS_FILE}{hint}")
    config = read_json(file)
    if config.get("peft_type") != "LORA":
        raise UserError(f"{file}: peft_type {config.get('peft_type')!r} is not ported (LORA is)")
    for key, reason in _REFUSED.items():
        if config.get(key):
            raise UserError(f"{file}: `{key}` is set, and {reason}")
    if config.get("bias", "none") != "none":
        raise UserError(f"{file}: `bias` = {config['bias']!r}, and trained biases are not ported")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, (int, float)) or alpha <= 0:
        raise UserError(f"{file}: `r` = {rank!r} and `lora_alpha` = {alpha!r} must be positive")
    return config


def _stacked(
    name: str,
    leaf: Leaf,
    tensors: dict[str, np.ndarray],
    cfg: ModelConfig,
    rank: int,
    problems: list[str],
) -> dict[str, np.ndarray] | None:
    """a and b of one module over all layers, taken out of `tensors`; absent layers are zero."""
    out, inp = leaf.shape(cfg)
    pair = {
        "a": np.zeros((cfg.n_layers, rank, inp), np.float32),
        "b": np.zeros((cfg.n_layers, out, rank), np.float32),
    }
    found = 0
    for i in range(cfg.n_layers):
        sides = [(key, _file_name(leaf, i, side)) for key, side in (("a", "lora_A"), ("b", "lora_B"))]
        present = [file_name for _, file_name in sides if file_name in tensors]
        if len(present) == 1:
            problems.append(f"layer {i} {name}: only one of lora_A and lora_B is there")
        for key, file_name in sides:
            if file_name not in tensors:
                continue
            array = tensors.pop(file_name)
            if array.shape != pair[key].shape[1:]:
                problems.append(f"{file_name} has shape {array.shape}, not {pair[key].shape[1:]}")
            elif not np.isfinite(np.asarray(array, np.float32)).all():
                problems.append(f"{file_name} holds NaN or infinity")
            else:
                pair[key][i] = array
                found += 1
    return pair if found else None


def _file_name(leaf: Leaf, i: int, side: str) -> str:
    return _PREFIX + leaf.hf.format(i=i).replace(".weight", f".{side}.weight")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
