"""An export opens in transformers with the logits of our model and adapter, whole or not at all."""

from __future__ import annotations

import json
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from antiimit_jax.export.folder import export
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.peft import save_adapter
from antiimit_jax.models.weights import find_model, load_params
from antiimit_jax.text.tokenizer import load_tokenizer
from tests.export.exports import FAMILIES, LORA, TOKENS, exported, prepared
from tests.models.adapter_peers import random_tree
from tests.models.family_peers import random_model
from tests.models.llama_peer import assert_same_logits, our_logits, torch_logits
from tests.models.refusals import refused


def opened(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")


@pytest.mark.parametrize("case", FAMILIES.values())
def test_transformers_opens_the_merged_model_with_the_same_logits(case, tmp_path):
    true = prepared(tmp_path, case)
    note, *_ = exported(tmp_path, max_shard_size=8000)
    assert "made for base" in note
    model = opened(tmp_path / "out")
    assert_same_logits(torch_logits(model.eval(), TOKENS), true)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    names = []
    for file in sorted((tmp_path / "out").glob("model*.safetensors")):
        with safe_open(file, "np") as shard:
            assert shard.metadata() == {"format": "pt"}
            held = {name: shard.get_tensor(name).nbytes for name in shard.keys()}
        assert sum(held.values()) <= 8000 or len(held) == 1
        assert all(index["weight_map"][name] == file.name for name in held)
        names += held
    assert len(names) == len(set(names)) == len(index["weight_map"])
    assert ("lm_head.weight" in names) != model.config.tie_word_embeddings
    assert set(names) <= set(model.state_dict())


def test_weights_are_merged_in_float32_and_cast_once(tmp_path):
    prepared(tmp_path, FAMILIES["phi3"], dtype=torch.bfloat16)
    exported(tmp_path)
    (before,), (after,) = (
        [load_file(f) for f in (tmp_path / name).glob("*.safetensors")] for name in ("model", "out")
    )
    lora = load_file(tmp_path / "a" / "adapter_model.safetensors")
    for module in ("model.layers.1.self_attn.qkv_proj", "model.layers.2.mlp.down_proj"):
        a, b = (lora[f"base_model.model.{module}.lora_{side}.weight"] for side in "AB")
        exact = before[f"{module}.weight"].astype(np.float64) + LORA.scale * (
            b.astype(np.float64) @ a.astype(np.float64)
        )
        found = after[f"{module}.weight"]
        assert found.dtype == jnp.bfloat16 and np.abs(exact - found).max() > 0
        # half a unit of bfloat16's last place, and float32's rounding
        assert (np.abs(exact - found) <= np.abs(exact) * 2.0**-8 + 1e-5).all()
        twice = before[f"{module}.weight"] + (LORA.scale * (b @ a)).astype(jnp.bfloat16)
        assert (found != twice).any()
    for name in ("model.embed_tokens.weight", "model.norm.weight"):
        np.testing.assert_array_equal(before[name], after[name])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_dtype_asked_for_is_written(dtype, tmp_path):
    tuned = prepared(tmp_path)
    exported(tmp_path, adapter=None, dtype=dtype)
    model = opened(tmp_path / "out")
    assert model.dtype == getattr(torch, dtype)
    assert np.abs(tuned - torch_logits(model.eval(), TOKENS)).max() > 0.1  # no adapter
    base = torch_logits(random_model(FAMILIES["llama"]), TOKENS)
    assert_same_logits(torch_logits(model, TOKENS), base, 1e-4 if dtype == "float32" else 5e-3)


def test_peft_opens_the_exported_adapter_with_the_same_logits(tmp_path):
    import peft

    lora = LoraConfig(rank=2, alpha=3.0, targets=("k", "v", "up"), first_layer=1)
    true = prepared(tmp_path, FAMILIES["phi3"], lora)
    save = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    exported(tmp_path, form="peft")
    theirs = peft.PeftModel.from_pretrained(random_model(FAMILIES["phi3"]), tmp_path / "out")
    assert_same_logits(torch_logits(theirs, TOKENS), true)
    written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert written["layers_to_transform"] == save["layers_to_transform"] == [1, 2]
    assert written["base_model_name_or_path"] == str(tmp_path / "model")


def test_a_model_that_also_sees_leaves_as_its_language_model(tmp_path):
    text = random_model(FAMILIES["gemma3_text"])
    vision = dict(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    both = transformers.Gemma3Config(
        text_config=text.config.to_dict(), vision_config=vision, mm_tokens_per_image=4
    )
    seeing = transformers.Gemma3ForConditionalGeneration(both).eval()
    seeing.model.language_model.load_state_dict(text.model.state_dict())
    seeing.save_pretrained(tmp_path / "model")
    exported(tmp_path, adapter=None)
    model = opened(tmp_path / "out")
    assert model.config.model_type == "gemma3_text"
    assert_same_logits(torch_logits(model.eval(), TOKENS), torch_logits(seeing, TOKENS))


def test_the_embedded_gguf_model_opens_in_transformers_with_its_tokenizer(tmp_path):
    source = find_model("smollm2-135m-instruct")
    cfg, params = load_params(source)
    lora = LoraConfig(rank=2, alpha=4.0, targets=("q", "down"))
    tree = random_tree(cfg, lora, size=0.05)
    save_adapter(tmp_path / "a", tree, cfg, lora, "smollm2-135m-instruct")
    assert (
        export(source, tmp_path / "a", tmp_path / "out", suites={}) == []
    )  # the alias is the base that the adapter names
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ours = load_tokenizer(source.path)
    chat = [{"role": "user", "content": "Say 12 words, naïve <|im_end|>\n\t"}]
    assert theirs.chat_template == ours.hf.chat_template
    text = ours.hf.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = ours.encode_text(text)
    assert theirs(text)["input_ids"] == ids and theirs.eos_token_id == ours.hf.eos_token_id
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    (tmp_path / "out" / "model.safetensors").unlink()  # half a gigabyte
    assert model.generation_config.eos_token_id == ours.hf.eos_token_id
    tokens = np.array([ids])
    mine = our_logits(params, cfg, tokens, lora=tree, lora_scale=lora.scale)
    assert_same_logits(mine, torch_logits(model.eval(), tokens))


def test_memory_holds_a_shard_and_not_the_model(tmp_path):
    sizes = dict(hidden_size=256, intermediate_size=512, num_hidden_layers=12, vocab_size=512)
    model = random_model(FAMILIES["llama"], **sizes)
    model.save_pretrained(tmp_path / "model")
    size = sum(p.numel() for p in model.parameters()) * 4
    shard = size // 16
    exported(tmp_path, adapter=None)  # whatever is loaded once
    tracemalloc.start()
    exported(tmp_path, "again", adapter=None, max_shard_size=shard)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * shard + 2**20, (peak, shard, size)


def damaged(tmp_path, change):
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


NAME = "model.layers.2.mlp.down_proj.weight"


@pytest.mark.parametrize(
    "change, how, parts",
    [
        (lambda t: t.pop(NAME), {}, ("missing", NAME)),
        (lambda t: t.update(more=t[NAME][:1]), {}, ("unexpected", "more")),
        (lambda t: t.update({NAME: t[NAME][1:]}), {}, (NAME, "shape")),
        (lambda t: t.update({NAME: t[NAME].astype(np.int32)}), {}, (NAME, "I32")),
        (lambda t: t[NAME].fill(np.nan), {}, (NAME, "NaN")),
        (lambda t: t[NAME].fill(7e4), {"dtype": "float16"}, (NAME, "float16", "bfloat16")),
    ],
    ids=["missing", "unexpected", "shape", "dtype", "nan", "too large"],
)
def test_a_faulty_checkpoint_leaves_nothing_and_an_earlier_export_as_it_was(
    change, how, parts, tmp_path
):
    prepared(tmp_path)
    exported(tmp_path, "old")
    before = {file.name: file.read_bytes() for file in (tmp_path / "old").iterdir()}
    damaged(tmp_path, change)
    for out in ("new", "old"):
        with refused(*parts):
            exported(tmp_path, out, overwrite=True, **how)
    assert {file.name: file.read_bytes() for file in (tmp_path / "old").iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"model", "a", "old"}


def test_a_head_that_is_stored_beside_the_embedding_it_is_tied_to_is_written_once(tmp_path):
    prepared(tmp_path, FAMILIES["gemma"])
    head = "lm_head.weight"
    damaged(tmp_path, lambda t: t.update({head: t["model.embed_tokens.weight"].copy()}))
    exported(tmp_path)
    assert head not in load_file(tmp_path / "out" / "model.safetensors")
    damaged(tmp_path, lambda t: t[head].fill(1))
    with refused("tie_word_embeddings", head):
        exported(tmp_path, "other")
