"""Adapters in PEFT's format: opened by peft itself with equal logits, and read back from it."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from antiimit_jax.errors import UserError
from antiimit_jax.models.decoder import Decoder, sequences
from antiimit_jax.models.lora import LoraConfig, init_adapter
from antiimit_jax.models.peft import load_adapter, save_adapter
from antiimit_jax.models.weights import find_model, load_params
from tests.tiny_model import write_tiny_model

TOKENS = np.array([[5, 900, 17, 4000, 33, 2, 812]], np.int32)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = write_tiny_model(tmp_path_factory.mktemp("model") / "tiny", tie_word_embeddings=False)
    cfg, params = load_params(find_model(str(folder)))
    return folder, cfg, params


def random_adapter(cfg, lora):
    fresh = init_adapter(jax.random.key(1), cfg, lora)
    keys = iter(jax.random.split(jax.random.key(2), 100))
    return jax.device_get(
        jax.tree.map(lambda x: 0.2 * jax.random.normal(next(keys), x.shape), fresh)
    )


def our_logits(cfg, params, tree, scale):
    length = TOKENS.shape[1]
    forest = sequences(TOKENS, np.arange(length)[None], np.full((1, length), length))
    decoder = Decoder(cfg, lora_scale=scale)
    variables = {"params": params, "lora": tree}
    hidden = decoder.apply(variables, forest)
    return np.asarray(decoder.apply(variables, hidden, method="logits"))[0]


def torch_model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def logits_of(model):
    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS, dtype=torch.long)).logits[0].numpy()


def assert_close(ours, theirs):
    assert np.abs(ours - theirs).max() <= 1e-4 * (theirs.max() - theirs.min())


@pytest.mark.parametrize(
    "lora",
    [
        LoraConfig(rank=4, alpha=12.0),
        LoraConfig(rank=3, alpha=3.0, targets=("q", "v")),
        LoraConfig(rank=2, alpha=8.0, targets=("down", "o"), first_layer=1),
    ],
    ids=["all", "q and v", "upper layer"],
)
def test_peft_opens_our_adapter_with_the_same_logits(tiny, tmp_path, lora):
    folder, cfg, params = tiny
    tree = random_adapter(cfg, lora)
    save_adapter(tmp_path / "a", tree, cfg, lora, str(folder))
    theirs = logits_of(peft.PeftModel.from_pretrained(torch_model(folder), tmp_path / "a"))
    loaded = load_adapter(tmp_path / "a", cfg)
    assert loaded.scale == lora.scale
    ours = our_logits(cfg, params, loaded.tree, loaded.scale)
    assert_close(ours, theirs)
    assert np.abs(theirs - logits_of(torch_model(folder))).max() > 0.01
    if (lora.first_layer, set(lora.targets)) == (0, set(LoraConfig().targets)):
        np.testing.assert_array_equal(ours, our_logits(cfg, params, tree, lora.scale))


@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_made_by_peft_opens_here_with_the_same_logits(tiny, tmp_path, rslora):
    folder, cfg, params = tiny
    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj", "up_proj", "down_proj"], use_rslora=rslora,
        init_lora_weights=False, task_type="CAUSAL_LM",
    )  # fmt: skip
    model = peft.get_peft_model(torch_model(folder), config)
    model.save_pretrained(tmp_path / "theirs")
    loaded = load_adapter(tmp_path / "theirs", cfg)
    assert_close(our_logits(cfg, params, loaded.tree, loaded.scale), logits_of(model))


def saved(tmp_path: Path, cfg) -> Path:
    lora = LoraConfig(rank=2)
    save_adapter(tmp_path / "a", random_adapter(cfg, lora), cfg, lora, "base")
    return tmp_path / "a"


@pytest.mark.parametrize(
    "change, part",
    [
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"r": 0}, "`r` = 0"),
        ({"r": 3}, "shape"),
    ],
)
def test_a_kind_of_adapter_that_is_not_ported_is_refused(tiny, tmp_path, change, part):
    folder = saved(tmp_path, tiny[1])
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError) as error:
        load_adapter(folder, tiny[1])
    assert part in str(error.value) and "\n" not in str(error.value)


def test_tensors_that_do_not_fit_are_all_named(tiny, tmp_path):
    folder = saved(tmp_path, tiny[1])
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    names = sorted(tensors)
    del tensors[names[0]]
    tensors[names[1]] = np.full_like(tensors[names[1]], np.nan)
    tensors["base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"] = np.ones((2, 32))
    save_file(tensors, file)
    with pytest.raises(UserError) as error:
        load_adapter(folder, tiny[1])
    for part in ("only one of", "NaN", "layers.9"):
        assert part in str(error.value)


def test_folders_that_are_none_are_refused(tiny, tmp_path):
    with pytest.raises(UserError, match="adapter_config.json"):
        load_adapter(tmp_path / "nowhere", tiny[1])
    folder = saved(tmp_path, tiny[1])
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_adapter(folder, tiny[1])
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match="pickle"):
        load_adapter(folder, tiny[1])


def test_saving_again_replaces_and_leaves_nothing_behind(tiny, tmp_path):
    _, cfg, _ = tiny
    folder = saved(tmp_path, cfg)
    lora = LoraConfig(rank=2)
    save_adapter(folder, random_adapter(cfg, lora), cfg, lora, "base")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
