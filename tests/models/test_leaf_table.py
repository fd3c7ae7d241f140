"""The leaf table names every parameter of a llama, as transformers and GGUF name and shape it."""

from __future__ import annotations

import gguf
import jax
import jax.numpy as jnp
import pytest
from safetensors import safe_open

from antiimit_jax.models.decoder import Decoder, sequences
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.leaves import LORA_TARGETS, leaves_of
from tests.models.llama_peer import load, random_llama, write

SIZES = dict(
    vocab_size=47,
    hidden_size=24,
    intermediate_size=36,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=64,
)
KINDS = {
    "plain": {},
    "tied": dict(tie_word_embeddings=True),
    "biases": dict(attention_bias=True, mlp_bias=True),
    "attention biases, tied": dict(attention_bias=True, tie_word_embeddings=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_holds_exactly_what_transformers_writes(kind, tmp_path):
    folder = write(random_llama(num_hidden_layers=3, **KINDS[kind]), tmp_path)
    with safe_open(folder / "model.safetensors", "np") as file:
        stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    cfg, _ = load(folder)
    ours = {
        leaf.hf.format(i=i): leaf.shape(cfg)
        for leaf in leaves_of(cfg)
        for i in (range(cfg.n_layers) if leaf.stacked else (0,))
    }
    assert ours == stored


@pytest.mark.parametrize("kind", KINDS)
def test_the_loaded_tree_is_the_one_the_decoder_makes(kind, tmp_path):
    cfg, params = load(write(random_llama(**KINDS[kind]), tmp_path))
    row = jnp.zeros((1, 3), jnp.int32)
    made = jax.eval_shape(Decoder(cfg).init, jax.random.key(0), sequences(row, row, row))["params"]
    shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, jnp.dtype(leaf.dtype)), tree)
    assert shapes(params) == shapes(made)


ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "olmo2": gguf.MODEL_ARCH.OLMO2,
    "smollm3": gguf.MODEL_ARCH.SMOLLM3,
    "phi3": gguf.MODEL_ARCH.PHI3,
}


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_gguf_names_are_those_of_the_gguf_package(family):
    table = gguf.get_tensor_name_map(ARCHITECTURES[family], 40)
    cfg = parse_config(SIZES | {"model_type": family}, family)
    for leaf in leaves_of(cfg):
        true = table.get_name(leaf.hf.format(i=37), try_suffixes=(".weight", ".bias"))
        assert leaf.gguf.format(i=37) == true


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_no_two_rows_of_a_model_share_a_place(family):
    rows = leaves_of(parse_config(SIZES | {"model_type": family}, family))
    assert len({leaf.path for leaf in rows}) == len(rows)
    apart = [leaf for leaf in rows if leaf.stored_rows is None]
    for names in zip(*((leaf.hf, leaf.gguf) for leaf in apart)):
        assert len(set(names)) == len(apart)


def test_lora_may_attach_to_every_linear_layer_of_a_block_and_to_nothing_else():
    linear = {
        name.split(".")[-1].removesuffix("_proj")
        for name, module in random_llama().model.layers.named_modules()
        if type(module).__name__ == "Linear"
    }
    assert set(LORA_TARGETS) == linear
