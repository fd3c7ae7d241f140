"""LoRA: a fresh adapter changes nothing, a trained one equals merged weights; masks and checks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from antiimit_jax.models.lora import ALL_LINEAR, LoraConfig, init_adapter, train_mask
from tests.models.llama_peer import (
    assert_same_logits,
    load,
    our_logits,
    random_llama,
    torch_logits,
    write,
)
from tests.models.refusals import refused

TOKENS = np.random.default_rng(0).integers(0, 47, (2, 9))
MODULE = {"q": "self_attn", "k": "self_attn", "v": "self_attn", "o": "self_attn"} | dict.fromkeys(
    ("gate", "up", "down"), "mlp"
)


@pytest.fixture
def llama(tmp_path):
    """A torch llama of three layers, our shape of it and our weights."""
    model = random_llama(num_hidden_layers=3, attention_bias=True)
    return model, *load(write(model, tmp_path))


def _filled(adapter, seed=1):
    """b as training would leave it: not zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32), adapter)


@pytest.mark.parametrize("targets", [ALL_LINEAR, ("q", "v")])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_fresh_adapter_leaves_the_base_bit_for_bit(llama, targets, dtype, tmp_path):
    _, cfg, _ = llama
    _, params = load(tmp_path, dtype)
    lora = LoraConfig(rank=3, alpha=8.0, targets=targets)
    adapter = init_adapter(jax.random.key(0), cfg, lora)
    base = our_logits(params, cfg, TOKENS)
    fresh = our_logits(params, cfg, TOKENS, lora=adapter, lora_scale=lora.scale)
    np.testing.assert_array_equal(base, fresh)
    assert base.std() > 0.1
    trained = our_logits(params, cfg, TOKENS, lora=_filled(adapter), lora_scale=lora.scale)
    assert np.abs(trained - base).max() > 0.1


@pytest.mark.parametrize("targets", [ALL_LINEAR, ("v",), ("q", "k", "o"), ("gate", "up", "down")])
def test_an_adapter_equals_weights_merged_by_hand(llama, targets):
    model, cfg, params = llama
    lora = LoraConfig(rank=3, alpha=7.5, targets=targets)
    adapter = _filled(init_adapter(jax.random.key(0), cfg, lora))
    ours = our_logits(params, cfg, TOKENS, lora=adapter, lora_scale=lora.scale)
    assert np.abs(ours - torch_logits(model, TOKENS)).max() > 0.1
    with torch.no_grad():
        for block, modules in adapter["layers"].items():
            for name, pair in modules.items():
                assert MODULE[name].removeprefix("self_") == block
                a, b = np.asarray(pair["a"]), np.asarray(pair["b"])
                for i, layer in enumerate(model.model.layers):
                    weight = layer.get_submodule(f"{MODULE[name]}.{name}_proj").weight
                    weight += torch.from_numpy(7.5 / 3 * (b[i] @ a[i]))
    assert_same_logits(ours, torch_logits(model, TOKENS))


def test_adapters_start_as_peft_starts_them(llama):
    _, cfg, _ = llama
    lora = LoraConfig(rank=50, targets=("q", "down"))
    adapter = init_adapter(jax.random.key(5), cfg, lora)["layers"]
    assert {(g, n) for g, modules in adapter.items() for n in modules} == {
        ("attn", "q"),
        ("mlp", "down"),
    }
    for pair, inp, out in ((adapter["attn"]["q"], 24, 24), (adapter["mlp"]["down"], 36, 24)):
        assert pair["a"].shape == (3, 50, inp) and pair["b"].shape == (3, out, 50)
        assert pair["a"].dtype == pair["b"].dtype == jnp.float32
        assert not np.asarray(pair["b"]).any()
        a, peft = np.asarray(pair["a"]), torch.empty(3 * 50, inp)
        torch.nn.init.kaiming_uniform_(peft, a=5**0.5)
        assert abs(a).max() == pytest.approx(peft.abs().max().item(), rel=0.01)
        assert a.std() == pytest.approx(peft.std().item(), rel=0.05)
        assert abs(a.mean()) < 0.1 * a.std()
        assert len(np.unique(a)) > 0.99 * a.size, "layers must not start alike"


def test_the_same_key_gives_the_same_adapter_and_another_key_another(llama):
    _, cfg, _ = llama
    one, same, other = (
        init_adapter(jax.random.key(seed), cfg, LoraConfig(rank=2)) for seed in (1, 1, 2)
    )
    jax.tree.map(np.testing.assert_array_equal, one, same)
    a = lambda tree: np.asarray(tree["layers"]["attn"]["q"]["a"])
    assert not np.array_equal(a(one), a(other))


def test_one_modules_start_does_not_depend_on_the_other_modules(llama):
    _, cfg, _ = llama
    key = jax.random.key(1)
    alone = init_adapter(key, cfg, LoraConfig(rank=2, targets=("up",)))["layers"]["mlp"]["up"]
    among = init_adapter(key, cfg, LoraConfig(rank=2))["layers"]["mlp"]["up"]
    jax.tree.map(np.testing.assert_array_equal, alone, among)


@pytest.mark.parametrize(
    "first, last, trained",
    [(0, -1, (1, 1, 1)), (1, -1, (0, 1, 1)), (0, 2, (1, 1, 0)), (2, 3, (0, 0, 1))],
)
def test_the_mask_follows_names_and_layers(llama, first, last, trained):
    _, cfg, _ = llama
    adapter = init_adapter(jax.random.key(0), cfg, LoraConfig(rank=2))
    lora = LoraConfig(rank=2, targets=("q", "up"), first_layer=first, last_layer=last)
    lora.check(cfg)
    mask = train_mask(adapter, cfg, lora)
    assert jax.tree.structure(mask) == jax.tree.structure(adapter)
    for modules in mask["layers"].values():
        for name, pair in modules.items():
            expected = trained if name in ("q", "up") else (0, 0, 0)
            for part in ("a", "b"):
                np.testing.assert_array_equal(np.asarray(pair[part]).ravel(), expected)


def test_scale_is_alpha_over_rank():
    assert LoraConfig(rank=8, alpha=20.0).scale == 2.5


@pytest.mark.parametrize(
    "fields, named",
    [
        (dict(rank=0), ["lora.rank", "0"]),
        (dict(targets=()), ["lora.targets", "empty"]),
        (dict(targets=("q", "qkv")), ["lora.targets", "'qkv'"]),
        (dict(first_layer=3), ["lora layers 3", "3 layers"]),
        (dict(first_layer=-1), ["lora layers"]),
        (dict(last_layer=4), ["4", "3 layers"]),
        (dict(first_layer=2, last_layer=2), ["2..2"]),
        (dict(rank=-1, targets=("w",), last_layer=9), ["lora.rank", "'w'", "9"]),
    ],
)
def test_a_config_that_does_not_fit_the_model_is_refused_field_by_field(llama, fields, named):
    _, cfg, _ = llama
    with refused(*(name.strip("'") for name in named)):
        LoraConfig(**fields).check(cfg)
