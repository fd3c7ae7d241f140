"""Whatever a GGUF file or a safetensors header says, it is read or refused in one line, soon."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.known import n_params
from antiimit_jax.models.weights import find_model, load_params
from antiimit_jax.text.tokenizer import load_tokenizer
from tests.battery import tenth
from tests.models import mutated_files as mutated

GGUF_KINDS = [("llama", "llama"), ("gpt2", "llama"), ("llama", "gemma"), ("llama", "phi3")]
GGUF_KINDS += [("gpt2", "qwen2"), ("llama", "gemma3")]
SECONDS, BYTES = 5, 2**30
SEEDS = [range(first, first + 2000) for first in range(0, 100_000, 2000)]


def _resident(key: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(re.search(rf"^{key}:\s+(\d+) kB", status, re.MULTILINE)[1])


def _read(path: Path) -> tuple[ModelConfig, Any]:
    """The shape and the parameters of a model; of a GGUF file the tokenizer is read as well."""
    source = find_model(str(path))
    checkpoint = source.open()
    try:
        return load_params(source, checkpoint=checkpoint)
    finally:
        if path.is_file():
            load_tokenizer(checkpoint)


def attack(path: Path, file: Path, mutation: Callable[[random.Random], bytes], seeds: range) -> int:
    """Reads a model with one file mutated, once a seed; how often it was refused."""
    refused = 0
    for seed in seeds:
        file.write_bytes(mutation(random.Random(seed)))
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak from now on
        before, began = _resident("VmRSS"), time.monotonic()
        try:
            _read(path)
        except UserError as error:
            assert str(path) in str(error), f"seed {seed}: {error}"
            refused += 1
        except BaseException as error:
            raise AssertionError(f"seed {seed} ends in {error!r}") from error
        assert time.monotonic() - began < SECONDS, f"seed {seed}"
        assert _resident("VmHWM") - before < BYTES, f"seed {seed}"
    return refused


def attack_gguf(folder: Path, seeds: range) -> int:
    sound = [mutated.sound_gguf(*kind) for kind in GGUF_KINDS]
    file = folder / "m.gguf"
    return attack(file, file, lambda rng: mutated.mutated_gguf(rng, sound), seeds)


def attack_safetensors(folder: Path, seeds: range) -> int:
    sound, file = mutated.sound_safetensors(), folder / "model.safetensors"
    (folder / "config.json").write_text(json.dumps(mutated.CONFIG), encoding="utf-8")
    return attack(folder, file, lambda rng: mutated.mutated_safetensors(rng, sound), seeds)


@pytest.mark.parametrize("kind", GGUF_KINDS, ids="-".join)
def test_the_sound_files_are_read(kind, tmp_path):
    file = tmp_path / "m.gguf"
    file.write_bytes(mutated.encode_gguf(*mutated.sound_gguf(*kind))[0])
    size = lambda params: sum(leaf.size for leaf in jax.tree.leaves(params))
    cfg, params = _read(file)
    assert size(params) == n_params(cfg)
    (tmp_path / "config.json").write_text(json.dumps(mutated.CONFIG), encoding="utf-8")
    header = mutated.encode_safetensors(mutated.sound_safetensors())[0]
    (tmp_path / "model.safetensors").write_bytes(header)
    cfg, params = _read(tmp_path)
    assert size(params) == n_params(cfg)


@pytest.mark.parametrize("seeds", tenth(SEEDS), ids=lambda seeds: str(seeds.start))
@pytest.mark.parametrize("attacked", [attack_gguf, attack_safetensors])
def test_mutated_files_are_read_or_refused(attacked, seeds, tmp_path):
    assert 0.5 * len(seeds) < attacked(tmp_path, seeds) < len(seeds)
