"""Adapters on disk in PEFT's format: `adapter_config.json` beside `adapter_model.safetensors`.

Our tree has one rank and one scale: an adapter whose modules differ is padded with zero ranks, and
each module's scale is multiplied into its b. Both change nothing about what the adapter computes.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp  # registers bfloat16 with numpy before safetensors reads any
import numpy as np
import safetensors

from antiimit_jax.errors import UserError
from antiimit_jax.files import sha256, whole_folder, write_mark
from antiimit_jax.models.catalog import CATALOG
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.families import bare_name
from antiimit_jax.models.held_file import HeldFile
from antiimit_jax.models.host_arrays import is_sound
from antiimit_jax.models.leaves import Leaf, lora_leaves
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.peft_config import CONFIG_FILE, read_adapter_config
from antiimit_jax.models.peft_write import WEIGHTS_FILE, write_adapter
from antiimit_jax.models.safetensors_files import pickle_hint
from antiimit_jax.trees import digest

Tree = Any
# The adapter's own name, which PEFT leaves out of files, follows lora_A in state dicts.
_KEY = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.(?P<name>\w+))?\.weight"
)
_FOREIGN = {
    "lora_embedding_": "adapters of the embedding are not ported",
    "lora_magnitude_vector": "DoRA is not ported",
    "modules_to_save": "fully trained modules are not ported",
    "lm_head": "adapters of the output head are not ported",
    "embed_tokens": "adapters of the embedding are not ported",
    ".bias": "trained biases are not ported",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter ready to be applied, with what its file says."""

    tree: Tree  # the `lora` collection, numpy float32
    scale: float
    base_model: str
    sha256: str  # of the weights file

    @property
    def rank(self) -> int:
        """The greatest of its modules."""
        first = next(iter(next(iter(self.tree["layers"].values())).values()))
        return first["a"].shape[1]

    @property
    def fingerprint(self) -> str:
        """Of what it does: its matrices and its scale."""
        return digest((self.tree, self.scale))

    def made_for(self, model: str) -> bool:
        """Whether its file names this model as its base, or none."""
        names = {base_name(model), str(Path(model).expanduser().resolve())}
        base = self.base_model
        return not base or base_name(base) in names or str(Path(base).resolve()) in names


def base_name(model: str) -> str:
    """What others call a model: the hub id of an alias, any other name as it is."""
    return CATALOG[model].hub_id if model in CATALOG else model


def save_adapter(
    folder: Path,
    adapter: Tree,
    cfg: ModelConfig,
    lora: LoraConfig,
    base_model: str,
    revision: str | None = None,
    run: str = "",
) -> str:
    """Writes an adapter whole or not at all, replacing one that is there; returns its sha256.

    It bears this program's mark, with the id of the `run` that trained it.

    Layers outside the trained range are left out (`layers_to_transform`).

    Raises:
      OSError: the folder cannot be written.
    """
    leaves = [leaf for name, leaf in lora_leaves(cfg).items() if name in lora.targets]
    pairs = {leaf.path[2]: adapter["layers"][leaf.path[1]][leaf.path[2]] for leaf in leaves}
    kind = {"rank": lora.rank, "alpha": lora.alpha, "layers": range(*lora.layer_range(cfg))}
    base = {"base_model": base_name(base_model), "revision": revision}
    with whole_folder(folder) as made:
        write_adapter(made, pairs, cfg, **kind, **base)
        write_mark(made, "adapter", run=run)
    return sha256(folder / WEIGHTS_FILE)


def load_adapter(folder: Path, cfg: ModelConfig) -> Adapter:
    """Reads a PEFT LoRA adapter and checks it against the model.

    Raises:
      UserError: not an adapter folder, a kind of adapter that is not ported, tensors that do not
        fit the model (all faulty tensors in one message), or a file that is written to meanwhile.
    """
    config = read_adapter_config(folder)
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        raise UserError(f"{folder}: no {WEIGHTS_FILE}{pickle_hint(folder)}")
    held = HeldFile(file)
    problems: list[str] = []
    found = _by_module(_read_tensors(file), problems)
    expected = config.rank_and_scale(list(found))
    untargeted = f"has tensors, and {CONFIG_FILE} does not target it"
    problems += [f"{module} {untargeted}" for module in config.not_targeted(list(found))]
    places: dict[str, list[tuple[str, Leaf, int]]] = {}
    for name, leaf in lora_leaves(cfg).items():
        for i in range(cfg.n_layers):
            module = leaf.hf.format(i=i).removesuffix(".weight")
            places.setdefault(module, []).append((name, leaf, i))
    pieces: dict[tuple[str, int], tuple[np.ndarray, np.ndarray, float]] = {}
    for module, sides in found.items():
        here = places.get(bare_name(module) if cfg.family == "gemma3_text" else module)
        if here is None:
            problems.append(_unexpected(module))
            continue
        rank, scale = expected[module]
        if faults := _faults(module, sides, rank, here[0][1].stored_shape(cfg)):
            problems += faults
            continue
        a, b = (np.asarray(sides[side], np.float32) for side in "AB")
        for name, leaf, i in here:
            pieces[name, i] = *_part(leaf, a, b, cfg), scale
    if not pieces and not problems:
        problems.append("holds no LoRA tensors of this model")
    if problems:
        shown = "; ".join(problems[:6]) + ("; ..." if len(problems) > 6 else "")
        raise UserError(f"{file}: does not fit the model: {shown}")
    tree, scale = _stacked(pieces, cfg)
    found_hash = held.sha256()
    held.check_unchanged()
    return Adapter(tree=tree, scale=scale, base_model=config.base_model, sha256=found_hash)


def _unexpected(name: str) -> str:
    why = next((f": {why}" for part, why in _FOREIGN.items() if part in name), "")
    return f"unexpected {name}{why}"


def _read_tensors(file: Path) -> dict[str, np.ndarray]:
    try:
        with safetensors.safe_open(file, framework="np") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}
    except (safetensors.SafetensorError, OSError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not a readable safetensors file ({error})") from error


def _by_module(
    tensors: Mapping[str, np.ndarray], problems: list[str]
) -> dict[str, dict[str, np.ndarray]]:
    """Module name in the torch model -> its sides "A" and "B"."""
    found: dict[str, dict[str, np.ndarray]] = {}
    names = set()
    for key, array in sorted(tensors.items()):
        match = _KEY.fullmatch(key)
        if match is None:
            problems.append(_unexpected(key))
            continue
        names.add(match["name"])
        sides = found.setdefault(match["module"], {})
        if match["side"] in sides:
            problems.append(f"{key} is there under two names")
        sides[match["side"]] = array
    if len(names) > 1:
        shown = ", ".join(sorted(str(name) for name in names))
        problems.append(f"tensors of several adapters ({shown}); save one alone")
    return found


def _faults(
    module: str, sides: Mapping[str, np.ndarray], rank: int, shape: tuple[int, ...]
) -> list[str]:
    if len(sides) == 1:
        return [f"{module}: only one of lora_A and lora_B is there"]
    faults = []
    for side, wanted in (("A", (rank, shape[1])), ("B", (shape[0], rank))):
        array = sides[side]
        if array.shape != wanted:
            said = f"has shape {array.shape}, not {wanted} (rank {rank} by {CONFIG_FILE})"
            faults.append(f"{module}.lora_{side} {said}")
        elif not jnp.issubdtype(array.dtype, jnp.floating):
            faults.append(f"{module}.lora_{side} has dtype {array.dtype}, not a float")
        elif not is_sound(np.ascontiguousarray(array, np.float32)):
            faults.append(f"{module}.lora_{side} holds NaN or infinity, or values above 1e18")
    return faults


def _part(leaf: Leaf, a: np.ndarray, b: np.ndarray, cfg: ModelConfig) -> tuple:
    """One parameter's share of a stored tensor's adapter, without ranks that do not reach it."""
    if leaf.stored_rows is None:
        return a, b
    b = b[leaf.rows(cfg)]
    reach = b.any(axis=0)
    return a[reach], b[:, reach]


def _stacked(
    pieces: Mapping[tuple[str, int], tuple[np.ndarray, np.ndarray, float]], cfg: ModelConfig
) -> tuple[Tree, float]:
    """The tree of one rank, and the one scale."""
    rank = max(1, *(len(a) for a, _, _ in pieces.values()))
    scales = {scale for _, _, scale in pieces.values()}
    common = scales.pop() if len(scales) == 1 else None
    tree: dict = {}
    for name, leaf in lora_leaves(cfg).items():
        present = [i for i in range(cfg.n_layers) if (name, i) in pieces]
        if not present:
            continue
        out, inp = leaf.shape(cfg)
        pair = tree.setdefault(leaf.path[1], {})[name] = {
            "a": np.zeros((cfg.n_layers, rank, inp), np.float32),
            "b": np.zeros((cfg.n_layers, out, rank), np.float32),
        }
        for i in present:
            a, b, scale = pieces[name, i]
            pair["a"][i, : len(a)] = a
            pair["b"][i, :, : len(a)] = b if common is not None else b * np.float32(scale)
    return {"layers": tree}, 1.0 if common is None else common
