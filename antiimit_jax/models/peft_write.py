"""Writes the two files of a PEFT adapter.

Our tree stores a and b in PEFT's orientation, stacked over layers, so a file tensor is one slice.
Where the checkpoint fuses projections (Phi-3) the file holds one adapter for all of them: A stacks
the parts' ranks and B has a block for each; the patterns of the config keep the scale.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from antiimit_jax.files import write_json
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.leaves import Leaf, lora_leaves
from antiimit_jax.models.peft_config import CONFIG_FILE
from antiimit_jax.models.safetensors_files import save_tensors

WEIGHTS_FILE = "adapter_model.safetensors"
_FORMAT = "0.21.2"  # the version of peft whose format is written


def write_adapter(
    folder: Path,
    pairs: Mapping[str, Mapping[str, np.ndarray]],
    cfg: ModelConfig,
    *,
    rank: int,
    alpha: float,
    layers: Sequence[int],
    base_model: str,
    revision: str | None = None,
) -> None:
    """Writes both files into a folder that exists.

    Args:
      pairs: short module name -> a [L, rank, in] and b [L, out, rank].
      layers: those that have adapters.

    Raises:
      OSError: the folder cannot be written.
    """
    fused: dict[str, list[tuple[str, Leaf]]] = {}  # stored tensor -> its parts
    for name, leaf in lora_leaves(cfg).items():
        if name in pairs:
            fused.setdefault(leaf.hf, []).append((name, leaf))
    tensors, modules, patterns = {}, [], {}
    for stored, parts in fused.items():
        modules.append(stored.split(".")[-2])
        joined = [_joined(parts, pairs, i, cfg) for i in layers]
        if len({len(a) for a, _ in joined}) > 1:  # the parts share A in some layers only
            joined = [_joined(parts, pairs, i, cfg, share=False) for i in layers]
        for i, (a, b) in zip(layers, joined):
            tensors[_file_name(stored, i, "lora_A")] = a
            tensors[_file_name(stored, i, "lora_B")] = b
        if (times := len(joined[0][0]) // rank) > 1:
            patterns[modules[-1]] = times
    whole = lambda number: int(number) if float(number).is_integer() else number
    every = list(layers) == [*range(cfg.n_layers)]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "revision": revision,
        "r": rank,
        "lora_alpha": whole(alpha),
        "rank_pattern": {name: times * rank for name, times in patterns.items()},
        "alpha_pattern": {name: whole(times * alpha) for name, times in patterns.items()},
        "lora_dropout": 0.0,
        "lora_bias": False,
        "bias": "none",
        "target_modules": sorted(modules),
        "exclude_modules": None,
        "layers_to_transform": None if every else list(layers),
        "layers_pattern": None if every else "layers",
        "modules_to_save": None,
        "init_lora_weights": True,
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
        "peft_version": _FORMAT,
    }
    save_tensors(tensors, folder / WEIGHTS_FILE)
    write_json(folder / CONFIG_FILE, config)


def _joined(
    parts: list[tuple[str, Leaf]],
    pairs: Mapping[str, Mapping[str, np.ndarray]],
    i: int,
    cfg: ModelConfig,
    share: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """A and B of one stored tensor in layer i, from those of its parts.

    Parts that have the same A keep it, if `share`; else the parts' ranks are stacked.
    """
    several = [np.asarray(pairs[name]["a"][i], np.float32) for name, _ in parts]
    same = share and all(np.array_equal(a, several[0]) for a in several)
    a = several[0].copy() if same else np.concatenate(several)
    b = np.zeros((parts[0][1].stored_shape(cfg)[0], len(a)), np.float32)
    first = 0
    for (name, leaf), own in zip(parts, several):
        b[leaf.rows(cfg), first : first + len(own)] = pairs[name]["b"][i]
        first += 0 if same else len(own)
    return a, b


def _file_name(stored: str, i: int, side: str) -> str:
    return "base_model.model." + stored.format(i=i).replace(".weight", f".{side}.weight")
