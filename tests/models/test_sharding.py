"""Weights that eight devices share give what one device gives, and lie there in slices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antiimit_jax.models.config import ModelConfig, Rope
from antiimit_jax.models.decoder import Decoder, sequences
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.lora import LoraConfig, init_adapter
from antiimit_jax.models.sharding import split_axes
from antiimit_jax.models.weights import empty_params, is_matrix
from antiimit_jax.parallel import DataParallel, Pmapped, place
from tests.models.family_peers import config_of
from tests.random_decoder import random_adapter, random_params, tiny_config

LORA = LoraConfig(rank=2, alpha=4.0)
BATCHES, ROWS, LENGTH = 8, 2, 9


def logits(decoder: Decoder, variables, forest):
    return decoder.apply(variables, decoder.apply(variables, forest), method="logits")


def models() -> dict[str, ModelConfig]:
    """All with 2 key heads or 1, and a vocabulary of 47."""
    cases = (
        "llama: grouped heads",  # untied
        "qwen2: layer types",  # tied, biases
        "gemma2: soft caps",
        "olmo2: one key head, biases",  # norms after
        "phi3: fused projections",
    )
    found = {case: parse_config(config_of(case), case) for case in cases}
    odd = tiny_config(47, hidden_size=20, tied_head=False)  # 8 divides neither 20 nor 47
    return found | {
        "no table can be split": odd,
        "no kernel of keys either": tiny_config(
            47,
            hidden_size=20,
            n_heads=2,
            n_kv_heads=2,
            head_dim=6,
            mlp_size=36,
            ropes=(Rope(dim=6),),
        ),
    }


@pytest.mark.parametrize("name, cfg", models().items(), ids=models())
def test_shared_weights_give_the_logits_of_one_device(name, cfg):
    devices = jax.local_devices()
    params, adapter = random_params(cfg, 1), random_adapter(cfg, LORA, 2)
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, cfg.vocab_size, (BATCHES, ROWS, LENGTH)).astype(np.int32)
    places = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (ROWS, LENGTH))
    ends = np.full_like(places, LENGTH)
    forests = [jax.tree.map(np.asarray, sequences(some, places, ends)) for some in tokens]

    alone = jax.jit(logits, static_argnums=0)
    variables = {"params": params, "lora": adapter}
    expected = [alone(Decoder(cfg, LORA.scale), variables, forest) for forest in forests]

    decoder = Decoder(cfg, LORA.scale, shards=len(devices))
    placed = {
        "params": place(params, devices, split_axes(cfg, len(devices))),
        "lora": place(adapter, devices),
    }
    together = DataParallel(lambda placed, forest: logits(decoder, placed, forest))
    for one, other in zip(expected, together(placed, forests, forests[0]), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


def test_every_device_holds_its_slice_of_what_can_be_split():
    cfg = tiny_config(47, tied_head=False, hidden_size=64, n_heads=4, n_kv_heads=2, mlp_size=96)
    devices = jax.local_devices()
    params = random_params(cfg, 4)
    placed = place(params, devices, split_axes(cfg, len(devices)))

    def check(path, whole, leaf):
        assert [shard.device for shard in leaf.addressable_shards] == devices
        slices = [np.asarray(shard.data)[0] for shard in leaf.addressable_shards]
        if is_matrix(path):  # here 8 divides something of each
            assert {part.nbytes for part in slices} == {whole.nbytes // 8}
            assert slices[0].shape[0] == whole.shape[0]  # layers and tokens are never dealt out
            axis = next(i for i, n in enumerate(whole.shape) if slices[0].shape[i] < n)
            np.testing.assert_array_equal(np.concatenate(slices, axis), whole)
        else:
            for part in slices:
                np.testing.assert_array_equal(part, whole)

    jax.tree_util.tree_map_with_path(check, params, placed)
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(placed))
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert total / 8 < held < total / 7


def wide(**changes) -> ModelConfig:
    """Layers of 7 MB and tables of 1 GB, in bfloat16; nothing of it is made."""
    sizes = dict(
        hidden_size=512, n_heads=4, n_kv_heads=4, head_dim=128, mlp_size=1536, tied_head=False
    )
    return tiny_config(1_000_000, **sizes | changes)


@pytest.mark.parametrize("job", ["asking", "training", "training, remat"])
def test_layers_are_put_together_one_at_a_time(job):
    """From the compiled program's own account: what grows with depth is not whole layers."""
    temporaries = {}
    for n_layers in (4, 16):
        cfg = wide(n_layers=n_layers)
        decoder = Decoder(cfg, LORA.scale, remat=job.endswith("remat"), shards=8)

        def loss(adapter, params, tokens):
            forest = sequences(tokens, tokens, tokens)
            return logits(decoder, {"params": params, "lora": adapter}, forest).mean()

        run = loss if job == "asking" else jax.grad(loss)
        adapter = jax.eval_shape(lambda: init_adapter(jax.random.key(0), cfg, LORA))
        params = empty_params(cfg, jnp.bfloat16)  # never written to: takes no memory

        def slices(leaf, axis):
            shape = [n // 8 if i == axis else n for i, n in enumerate(leaf.shape)]
            return jax.ShapeDtypeStruct((8, *shape), leaf.dtype)

        arguments = (
            jax.tree.map(lambda leaf: slices(leaf, -1), adapter),
            jax.tree.map(slices, params, split_axes(cfg, 8)),
            jax.ShapeDtypeStruct((8, 1, 4), jnp.int32),
        )
        analysis = Pmapped(run, jax.local_devices()).compiled(*arguments).memory_analysis()
        temporaries[n_layers] = analysis.temp_size_in_bytes
    layer = 2 * sum(leaf.size for leaf in jax.tree.leaves(params["layers"])) // 16
    assert temporaries[16] - temporaries[4] < 0.05 * 12 * layer
    assert temporaries[16] < 0.5 * params["head"].nbytes
