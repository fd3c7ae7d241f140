"""From a name on the command line to parameters on a device: strict, tensor by tensor.

A checkpoint is anything with `path`, `config()`, `names()`, `problem(name, shape)`, `read(name)`,
`blocks(name)` and `check_unchanged()` in Hugging Face's naming and layout; GGUF files and
safetensors folders both are.
Everything missing, unexpected, of another shape or dtype (by the headers, before any weight is
read) or not finite is collected and reported in one error.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from antiimit_jax.errors import UserError, near_misses
from antiimit_jax.models.catalog import CATALOG, embedded_file, entry_of
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.gguf import GgufCheckpoint
from antiimit_jax.models.held_file import HeldFiles
from antiimit_jax.models.host_arrays import aligned_empty, is_sound, transpose_into
from antiimit_jax.models.leaves import Leaf, Places, leaves_of, stored_tensors
from antiimit_jax.models.quantized import abstract_quantized, is_kernel
from antiimit_jax.models.safetensors_files import SafetensorsCheckpoint
from antiimit_jax.trees import flat, nested

LISTED = "`python -m launch.plan --list` names all"
_HUB_FILES = ["*.json", "model*.safetensors", "tokenizer.model", "*.jinja", "*.txt"]
_READ = ("*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model")  # of a model's folder
_READ += ("additional_chat_templates/*.jinja",)
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_WIDE_PARAMETERS = 3_000_000_000
_THREADS = min(4, os.cpu_count() or 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model was found."""

    name: str  # as asked for
    path: Path  # a GGUF file or a folder
    revision: str | None
    prompt_format: str  # "chat", "base", or "" where the catalog does not know
    hub_id: str | None = None  # where it came from the hub
    commit: str | None = None  # of the hub's repository, what the revision was when it was fetched

    @functools.cached_property
    def files(self) -> HeldFiles:
        """All that is read of it, held from the first use on; UserError where one is not opened."""
        return HeldFiles(self.path, _READ)

    def open(self) -> GgufCheckpoint | SafetensorsCheckpoint:
        """Opens the checkpoint.

        Raises:
          UserError: what is there cannot be read; the message says why.
        """
        if self.path.is_dir():
            return SafetensorsCheckpoint(self.path)
        return GgufCheckpoint(self.path)


def find_model(model: str, revision: str | None = None, *, fetch: bool = True) -> Source:
    """Resolves ALIAS, FILE.gguf, FOLDER or HUB_ID; with `fetch`, from the hub what is not here.

    Raises:
      UserError: nothing of that name, with near misses; or a file that is not read (pickles).
    """
    path = Path(model).expanduser()
    found = functools.partial(Source, name=model, revision=revision)
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt"):
        raise UserError(f"{model}: pickled weights are never read; convert them to safetensors")
    if model in CATALOG:
        entry = CATALOG[model]
        if entry.note:
            logging.warning("--model=%s: %s", model, entry.note)
        if entry.package:
            return found(path=embedded_file(entry), prompt_format=entry.prompt_format)
        model_id, prompt_format = entry.hub_id, entry.prompt_format
    elif path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return found(path=path, prompt_format="")
    elif path.is_file():
        raise UserError(f"--model={model}: not a .gguf file or a folder with safetensors")
    elif path.suffix == ".gguf" or model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise UserError(f"--model={model}: no such file or folder")
    elif "/" not in model:
        hint = near_misses(model, CATALOG)
        raise UserError(f"--model={model}: unknown alias{hint}; {LISTED}")
    else:
        known = entry_of(model)
        model_id, prompt_format = model, known.prompt_format if known else ""
    folder = _download(model_id, revision, fetch)
    return found(path=folder, prompt_format=prompt_format, hub_id=model_id, commit=folder.name)


def _download(model_id: str, revision: str | None, fetch: bool) -> Path:
    """The files of a revision in the hub's cache: .../snapshots/COMMIT."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        how = dict(allow_patterns=_HUB_FILES, local_files_only=not fetch)
        return Path(snapshot_download(model_id, revision=revision, **how))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        what = f"--model={model_id}: cannot be fetched from the hub ({reason})"
        how = "name a local folder, or fetch it where there is a network"
        raise UserError(f"{what}; {how}") from error


def load_config(source: Source) -> ModelConfig:
    """The model's shape alone, without weights."""
    return parse_config(source.open().config(), str(source.path))


def load_params(
    source: Source,
    dtype: Any = jnp.float32,
    checkpoint: GgufCheckpoint | SafetensorsCheckpoint | None = None,
    place: Callable[[str, np.ndarray], Any] | None = None,
) -> tuple[ModelConfig, Any]:
    """Reads all weights into the stacked tree of `Decoder`, as numpy arrays of `dtype`.

    Norm weights and biases stay in float32. The arrays cannot be written to and are aligned so that
    JAX takes them over on a CPU as they are, without a copy. Host memory holds the tree and, for
    each of up to four threads, some rows of one tensor (of a GGUF file: one tensor).

    Args:
      dtype: of the matrices, or "auto" (`fitting_dtype`).
      checkpoint: the source, where it is open already.
      place: takes an array that is whole, by its dotted name, and gives what stands for it in the
        tree (`sharding.placer`). The host then holds one such array at a time, or those that are
        stored as one tensor.

    Raises:
      UserError: one message for all tensors that are missing, unexpected, of another shape or
        dtype, or not finite (or absurdly large); or a file was replaced meanwhile.
    """
    checkpoint = checkpoint or source.open()
    config = checkpoint.config()
    cfg = parse_config(config, str(source.path))
    wanted, readable, problems = check_headers(checkpoint, cfg)
    if dtype == "auto":
        sizes = (math.prod(leaf.shape(cfg)) for same in wanted.values() for leaf, _ in same)
        stored = config.get("dtype") or config.get("torch_dtype")
        dtype = fitting_dtype("auto", jax.default_backend(), sum(sizes), stored)
    kept, faulty = np.dtype(dtype), bool(problems)
    shapes = flat(abstract_params(cfg, kept))
    arrays: dict[str, np.ndarray] = {}
    placed: dict[str, Any] = {}

    def fill(name: str) -> str:
        sound = True
        for first, rows in checkpoint.blocks(name):
            with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinity
                rows = rows.astype(kept if rows.ndim > 1 else np.float32, copy=False)
            sound = sound and is_sound(rows)
            for leaf, i in wanted[name] if not faulty else ():
                array = arrays[leaf.name]
                _place(array[i] if leaf.stacked else array, first, rows, leaf, cfg)
        return "" if sound else f"{name} holds NaN or infinity, or values above 1e18, as {kept}"

    with ThreadPoolExecutor(_THREADS) as pool:
        for names in _together(readable, wanted) if place else [readable]:
            own = {leaf.name for name in names for leaf, _ in wanted[name]}
            arrays |= {} if faulty else {name: _empty(shapes[name]) for name in own}
            problems = [*problems, *filter(None, pool.map(fill, names))]
            for name in list(arrays):
                array = arrays.pop(name)
                array.flags.writeable = False
                placed[name] = place(name, array) if place else array
    checkpoint.check_unchanged()
    refuse_faulty(checkpoint, problems)
    check_tied_head(checkpoint, cfg)
    return cfg, nested(placed)


def _together(names: Sequence[str], wanted: Places) -> list[list[str]]:
    """Stored tensors by what they fill: those of all layers of a parameter are a group."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(wanted[name][0][0].hf, []).append(name)
    return list(groups.values())


def check_headers(checkpoint: Any, cfg: ModelConfig) -> tuple[Places, list[str], list[str]]:
    """All tensors a model needs, the names of those that are sound, and what is wrong with others.

    Raises:
      UserError: more layers are named than there are tensors.
    """
    present = checkpoint.names()
    if cfg.n_layers > len(present):
        lost = f"and only {len(present)} tensors are there"
        raise UserError(f"{checkpoint.path}: {cfg.n_layers} layers are named, {lost}")
    if cfg.tied_head:
        present.discard(_HEAD)  # some files store the head a second time
    wanted = stored_tensors(cfg)
    problems = [f"missing {name}" for name in sorted(set(wanted) - present)]
    problems += [f"unexpected {name}" for name in sorted(present - set(wanted))]
    shapes = {name: same[0][0].stored_shape(cfg) for name, same in wanted.items()}
    faults = {name: checkpoint.problem(name, shapes[name]) for name in wanted if name in present}
    sound = [name for name, fault in faults.items() if not fault]
    return wanted, sound, [*problems, *filter(None, faults.values())]


def refuse_faulty(checkpoint: Any, problems: Sequence[str]) -> None:
    """Raises UserError where there are problems, with the first eight."""
    if problems:
        shown = "; ".join(problem[:200] for problem in problems[:8])
        more = "; ..." if len(problems) > 8 else ""
        raise UserError(f"{checkpoint.path}: {len(problems)} faulty tensors: {shown}{more}")


def check_tied_head(checkpoint: Any, cfg: ModelConfig) -> None:
    """Raises UserError where the head is tied and a stored second copy is not the embedding."""
    if not cfg.tied_head or _HEAD not in checkpoint.names():
        return
    if not np.array_equal(checkpoint.read(_HEAD), checkpoint.read(_EMBEDDING)):
        what = "`tie_word_embeddings` is true, and lm_head.weight is not the embedding"
        how = "set it to false in config.json or take an unmodified checkpoint"
        raise UserError(f"{checkpoint.path}: {what}; {how}")


def fitting_dtype(asked: str, backend: str, n_params: int = 0, stored: str | None = None) -> str:
    """The dtype of matrices that `asked` stands for: itself, or what "auto" means here.

    That is float32 on a CPU, whose widest units multiply it, up to three billion parameters. Else
    it is two bytes a value: accelerators are many times as fast in bfloat16 and hold models of
    twice the size, and float16 stays what it is where the backend multiplies it.

    Args:
      backend: "cpu", "gpu" or "tpu".
      n_params: of the model; 0 where none is read yet.
      stored: the dtype that the model's config names.
    """
    if asked != "auto":
        return asked
    if backend == "cpu" and n_params <= _WIDE_PARAMETERS:
        return "float32"
    return "float16" if stored == "float16" and backend != "tpu" else "bfloat16"


def abstract_params(cfg: ModelConfig, dtype: Any, quantize: str = "none") -> Any:
    """Shapes and dtypes of the tree of `Decoder`: matrices in `dtype`, norms and biases float32.

    Args:
      quantize: how the layers' matrices are held, as in `models.quantized`.
    """
    shapes = {}
    for leaf in leaves_of(cfg):
        shape = leaf.shape(cfg)
        kept = np.dtype(dtype if len(shape) > 1 else jnp.float32)
        shape = shape[::-1] if leaf.transposed else shape
        shape = (cfg.n_layers, *shape) if leaf.stacked else shape
        shapes[leaf.name] = jax.ShapeDtypeStruct(shape, kept)
    params = nested(shapes)
    return params | {"layers": abstract_quantized(params["layers"], quantize)}


def _empty(like: jax.ShapeDtypeStruct) -> np.ndarray:
    return aligned_empty(like.shape, like.dtype)


def _place(to: np.ndarray, first: int, rows: np.ndarray, leaf: Leaf, cfg: ModelConfig) -> None:
    """Writes the part of some stored rows that belongs to a parameter where it belongs."""
    own = leaf.rows(cfg)
    start, stop = max(own.start, first), min(own.stop, first + len(rows))
    if start >= stop:
        return
    rows, place = rows[start - first : stop - first], slice(start - own.start, stop - own.start)
    if leaf.transposed:
        transpose_into(to[:, place], rows)
    else:
        to[place] = rows


def is_matrix(path: tuple) -> bool:
    """Whether a leaf of the parameters, by its path in the tree, is no norm and no bias."""
    return path[-1].key in ("kernel", "embedding", "head")


def cast_matrices(params: Any, dtype: str) -> Any:
    """The parameters with matrices in `dtype`; norms, biases and what has it as they are.

    Of quantised matrices it is the dtype that they are widened to.
    """
    narrow = lambda path, w: w.astype(dtype) if is_matrix(path) and w.dtype != dtype else w
    return jax.tree_util.tree_map_with_path(narrow, params, is_leaf=is_kernel)
