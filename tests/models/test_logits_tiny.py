"""Logits and gradients of small random llamas equal those of transformers in torch."""

from __future__ import annotations

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from antiimit_jax.models.decoder import Decoder, sequences
from antiimit_jax.models.leaves import leaves_of
from tests.models.llama_peer import (
    assert_same_logits,
    forest_logits,
    load,
    our_logits,
    random_llama,
    torch_logits,
    write,
)

ODD = dict(vocab_size=53, hidden_size=15, intermediate_size=37, num_hidden_layers=3)
SHAPES = {
    "grouped heads": dict(num_attention_heads=6, num_key_value_heads=2),
    "one key head": dict(hidden_size=25, num_attention_heads=5, num_key_value_heads=1),
    "a key head each": dict(num_attention_heads=4, num_key_value_heads=4),
    "tied head": dict(tie_word_embeddings=True),
    "one layer, one head": dict(num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1),
    "heads wider than hidden": dict(hidden_size=12, head_dim=14),
    "odd sizes": dict(**ODD, num_attention_heads=3, num_key_value_heads=3, head_dim=2),
    "attention bias": dict(attention_bias=True),
    "mlp bias": dict(mlp_bias=True, tie_word_embeddings=True),
    "large rotary base": dict(rope_parameters={"rope_type": "default", "rope_theta": 5e5}),
}


def _tokens(model, shape, seed=1):
    return np.random.default_rng(seed).integers(0, model.config.vocab_size, shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_llama_has_the_logits_of_torch(shape, tmp_path):
    model = random_llama(**SHAPES[shape])
    cfg, params = load(write(model, tmp_path))
    tokens = _tokens(model, (3, 11))
    assert_same_logits(our_logits(params, cfg, tokens), torch_logits(model, tokens))


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """A grouped-heads llama: torch's, our shape and our weights."""
    model = random_llama(seed=3, num_attention_heads=6, num_key_value_heads=2)
    return model, *load(write(model, tmp_path_factory.mktemp("grouped")))


def test_a_single_token_has_the_logits_of_torch(grouped):
    model, cfg, params = grouped
    tokens = _tokens(model, (4, 1))
    assert_same_logits(our_logits(params, cfg, tokens), torch_logits(model, tokens))


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_padding_on_either_side_changes_nothing_whatever_it_holds(grouped, side):
    model, cfg, params = grouped
    rng = np.random.default_rng(5)
    T, lengths = 12, np.array([12, 7, 1, 4])
    start = {"left": T - lengths, "right": 0 * lengths, "both": (T - lengths) // 2}[side]
    place = np.arange(T)
    real = (place >= start[:, None]) & (place < (start + lengths)[:, None])
    tokens = _tokens(model, (4, T))
    positions = np.where(real, place - start[:, None], rng.integers(0, 50, (4, T)))
    forest = sequences(
        *(jnp.asarray(a, jnp.int32) for a in (tokens, positions, np.where(real, T, 0)))
    )
    ours = np.asarray(forest_logits(params, forest, cfg))
    padding = dict(attention_mask=real.astype(int), position_ids=np.where(real, positions, 0))
    padded = torch_logits(model, tokens, **padding)
    assert_same_logits(ours[real], padded[real])
    for row in range(4):
        alone = torch_logits(model, tokens[row : row + 1, real[row]])[0]
        assert_same_logits(ours[row, real[row]], alone)
    assert np.isfinite(ours).all(), "tokens that see nothing must stay finite"


def test_positions_need_not_begin_at_zero(grouped):
    model, cfg, params = grouped
    tokens = _tokens(model, (2, 6))
    positions = np.array([[0, 1, 2, 3, 4, 5], [9, 10, 13, 14, 30, 63]])
    ends = jnp.full((2, 6), 6)
    forest = sequences(jnp.asarray(tokens), jnp.asarray(positions), ends)
    theirs = torch_logits(model, tokens, position_ids=positions)
    assert_same_logits(np.asarray(forest_logits(params, forest, cfg)), theirs)


def _old_dialect(config: dict) -> dict:
    """The config as transformers 4 wrote it."""
    rope = config.pop("rope_parameters")
    config["torch_dtype"] = config.pop("dtype")
    return config | {"rope_theta": rope["rope_theta"], "rope_scaling": None}


def _scaling_default(config: dict) -> dict:
    rope = config.pop("rope_parameters")
    return config | {"rope_scaling": {"type": "default"}, "rope_theta": rope["rope_theta"]}


@pytest.mark.parametrize("rewrite", [_old_dialect, _scaling_default])
def test_both_dialects_of_the_config_mean_the_same(grouped, rewrite, tmp_path):
    model, cfg, _ = grouped
    file = write(model, tmp_path) / "config.json"
    file.write_text(json.dumps(rewrite(json.loads(file.read_text()))))
    again, params = load(tmp_path)
    assert again == cfg and cfg.ropes[0].theta == 37.0
    tokens = _tokens(model, (2, 9))
    assert_same_logits(our_logits(params, again, tokens), torch_logits(model, tokens))


def test_sizes_that_the_config_leaves_out_follow_from_the_others(tmp_path):
    model = random_llama(hidden_size=20, num_attention_heads=5, num_key_value_heads=5, head_dim=4)
    file = write(model, tmp_path) / "config.json"
    config = json.loads(file.read_text())
    del config["head_dim"], config["num_key_value_heads"], config["tie_word_embeddings"]
    file.write_text(json.dumps(config))
    cfg, params = load(tmp_path)
    tokens = _tokens(model, (2, 9))
    assert_same_logits(our_logits(params, cfg, tokens), torch_logits(model, tokens))


@pytest.mark.parametrize("remat", [False, True])
def test_gradients_of_every_parameter_equal_those_of_torch(remat, tmp_path):
    model = random_llama(attention_bias=True, mlp_bias=True)
    cfg, params = load(write(model, tmp_path))
    tokens = _tokens(model, (2, 8))
    logits = model(torch.from_numpy(tokens)).logits[:, :-1].reshape(-1, cfg.vocab_size)
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(tokens[:, 1:].ravel())).backward()

    place, ends = jnp.broadcast_to(jnp.arange(8), (2, 8)), jnp.full((2, 8), 8)
    forest, decoder = sequences(jnp.asarray(tokens), place, ends), Decoder(cfg, remat=remat)

    @jax.jit
    def loss(params):
        hidden = decoder.apply({"params": params}, forest)[:, :-1]
        log_q = jax.nn.log_softmax(decoder.apply({"params": params}, hidden, method="logits"))
        return -jnp.take_along_axis(log_q, jnp.asarray(tokens)[:, 1:, None], axis=-1).mean()

    gradient = jax.grad(loss)(jax.tree.map(jnp.asarray, params))
    theirs = {name: p.grad.numpy() for name, p in model.named_parameters()}
    seen = set()
    for leaf in leaves_of(cfg):
        node = gradient
        for key in leaf.path:
            node = node[key]
        for i in range(cfg.n_layers) if leaf.stacked else (0,):
            ours = np.asarray(node[i] if leaf.stacked else node)
            name = leaf.hf.format(i=i)
            true = theirs[name].T if leaf.transposed else theirs[name]
            scale = max(np.abs(true).max(), 1e-3)
            np.testing.assert_allclose(ours, true, atol=2e-4 * scale, err_msg=name)
            seen.add(name)
    assert seen == set(theirs)


def test_bfloat16_weights_are_torchs_and_give_nearly_the_logits(grouped, tmp_path):
    model, cfg, params = grouped
    _, narrow = load(write(model, tmp_path), jnp.bfloat16)
    kernel = narrow["layers"]["attn"]["q"]["kernel"]
    weight = model.model.layers[1].self_attn.q_proj.weight
    np.testing.assert_array_equal(
        kernel[1].astype(np.float32), weight.detach().bfloat16().float().numpy().T
    )
    assert narrow["final_norm"]["scale"].dtype == np.float32
    tokens = _tokens(model, (2, 9))
    theirs = torch_logits(model, tokens)
    assert_same_logits(our_logits(narrow, cfg, tokens), theirs, tolerance=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_checkpoints_stored_in_half_precision_are_widened_exactly(dtype, tmp_path):
    model = random_llama()
    cfg, params = load(write(copy.deepcopy(model).to(dtype), tmp_path))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    with torch.no_grad():
        for parameter in model.parameters():  # not model.to(dtype): it rounds the rotary table too
            parameter.copy_(parameter.to(dtype))
    tokens = _tokens(model, (2, 9))
    assert_same_logits(our_logits(params, cfg, tokens), torch_logits(model, tokens))


def test_shards_are_read_like_a_single_file(tmp_path):
    model = random_llama()
    write(model, tmp_path / "one")
    write(model, tmp_path / "many", max_shard_size="6KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    (cfg, one), (same, many) = load(tmp_path / "one"), load(tmp_path / "many")
    assert cfg == same
    jax.tree.map(np.testing.assert_array_equal, one, many)
