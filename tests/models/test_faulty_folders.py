"""Tensors that do not fit: every fault is found, named, and told in one line.

Files and folders that are broken as such are in test_broken_checkpoints.
"""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.models.llama_peer import load, random_llama, write
from tests.models.refusals import refused

EMBED, NORM = "model.embed_tokens.weight", "model.norm.weight"
KEY = "model.layers.1.self_attn.k_proj.weight"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder without fault, in one file and in shards."""
    folder, model = tmp_path_factory.mktemp("sound"), random_llama()
    write(model, folder / "one")
    write(model, folder / "many", max_shard_size="6KB")
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound / "one", tmp_path / "model")


@pytest.fixture
def shards(sound, tmp_path):
    return shutil.copytree(sound / "many", tmp_path / "model")


def _rewrite(folder, **changes):
    """Replaces tensors of the single file; None takes one out."""
    tensors = load_file(folder / "model.safetensors") | changes
    kept = {name: array for name, array in tensors.items() if array is not None}
    save_file(kept, folder / "model.safetensors")


def test_the_sound_folders_load(folder, sound):
    assert load(folder)[0] == load(sound / "many")[0]


def test_all_faulty_tensors_are_listed_together(folder):
    nan = np.full((24,), 1, np.float32)
    nan[3] = np.nan
    _rewrite(
        folder,
        **{
            EMBED: None,
            "model.layers.2.input_layernorm.weight": np.ones(24, np.float32),
            NORM: nan,
            KEY: np.zeros((24, 12), np.float32),
            "lm_head.weight": np.zeros((47, 24), np.int32),
        },
    )
    with refused(
        str(folder),
        "5 faulty tensors",
        f"missing {EMBED}",
        f"{NORM} holds NaN",
        "unexpected model.layers.2.input_layernorm.weight",
        f"{KEY} has shape (24, 12",
        "lm_head.weight has dtype I32",
    ):
        load(folder)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_one_value_that_is_not_finite_is_enough(folder, value, dtype):
    weights = load_file(folder / "model.safetensors")[KEY].astype(dtype)
    weights[-1, -1] = value
    _rewrite(folder, **{KEY: weights})
    with refused("1 faulty tensors", KEY):
        load(folder)


def test_a_long_list_of_faults_is_counted_and_cut(folder):
    _rewrite(folder, **{f"extra.{i}": np.zeros(1, np.float32) for i in range(5000)})
    with refused("5000 faulty tensors", "unexpected extra.0"):
        load(folder)


def test_line_breaks_and_terminal_codes_in_a_name_do_not_reach_the_message(folder):
    _rewrite(folder, **{"two\nlines\x1b[31m": np.zeros(1, np.float32)})
    with refused("two lines\\x1b[31m"):
        load(folder)


def test_a_head_is_unexpected_only_where_it_is_not_tied(tmp_path):
    tied = write(random_llama(tie_word_embeddings=True), tmp_path)
    _rewrite(tied, **{"lm_head.weight": load_file(tied / "model.safetensors")[EMBED]})
    assert "head" not in load(tied)[1]
    config = json.loads((tied / "config.json").read_text())
    (tied / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    assert "head" in load(tied)[1]
    _rewrite(tied, **{"lm_head.weight": None})
    with refused("missing lm_head.weight"):
        load(tied)


@pytest.mark.parametrize("layers", [3, 10**12])
def test_more_layers_than_tensors_is_an_error_at_once(folder, layers):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    with refused(str(folder)):
        load(folder)


def test_a_tensor_that_the_index_conceals_is_unexpected(shards):
    file = next(shards.glob("*.safetensors"))
    save_file(load_file(file) | {"stowaway": np.ones(1, np.float32)}, file)
    with refused("unexpected stowaway"):
        load(shards)


def test_a_truncated_shard_is_named(shards):
    file = sorted(shards.glob("*.safetensors"))[1]
    os.truncate(file, file.stat().st_size - 7)
    with refused(str(file), "fetch it again"):
        load(shards)
