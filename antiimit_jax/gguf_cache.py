"""A GGUF file is opened once: weights, config and tokenizer stay as a folder in the user's cache.

The folder's name holds the SHA-256 of the GGUF file and of the code that opened it, and the dtype
of the weights, so that no other file and no older reading of this one is ever taken for it. The
folder appears whole or not at all, only its owner enters it, and all that is mapped is compared
with its hash. What is trusted is the user: who can write there can write a file and its hash.
Weights are mapped, not read: programs that run at the same time share them in memory.
"""

import fcntl
import functools
import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from absl import logging

from antiimit_jax.errors import UserError
from antiimit_jax.files import remove_temporaries, sha256, temporary_folder, write_json
from antiimit_jax.json_files import read_json
from antiimit_jax.models import gguf, gguf_config, gguf_header, leaves, weights
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.held_file import HeldFile
from antiimit_jax.models.safetensors_files import read_header, write_aligned
from antiimit_jax.text import gguf_tokenizer
from antiimit_jax.text.tokenizer import Tokenizer, load_tokenizer
from antiimit_jax.trees import flat, nested
from antiimit_jax.versions import versions

_READERS = (gguf, gguf_config, gguf_header, gguf_tokenizer, leaves, weights)
_TABLES = ("architectures.jsonl", "leaves.jsonl")
_NAME = "gguf"
_HASHES = "sha256.json"
_WORTH_BYTES = 32 * 2**20  # smaller files open as fast as they are read
_SPARE_BYTES = 4 * 2**30  # stay free on the disk

Opened = tuple[ModelConfig, Any, Tokenizer]  # params as `load_params` gives them


def user_cache() -> Path:
    """This project's folder in the user's cache; ANTIIMIT_JAX_CACHE moves it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("ANTIIMIT_JAX_CACHE") or cache / "antiimit_jax")


def own_folder(name: str) -> Path:
    """The folder of that name in the user's cache, made if absent, that nobody else enters.

    Raises:
      OSError: others could write to it, so what is there may be theirs; or it cannot be made.
    """
    folder = user_cache() / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        how = "delete it, or name another cache with ANTIIMIT_JAX_CACHE"
        raise PermissionError(f"{folder}: not used, since other users can write to it; {how}")
    folder.chmod(0o700)
    return folder


class GgufCache:
    """The place in the cache of one GGUF file with its weights in one dtype."""

    def __init__(self, file: Path, dtype: str) -> None:
        """Args: file: a model that is no GGUF file, or a small one, has no place."""
        self._path, self._dtype = file, dtype
        self._worth = file.is_file() and file.stat().st_size >= _WORTH_BYTES

    @functools.cached_property
    def _file(self) -> HeldFile:
        return HeldFile(self._path)

    @functools.cached_property
    def _folder(self) -> Path:
        key = f"{self._file.sha256()[:40]}-{_reader_version()[:12]}-{self._dtype}"
        return user_cache() / _NAME / key

    def read(self) -> Opened | None:
        """The model as it was opened before; None if it was not, or is damaged (then deleted)."""
        if not self._worth or not self._folder.is_dir():
            return None
        try:
            own_folder(_NAME)
        except OSError as error:
            logging.warning("%s", error)
            return None
        try:
            return self._read()
        except (OSError, ValueError, KeyError, AttributeError, UserError) as error:
            logging.warning("%s: damaged (%s); opening %s again", self._folder, error, self._path)
            shutil.rmtree(self._folder, ignore_errors=True)
            return None

    def _read(self) -> Opened:
        hashes = read_json(self._folder / _HASHES, {str: str})
        present = {file.name for file in self._folder.iterdir()}
        if present != {*hashes, _HASHES}:
            raise ValueError(f"{' '.join(sorted(present ^ {*hashes, _HASHES}))} lost or added")
        files = [HeldFile(self._folder / name) for name in hashes]
        with ThreadPoolExecutor() as pool:
            for file, found in zip(files, pool.map(_sha256_of_map, files)):
                if found != hashes[file.path.name]:
                    raise ValueError(f"{file.path.name} is not what was written")
        cfg = parse_config(read_json(self._folder / "config.json"), str(self._path))
        stored = (read_header(file) for file in files if file.path.suffix == ".safetensors")
        params = nested({tensor.name: tensor.mapped() for (tensor,) in stored})
        tokenizer = load_tokenizer(self._folder)
        for file in files:  # what was read by its name is what was hashed
            file.check_unchanged()
        return cfg, params, tokenizer

    def keep(self, config: dict[str, Any], params: Any, tokenizer: Tokenizer) -> None:
        """Writes the folder. If that fails or the disk is nearly full, one line says so.

        A program that finds another one writing leaves it at that.

        Args:
          config: as the GGUF file's metadata give it.
          params, tokenizer: the model that was opened.

        Raises:
          UserError: the GGUF file is no longer the one whose hash names the folder.
        """
        if not self._worth:
            return
        try:
            place = self._folder
            self._file.check_unchanged()
            lock = os.open(own_folder(_NAME), os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _keep(place, config, params, tokenizer)
            except BlockingIOError:
                logging.info("%s: another program writes there", place.parent)
            finally:
                os.close(lock)
        except OSError as error:
            logging.warning("the opened model is not kept for the next time: %s", error)


def _sha256_of_map(file: HeldFile) -> str:
    return hashlib.sha256(file.map).hexdigest()


def _keep(place: Path, config: dict[str, Any], params: Any, tokenizer: Tokenizer) -> None:
    """Writes the folder. The lock is held, so nobody will finish what is unfinished there."""
    remove_temporaries(place.parent)
    if place.is_dir():  # another process was first
        return
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    if shutil.disk_usage(place.parent).free < size + _SPARE_BYTES:
        logging.warning("%s: too little space to keep the opened model", place.parent)
        return
    made = temporary_folder(place)
    try:
        _write(made, config, params, tokenizer)
        os.rename(made, place)
    finally:
        shutil.rmtree(made, ignore_errors=True)


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
