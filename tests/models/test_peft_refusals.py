"""Adapters that are not ported, do not fit the model or are broken: one clear line each."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jax
import numpy as np
import peft
import pytest
from safetensors.numpy import load_file, save_file

from antiimit_jax.files import MARK
from antiimit_jax.models import peft as peft_files
from antiimit_jax.models.lora import LoraConfig, init_adapter
from antiimit_jax.models.peft import load_adapter, save_adapter
from tests.models.llama_peer import load, random_llama, write
from tests.models.refusals import refused

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LORA = LoraConfig(rank=2)
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    return load(write(random_llama(), tmp_path_factory.mktemp("model")))[0]


@pytest.fixture
def folder(cfg, tmp_path) -> Path:
    save_adapter(tmp_path / "a", init_adapter(jax.random.key(1), cfg, LORA), cfg, LORA, "base")
    return tmp_path / "a"


def change_config(folder, **changes):
    file = folder / CONFIG
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: v for key, v in values.items() if v != "gone"}))


def test_weights_replaced_between_their_reading_and_their_hash_are_refused(
    cfg, folder, monkeypatch
):
    read = peft_files._read_tensors

    def replaced_after(file):
        tensors = read(file)
        change_tensors(folder, lambda own: own.update({name: -own[name] for name in own}))
        return tensors

    monkeypatch.setattr(peft_files, "_read_tensors", replaced_after)
    with refused(WEIGHTS, "was replaced or written to while it was read"):
        load_adapter(folder, cfg)


def change_tensors(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


@pytest.mark.parametrize(
    "change, parts",
    [
        ({"peft_type": "LOHA"}, ("LOHA", "LORA")),
        ({"peft_type": "gone"}, ("peft_type", "None")),
        ({"use_dora": True}, ("use_dora", "DoRA")),
        ({"modules_to_save": ["lm_head"]}, ("modules_to_save",)),
        ({"bias": "lora_only"}, ("bias", "lora_only")),
        ({"lora_bias": True}, ("lora_bias",)),
        ({"trainable_token_indices": [1]}, ("trainable_token_indices",)),
        ({"layer_replication": [[0, 2]]}, ("layer_replication",)),
        ({"target_parameters": ["w"]}, ("target_parameters",)),
        ({"alora_invocation_tokens": [1]}, ("alora_invocation_tokens",)),
        ({"use_bdlora": {"nblocks": 2}}, ("use_bdlora",)),
        ({"init_lora_weights": "pissa_niter_4"}, ("init_lora_weights", "pissa_niter_4")),
        ({"use_dora": True, "invented": 3}, ("use_dora", "invented", "3")),
        ({"r": 0}, ("r", "0")),
        ({"r": 3}, ("down_proj", "rank 3 by adapter_config.json")),
        ({"r": "2"}, ("r",)),
        ({"lora_alpha": -1}, ("lora_alpha", "-1")),
        ({"lora_alpha": 1e308}, ("lora_alpha", "1e+308", "1e+06")),
        ({"lora_alpha": float("nan")}, ("NaN",)),
        ({"alpha_pattern": {"q_proj": 1e308}}, ("alpha_pattern",)),
        ({"rank_pattern": {"up_proj": 1}}, ("up_proj", "rank 1 by adapter_config.json")),
        ({"rank_pattern": {"up_proj": "1"}}, ("rank_pattern",)),
        ({"alpha_pattern": {"q_proj(": 1}}, ("alpha_pattern", "regular expression")),
        ({"alpha_pattern": {"(.|.)*(.|.)*(.|.)*x": 1}}, ("alpha_pattern", "too slow")),
        ({"target_modules": ["q_proj"]}, ("layers.0.self_attn.k_proj", "does not target")),
        ({"target_modules": None}, ("does not target",)),
        ({"exclude_modules": ["v_proj"]}, ("layers.1.self_attn.v_proj", "does not target")),
        ({"layers_to_transform": [0]}, ("layers.1.mlp.up_proj", "does not target")),
        ({"layers_to_transform": "all"}, ("layers_to_transform", "all")),
    ],
    ids=str,
)
def test_a_config_that_is_not_ported_or_does_not_fit_is_refused(cfg, folder, change, parts):
    change_config(folder, **change)
    start = time.monotonic()
    with refused(*parts):
        load_adapter(folder, cfg)
    assert time.monotonic() - start < 5


def test_a_pattern_that_python_may_read_otherwise_one_day_is_read_without_a_warning(cfg, folder):
    plain = load_adapter(folder, cfg)
    change_config(folder, alpha_pattern={"[[]no_such_module": 1})
    assert load_adapter(folder, cfg).scale == plain.scale


@pytest.mark.parametrize(
    "key, shape, parts",
    [
        (f"{Q0}.lora_A.weight", (2, 25), ("layers.0.self_attn.q_proj", "shape", "25")),
        (f"{Q0}.lora_B.weight", (24, 3), ("layers.0.self_attn.q_proj", "shape", "3")),
        (Q0.replace(".0.", ".9.") + ".lora_A.weight", (2, 24), ("unexpected", "layers.9")),
        ("base_model.model.lm_head.lora_A.weight", (2, 24), ("lm_head", "output head")),
        ("base_model.model.model.embed_tokens.lora_embedding_A", (2, 47), ("embedding",)),
        (f"{Q0}.lora_magnitude_vector", (24,), ("DoRA",)),
        (f"{Q0}.bias", (24,), ("biases",)),
        (f"{Q0}.lora_A.other.weight", (2, 24), ("two names",)),
        (Q0.replace("q_proj", "qkv_proj") + ".lora_A.weight", (2, 24), ("qkv_proj",)),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(cfg, folder, key, shape, parts):
    change_config(folder, target_modules="all-linear")
    change_config(folder, layers_to_transform=None, layers_pattern=None)
    change_tensors(folder, lambda tensors: tensors.update({key: np.ones(shape, np.float32)}))
    with refused(*parts):
        load_adapter(folder, cfg)


def test_tensors_that_do_not_fit_are_all_named_at_once(cfg, folder):
    def change(tensors):
        names = sorted(tensors)
        del tensors[names[0]]
        tensors[names[2]] = np.full_like(tensors[names[2]], np.nan)
        tensors[names[4]] = tensors[names[4]].astype(np.int32)

    change_tensors(folder, change)
    with refused("only one of", "NaN", "int32"):
        load_adapter(folder, cfg)


@pytest.mark.parametrize("value", [3e38, -1e19, np.inf])
def test_one_absurd_weight_is_enough(cfg, folder, value):
    name = f"{Q0}.lora_B.weight"
    change_tensors(folder, lambda tensors: tensors[name].__setitem__((5, 1), value))
    with refused("layers.0.self_attn.q_proj.lora_B", "infinity", "1e18"):
        load_adapter(folder, cfg)


def test_folders_that_are_none_are_refused(cfg, folder, tmp_path):
    with refused("nowhere", CONFIG):
        load_adapter(tmp_path / "nowhere", cfg)
    with refused(CONFIG, "there is one in a"):
        load_adapter(tmp_path, cfg)
    weights = folder / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100])
    with refused("not a readable safetensors file"):
        load_adapter(folder, cfg)
    weights.rename(folder / "adapter_model.bin")
    with refused("adapter_model.bin", "pickle"):
        load_adapter(folder, cfg)


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: key.replace(".weight", ".default.weight"),
        lambda key: key.removeprefix("base_model.model."),
    ],
    ids=["with the adapter's name", "of the bare model"],
)
def test_keys_of_a_state_dict_are_read_like_those_of_a_file(cfg, folder, rename):
    plain = load_adapter(folder, cfg)
    tensors = load_file(folder / WEIGHTS)
    save_file({rename(key): array for key, array in tensors.items()}, folder / WEIGHTS)
    again = load_adapter(folder, cfg)
    jax.tree.map(np.testing.assert_array_equal, again.tree, plain.tree)


def test_saving_again_replaces_and_leaves_nothing_behind(cfg, folder, tmp_path):
    (folder / "more").write_text("of an earlier one")
    save_adapter(folder, init_adapter(jax.random.key(2), cfg, LORA), cfg, LORA, "base")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert {path.name for path in folder.iterdir()} == {CONFIG, WEIGHTS, MARK}


def test_every_field_of_pefts_own_config_is_known(cfg, folder):
    """A config that peft writes with all its defaults is read; none of its keys is a stranger."""
    peft.LoraConfig.from_pretrained(folder).save_pretrained(folder)
    assert len(json.loads((folder / CONFIG).read_text())) > 40
    load_adapter(folder, cfg)
