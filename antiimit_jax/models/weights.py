"""From a name on the command line to parameters on a device: strict, tensor by tensor.

A checkpoint is anything with `path`, `config()`, `names()` and `read(name)` in Hugging Face's
naming and layout; GGUF files and safetensors folders both are. Everything missing, unexpected,
wrongly shaped or not finite is collected and reported in one error.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp  # registers bfloat16 with numpy before safetensors reads any
import numpy as np
import safetensors

from antiimit_jax.errors import UserError
from antiimit_jax.models.catalog import CATALOG, embedded_file, near_misses
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.families import parse_config, text_name
from antiimit_jax.models.gguf import GgufCheckpoint
from antiimit_jax.models.leaves import Leaf, leaves_of

_IGNORED_SUFFIXES = ("rotary_emb.inv_freq",)
_HUB_FILES = ["*.json", "model*.safetensors", "tokenizer.model", "*.jinja", "*.txt"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model was found."""

    name: str  # as asked for
    path: Path  # a GGUF file or a folder
    revision: str | None
    prompt_format: str  # "chat", "base", or "" where the catalog does not know

    def open(self) -> GgufCheckpoint | SafetensorsCheckpoint:
        """Opens the checkpoint.

        Raises:
          UserError: what is there cannot be read; the message says why.
        """
        if self.path.is_dir():
            return SafetensorsCheckpoint(self.path)
        return GgufCheckpoint(self.path)


def find_model(model: str, revision: str | None = None) -> Source:
    """Resolves ALIAS, FILE.gguf, FOLDER or HUB_ID.

    Raises:
      UserError: nothing of that name, with near misses; or a file that is not read (pickles).
    """
    path = Path(model).expanduser()
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt"):
        raise UserError(f"{model}: pickled weights are never read; convert them to safetensors")
    if model in CATALOG:
        entry = CATALOG[model]
        if entry.package:
            return Source(
                name=model,
                path=embedded_file(entry),
                revision=revision,
                prompt_format=entry.prompt_format,
            )
        model_id, prompt_format = entry.hub_id, entry.prompt_format
    elif path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return Source(name=model, path=path, revision=revision, prompt_format="")
    elif path.is_file():
        raise UserError(f"--model={model}: not a .gguf file or a folder with safetensors")
    elif path.suffix == ".gguf" or model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise UserError(f"--model={model}: no such file or folder")
    elif "/" not in model:
        hint = near_misses(model, CATALOG)
        raise UserError(
            f"--model={model}: unknown alias{hint or '; known: ' + ', '.join(CATALOG)}"
        )
    else:
        model_id, prompt_format = model, ""
    folder = _download(model_id, revision)
    return Source(name=model, path=folder, revision=revision, prompt_format=prompt_format)


def _download(model_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model_id, revision=revision, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"--model={model_id}: cannot be fetched from the hub ({reason}); "
            "name a local folder, or fetch it where there is a network"
        ) from error


class SafetensorsCheckpoint:
    """A Hugging Face folder: config.json and one or several safetensors files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        config_file = path / "config.json"
        if not config_file.is_file():
            raise UserError(f"{path}: no config.json; name a Hugging Face model folder")
        self._config = read_json(config_file)
        self._files = self._index()
        self._stored = {text_name(name, self._config): name for name in self._files}

    def config(self) -> dict[str, Any]:
        return self._config

    def names(self) -> set[str]:
        """Names of the language model's tensors, without the prefix of a model that also sees."""
        return {name for name in self._stored if name and not name.endswith(_IGNORED_SUFFIXES)}

    def read(self, name: str) -> np.ndarray:
        """One tensor as stored (float32, float16 or bfloat16)."""
        stored = self._stored[name]
        with _open_safetensors(self._files[stored]) as file:
            try:
                return file.get_tensor(stored)
            except (TypeError, AttributeError) as error:  # 4-bit and other types numpy lacks
                dtype = file.get_slice(stored).get_dtype()
                raise UserError(
                    f"{self._files[name]}: {name} of type {dtype} is not read"
                ) from error

    def _index(self) -> dict[str, Path]:
        index = self.path / "model.safetensors.index.json"
        single = self.path / "model.safetensors"
        if not index.is_file():
            if not single.is_file():
                pickles = [f.name for f in self.path.iterdir() if f.suffix in (".bin", ".pt")]
                hint = f" ({', '.join(pickles)} is a pickle and never read)" if pickles else ""
                raise UserError(f"{self.path}: no model.safetensors{hint}; convert to safetensors")
            with _open_safetensors(single) as file:
                return {name: single for name in file.keys()}
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UserError(f"{index}: has no weight_map")
        for name, shard in weight_map.items():
            # Only plain names beside the index: an index must not point anywhere else.
            if not isinstance(shard, str) or Path(shard).name != shard:
                raise UserError(f"{index}: {name} points outside the folder ({shard!r})")
            if not (self.path / shard).is_file():
                raise UserError(f"{index}: shard {shard} is missing; fetch it again")
        files = {}
        for shard in sorted(set(weight_map.values())):
            with _open_safetensors(self.path / shard) as file:
                for name in file.keys():
                    if weight_map.get(name, shard) != shard:
                        told = weight_map[name]
                        raise UserError(f"{index}: {name} lies in {shard}, the index says {told}")
                    files[name] = self.path / shard
        if lost := sorted(set(weight_map) - set(files)):
            raise UserError(f"{index}: {lost[0]} is not in {weight_map[lost[0]]}; fetch it again")
        return files


def _open_safetensors(path: Path):
    try:
        return safetensors.safe_open(path, framework="np")
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({error}); fetch it again"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; UserError if it is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold a JSON object")
    return value


def load_config(source: Source) -> ModelConfig:
    """The model's shape alone, without weights."""
    return parse_config(source.open().config(), str(source.path))


def load_params(
    source: Source,
    dtype: jnp.dtype = jnp.float32,
    checkpoint: GgufCheckpoint | SafetensorsCheckpoint | None = None,
) -> tuple[ModelConfig, Any]:
    """Reads all weights into the stacked tree of `Decoder`, as numpy arrays of `dtype`.

    Norm weights and biases stay in float32. Host memory holds the tree and one tensor.

    Args:
      checkpoint: the source, where it is open already.

    Raises:
      UserError: one message for all missing, unexpected, misshaped and non-finite tensors.
    """
    checkpoint = checkpoint or source.open()
    cfg = parse_config(checkpoint.config(), str(source.path))
    present = checkpoint.names()
    if cfg.n_layers > len(present):
        raise UserError(
            f"{source.path}: {cfg.n_layers} layers are named, and only {len(present)} tensors are "
            "there"
        )
    wanted: dict[str, list[tuple[Leaf, int]]] = {}  # a stored tensor may hold several leaves
    for leaf in leaves_of(cfg):
        for i in range(cfg.n_layers) if leaf.stacked else (0,):
            wanted.setdefault(leaf.hf.format(i=i), []).append((leaf, i))
    if cfg.tied_head and "lm_head.weight" in present:  # some files store the head a second time
        present.discard("lm_head.weight")
        tied = (checkpoint.read(name) for name in ("lm_head.weight", "model.embed_tokens.weight"))
        if not np.array_equal(*tied):
            raise UserError(
                f"{source.path}: `tie_word_embeddings` is true, and lm_head.weight is not the "
                "embedding; set it to false in config.json or take an unmodified checkpoint"
            )
    problems = [f"missing {name}" for name in sorted(set(wanted) - present)]
    problems += [f"unexpected {name}" for name in sorted(present - set(wanted))]
    params: dict = {}
    for name, places in wanted.items():
        if name not in present:
            continue
        array = checkpoint.read(name)
        if problem := _fault(name, array, places[0][0].stored_shape(cfg)):
            problems.append(problem)
            continue
        for leaf, i in places:
            _place(params, leaf, i, array[leaf.rows(cfg)], cfg, dtype)
    if problems:
        shown = "; ".join(problems[:8]) + ("; ..." if len(problems) > 8 else "")
        raise UserError(f"{source.path}: {len(problems)} faulty tensors: {shown}")
    return cfg, params


def is_matrix(path: tuple) -> bool:
    """Whether a leaf of the parameters (by its path in the tree) is a matrix, not a norm or bias."""
    return path[-1].key in ("kernel", "embedding", "head")


def cast_matrices(params: Any, dtype: str) -> Any:
    """The parameters with matrices in `dtype`; norms and biases as they are."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.astype(dtype) if is_matrix(path) else leaf, params
    )


def _fault(name: str, array: np.ndarray, shape: tuple[int, ...]) -> str:
    if array.shape != shape:
        return f"{name} has shape {array.shape}, not {shape}"
    if not (jnp.issubdtype(array.dtype, jnp.floating)):
        return f"{name} has dtype {array.dtype}, not a float"
    if not np.isfinite(np.asarray(array, np.float32)).all():
        return f"{name} holds NaN or infinity"
    return ""


def _place(
    params: dict, leaf: Leaf, i: int, array: np.ndarray, cfg: ModelConfig, dtype: jnp.dtype
) -> None:
    """Copies one stored tensor into its place in the (stacked) tree."""
    array = array.T if leaf.transposed else array
    kept = np.dtype(jnp.float32 if array.ndim == 1 else dtype)
    node = params
    for key in leaf.path[:-1]:
        node = node.setdefault(key, {})
    if not leaf.stacked:
        node[leaf.path[-1]] = array.astype(kept)
        return
    if leaf.path[-1] not in node:
        node[leaf.path[-1]] = np.empty((cfg.n_layers, *array.shape), kept)
    node[leaf.path[-1]][i] = array
