"""A GGUF file is opened once: weights, config and tokenizer stay as a folder in the user's cache.

The folder's name holds the SHA-256 of the GGUF file and of the code that opened it, and the dtype
of the weights, so that no other file and no older reading of this one is ever taken for it. The
folder appears whole or not at all, and its files are compared with their own hashes before use.
Weights are mapped, not read: programs that run at the same time share them in memory.
"""

import functools
import hashlib
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from absl import logging

from antiimit_jax.errors import UserError
from antiimit_jax.files import sha256, write_json
from antiimit_jax.json_files import read_json
from antiimit_jax.models import gguf, gguf_config, leaves, weights
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.safetensors_files import read_header, write_aligned
from antiimit_jax.text import gguf_tokenizer
from antiimit_jax.text.tokenizer import Tokenizer, load_tokenizer
from antiimit_jax.trees import flat, nested
from antiimit_jax.versions import versions

_READERS = (gguf, gguf_config, gguf_tokenizer, leaves, weights)
_TABLES = ("architectures.jsonl", "leaves.jsonl")
_HASHES = "sha256.json"
_WORTH_BYTES = 32 * 2**20  # smaller files open as fast as they are read
_SPARE_BYTES = 4 * 2**30  # stay free on the disk

Opened = tuple[ModelConfig, Any, Tokenizer]  # params as `load_params` gives them


def user_cache() -> Path:
    """This project's folder in the user's cache; ANTIIMIT_JAX_CACHE moves it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("ANTIIMIT_JAX_CACHE") or cache / "antiimit_jax")


class GgufCache:
    """The place in the cache of one GGUF file with its weights in one dtype."""

    def __init__(self, file: Path, dtype: str) -> None:
        """Args: file: a model that is no GGUF file, or a small one, has no place."""
        self._file, self._dtype = file, dtype
        self._worth = file.is_file() and file.stat().st_size >= _WORTH_BYTES

    @functools.cached_property
    def _folder(self) -> Path:
        key = f"{sha256(self._file)[:40]}-{_reader_version()[:12]}-{self._dtype}"
        return user_cache() / "gguf" / key

    def read(self) -> Opened | None:
        """The model as it was opened before; None if it was not, or is damaged (then deleted)."""
        if not self._worth or not self._folder.is_dir():
            return None
        try:
            return self._read()
        except (OSError, ValueError, KeyError, AttributeError, UserError) as error:
            logging.warning("%s: damaged (%s); opening %s again", self._folder, error, self._file)
            shutil.rmtree(self._folder, ignore_errors=True)
            return None

    def _read(self) -> Opened:
        hashes = read_json(self._folder / _HASHES, {str: str})
        present = {file.name for file in self._folder.iterdir()}
        if present != {*hashes, _HASHES}:
            raise ValueError(f"{' '.join(sorted(present ^ {*hashes, _HASHES}))} lost or added")
        files = [self._folder / name for name in hashes]
        with ThreadPoolExecutor() as pool:
            for file, found in zip(files, pool.map(sha256, files)):
                if found != hashes[file.name]:
                    raise ValueError(f"{file.name} is not what was written")
        cfg = parse_config(read_json(self._folder / "config.json"), str(self._file))
        stored = (read_header(file) for file in files if file.suffix == ".safetensors")
        params = nested({tensor.name: tensor.mapped() for (tensor,) in stored})
        return cfg, params, load_tokenizer(self._folder)

    def keep(self, config: dict[str, Any], params: Any, tokenizer: Tokenizer) -> None:
        """Writes the folder. If that fails or the disk is nearly full, one line says so.

        Args:
          config: as the GGUF file's metadata give it.
          params, tokenizer: the model that was opened.
        """
        if not self._worth:
            return
        try:
            parent = self._folder.parent
            parent.mkdir(parents=True, exist_ok=True)
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
            if shutil.disk_usage(parent).free < size + _SPARE_BYTES:
                logging.warning("%s: too little space to keep the opened model", parent)
                return
            made = Path(tempfile.mkdtemp(dir=parent, prefix=".new-"))
            try:
                _write(made, config, params, tokenizer)
                os.rename(made, self._folder)
            except OSError:
                if not self._folder.is_dir():  # else another process was first
                    raise
            finally:
                shutil.rmtree(made, ignore_errors=True)
        except OSError as error:
            logging.warning("the opened model is not kept for the next time: %s", error)


def _write(folder: Path, config: dict[str, Any], params: Any, tokenizer: Tokenizer) -> None:
    tokenizer.hf.save_pretrained(folder)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"eos_token_id": sorted(tokenizer.eos_ids)})
    for name, leaf in flat(params).items():
        write_aligned(folder / f"{name}.safetensors", name, leaf)
    files = sorted(folder.iterdir())
    write_json(folder / _HASHES, {file.name: sha256(file) for file in files})


@functools.cache
def _reader_version() -> str:
    """Of everything that decides what a GGUF file is opened to."""
    files = [Path(module.__file__) for module in _READERS]
    files += [files[0].parent / "data" / table for table in _TABLES]
    files.append(gguf_tokenizer.CUTS)
    sources = b"".join(file.read_bytes() for file in files)
    packages = versions(("gguf", "tokenizers", "transformers"))
    return hashlib.sha256(sources + " ".join(packages.values()).encode()).hexdigest()
