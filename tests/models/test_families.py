"""Every family's port computes what transformers computes, layer by layer, on every switch."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    SiglipVisionConfig,
)

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.decoder import Decoder, Forest, arrange, kinds, sequences
from antiimit_jax.models.families import FAMILIES
from antiimit_jax.models.layers import Block
from tests.models.family_peers import CASES, random_model, randomise
from tests.models.llama_peer import (
    assert_same_logits,
    forest_logits,
    load,
    our_logits,
    torch_logits,
    write,
)

T = 23  # beyond every window and every original length of the cases


def _tokens(shape, seed=1):
    return np.random.default_rng(seed).integers(0, 47, shape)


def _whole(tokens: np.ndarray) -> Forest:
    B, length = tokens.shape
    place = jnp.broadcast_to(jnp.arange(length), (B, length))
    return sequences(jnp.asarray(tokens), place, jnp.full((B, length), length))


def hidden_states(params, cfg: ModelConfig, tokens: np.ndarray) -> list[np.ndarray]:
    """The stream after the embedding and after every block, [M, D] each."""
    forest, which = _whole(tokens), kinds(cfg)
    x = params["embed"]["embedding"][tokens.ravel()] * np.float32(cfg.embed_scale)
    block, view, states = jax.jit(Block(cfg).apply), arrange(forest, cfg), [x]
    for i in range(cfg.n_layers):
        layer = jax.tree.map(lambda leaf: leaf[i], params["layers"])
        kind = jax.tree.map(lambda leaf: jnp.asarray(leaf[i]), which)
        x, _ = block({"params": layer}, x, kind, view)
        states.append(np.asarray(x))
    return states


@pytest.mark.parametrize("case", CASES)
def test_logits_and_hidden_states_are_those_of_transformers(case, tmp_path):
    model = random_model(case)
    cfg, params = load(write(model, tmp_path))
    tokens = _tokens((2, T))
    with torch.no_grad():
        true = model.model(torch.from_numpy(tokens), output_hidden_states=True).hidden_states
    for layer, (ours, theirs) in enumerate(zip(hidden_states(params, cfg, tokens), true[:-1])):
        theirs = theirs.reshape(ours.shape).numpy()
        error = np.abs(ours - theirs).max() / (theirs.max() - theirs.min())
        assert error < 1e-4, f"first wrong after block {layer} of {case}: {error}"
    assert_same_logits(our_logits(params, cfg, tokens), torch_logits(model, tokens))
    assert_same_logits(
        our_logits(params, cfg, tokens[:, :1]), torch_logits(random_model(case), tokens[:, :1])
    )


ONE_OF_EACH = [next(case for case in CASES if case.startswith(f"{name}:")) for name in FAMILIES]


def test_every_family_has_cases():
    assert {case.split(":")[0] for case in CASES} == set(FAMILIES)


@pytest.mark.parametrize("case", [*ONE_OF_EACH, "mistral: window", "llama: dynamic rope"])
def test_padding_on_the_left_and_on_the_right_changes_nothing(case, tmp_path):
    model = random_model(case)
    cfg, params = load(write(model, tmp_path))
    tokens, lengths, place = _tokens((3, T)), np.array([T, 13, 1]), np.arange(T)
    for start in (0 * lengths, T - lengths):
        real = (place >= start[:, None]) & (place < (start + lengths)[:, None])
        positions = np.where(real, place - start[:, None], 0)
        forest = sequences(
            *(jnp.asarray(a, jnp.int32) for a in (tokens, positions, np.where(real, T, 0)))
        )
        ours = np.asarray(forest_logits(params, forest, cfg))
        theirs = torch_logits(
            model, tokens, attention_mask=real.astype(int), position_ids=positions
        )
        assert_same_logits(ours[real], theirs[real])


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_a_forest_equals_its_sequences_one_by_one(case, tmp_path):
    model = random_model(case)
    cfg, params = load(write(model, tmp_path))
    trunk, ends = _tokens((1, 9), seed=2), _tokens((2, 4), seed=3)
    place = jnp.broadcast_to(9 + jnp.arange(4), (2, 4))
    forest = Forest(
        tokens=jnp.asarray(ends),
        positions=place,
        subtree_end=jnp.full((2, 4), 4),
        trunk_of=jnp.zeros(2, jnp.int32),
        trunk_tokens=jnp.asarray(np.pad(trunk, ((0, 0), (0, 2)))),
        trunk_length=jnp.asarray([9]),
    )
    whole = np.concatenate([trunk.repeat(2, axis=0), ends], axis=1)
    ours = np.asarray(forest_logits(params, forest, cfg))
    assert_same_logits(ours, torch_logits(model, whole)[:, 9:])


def _old_dialect(config: dict) -> dict:
    """The config as transformers 4 wrote it."""
    rope = config.pop("rope_parameters")
    config["torch_dtype"] = config.pop("dtype")
    if "full_attention" in rope:
        local, rope = rope["sliding_attention"], rope["full_attention"]
        config["rope_local_base_freq"] = local["rope_theta"]
    config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    rope["type"] = rope.pop("rope_type")
    config["rope_scaling"] = None if rope == {"type": "default"} else rope
    return config


@pytest.mark.parametrize("case", CASES)
def test_both_dialects_of_the_config_mean_the_same(case, tmp_path):
    file = write(random_model(case), tmp_path) / "config.json"
    cfg, _ = load(tmp_path)
    file.write_text(json.dumps(_old_dialect(json.loads(file.read_text()))))
    again, _ = load(tmp_path)
    assert again == cfg


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_bfloat16_checkpoints_are_close_in_bfloat16(case, tmp_path):
    """Weights and activations in bfloat16 on both sides: 2% of the range of the true logits."""
    model = random_model(case)
    exact = torch_logits(model, tokens := _tokens((2, T)))
    cfg, params = load(write(model.to(torch.bfloat16), tmp_path), jnp.bfloat16)
    decoder = Decoder(cfg, dtype=jnp.bfloat16)
    hidden = decoder.apply({"params": params}, _whole(tokens))
    ours = np.asarray(decoder.apply({"params": params}, hidden, method="logits"))
    theirs = torch_logits(model, tokens)
    extent = exact.max() - exact.min()
    noise = np.abs(theirs - exact).mean() / extent  # what bfloat16 costs transformers itself
    assert np.abs(ours - theirs).mean() / extent < 2 * noise
    assert np.abs(ours - exact).mean() / extent < 1.5 * noise


@pytest.fixture(scope="module")
def seeing_gemma(tmp_path_factory):
    """A Gemma-3 that also sees, written by transformers, and its folder."""
    text = Gemma3TextConfig(
        **dict(vocab_size=47, hidden_size=24, intermediate_size=36, num_hidden_layers=3),
        **dict(num_attention_heads=4, num_key_value_heads=2, head_dim=10, sliding_window=5),
        **dict(max_position_embeddings=64, query_pre_attn_scalar=7, sliding_window_pattern=3),
        **dict(bos_token_id=None, eos_token_id=None, pad_token_id=None),
    )
    vision = SiglipVisionConfig(
        **dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2),
        **dict(image_size=28, patch_size=14),
    )
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    model = randomise(Gemma3ForConditionalGeneration(config).eval())
    return model, write(model, tmp_path_factory.mktemp("seeing"))


def _as_on_the_hub(folder, to) -> None:
    """The tensors under the names that transformers 4 gave them."""
    tensors = load_file(folder / "model.safetensors")
    old = {}
    for name, tensor in tensors.items():
        name = name.replace("model.language_model.", "language_model.model.")
        old[name.removeprefix("model.") if "language_model" not in name else name] = tensor
    to.mkdir()
    save_file(old, to / "model.safetensors", metadata={"format": "pt"})
    (to / "config.json").write_text((folder / "config.json").read_text())


@pytest.mark.parametrize("names", ["new", "old"])
def test_the_text_part_of_a_model_that_sees_is_read(names, seeing_gemma, tmp_path):
    model, folder = seeing_gemma
    if names == "old":
        _as_on_the_hub(folder, folder := tmp_path / "old")
    cfg, params = load(folder)
    tokens = _tokens((2, T))
    assert cfg.family == "gemma3_text"
    assert_same_logits(our_logits(params, cfg, tokens), torch_logits(model, tokens))
