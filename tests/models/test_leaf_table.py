"""The leaf table names every parameter of a llama, as transformers and GGUF name and shape it."""

from __future__ import annotations

import gguf
import jax
import jax.numpy as jnp
import pytest
from safetensors import safe_open

from antiimit_jax.models.decoder import Decoder, sequences
from antiimit_jax.models.leaves import LEAVES, LORA_TARGETS, leaves_of
from tests.models.llama_peer import load, random_llama, write

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


def test_gguf_names_are_those_of_the_gguf_package():
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 40)
    for leaf in LEAVES:
        true = table.get_name(leaf.hf.format(i=37), try_suffixes=(".weight", ".bias"))
        assert leaf.gguf.format(i=37) == true


def test_no_two_rows_share_a_place_or_a_name():
    for names in zip(*((leaf.path, leaf.hf, leaf.gguf) for leaf in LEAVES)):
        assert len(set(names)) == len(LEAVES)


def test_lora_may_attach_to_every_linear_layer_of_a_block_and_to_nothing_else():
    linear = {
        name.split(".")[-1].removesuffix("_proj")
        for name, module in random_llama().model.layers.named_modules()
        if type(module).__name__ == "Linear"
    }
    assert set(LORA_TARGETS) == linear
