"""Weights that devices share give the q of one device, and lie there in parts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from antiimit_jax.models.config import ModelConfig, Rope
from antiimit_jax.models.decoder import Decoder, sequences
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.lora import LoraConfig, init_adapter
from antiimit_jax.models.sharding import partition
from antiimit_jax.models.weights import abstract_params, is_matrix
from antiimit_jax.parallel import (
    MODEL,
    WHOLE,
    DataParallel,
    Rows,
    compiler_options,
    make_mesh,
    shapes_on,
)
from tests.models.family_peers import config_of
from tests.random_decoder import random_adapter, random_params, tiny_config

LORA = LoraConfig(rank=2, alpha=4.0)
BATCHES, ROWS, LENGTH = 2, 2, 9


def logits(decoder: Decoder, variables, forest):
    return decoder.apply(variables, decoder.apply(variables, forest), method="logits")


def q(decoder: Decoder, variables, forest):
    return jax.nn.softmax(logits(decoder, variables, forest))


def even_params(cfg: ModelConfig, seed: int):
    """Matrices half as large: the others amplify float32's rounding a hundred times.

    One device is then as far from float64 as eight are, and further than the tolerance.
    """
    halved = lambda path, leaf: leaf / 2 if is_matrix(path) else leaf
    return jax.tree_util.tree_map_with_path(halved, random_params(cfg, seed))


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
def test_shared_weights_give_the_q_of_one_device(name, cfg):
    rows = Rows(make_mesh(jax.local_devices(), 8))
    params, adapter = even_params(cfg, 1), random_adapter(cfg, LORA, 2)
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, cfg.vocab_size, (BATCHES, ROWS, LENGTH)).astype(np.int32)
    places = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (ROWS, LENGTH))
    ends = np.full_like(places, LENGTH)
    forests = [jax.tree.map(np.asarray, sequences(some, places, ends)) for some in tokens]

    decoder, alone = Decoder(cfg, LORA.scale), jax.jit(q, static_argnums=0)
    variables = {"params": params, "lora": adapter}
    expected = [alone(decoder, variables, forest) for forest in forests]

    placed = {"params": rows.place(params, partition(cfg, rows.mesh)), "lora": rows.place(adapter)}
    together = DataParallel(lambda placed, forest: q(decoder, placed, forest), rows)
    for one, other in zip(expected, together(placed, forests, forests[0]), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5)


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_every_device_holds_its_part_of_what_can_be_split(shards):
    """A device's memory falls with the devices of a row and does not grow with the rows."""
    cfg = tiny_config(47, tied_head=False, hidden_size=64, n_heads=4, n_kv_heads=2, mlp_size=96)
    devices, params = jax.local_devices(), random_params(cfg, 4)
    rows = Rows(make_mesh(devices, shards))
    placed = rows.place(params, partition(cfg, rows.mesh))
    held = dict.fromkeys(devices, 0)

    def check(path, whole, leaf):
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, whole[shard.index])
            parts = shards if is_matrix(path) else 1  # here all numbers divide something of each
            assert shard.data.nbytes == whole.nbytes // parts
            assert shard.data.shape[0] == whole.shape[0]  # layers and tokens are never split
            held[shard.device] += shard.data.nbytes

    jax.tree_util.tree_map_with_path(check, params, placed)
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert all(total / shards <= nbytes < 1.2 * total / shards for nbytes in held.values())


def test_heads_are_never_split_and_what_does_not_divide_stays_whole():
    mesh = make_mesh(jax.local_devices(), 8)
    of = lambda **sizes: partition(tiny_config(48, tied_head=False, **sizes), mesh)
    odd = dict(hidden_size=20, n_heads=8, n_kv_heads=8, head_dim=8, ropes=(Rope(dim=8),))
    found = of(**odd, mlp_size=96)
    assert found["layers"]["attn"]["q"]["kernel"] == found["layers"]["attn"]["o"]["kernel"] == WHOLE
    assert found["layers"]["mlp"]["down"]["kernel"] == PartitionSpec(None, MODEL, None)
    assert found["head"] == PartitionSpec(MODEL, None)
    found = of(**odd | {"hidden_size": 64}, mlp_size=20)
    assert found["layers"]["attn"]["q"]["kernel"] == PartitionSpec(None, MODEL, None)
    assert found["layers"]["mlp"]["down"]["kernel"] == PartitionSpec(None, None, MODEL)
    assert found["head"] == PartitionSpec(None, MODEL)


def wide(**changes) -> ModelConfig:
    """Layers of 7 MB and tables of 1 GB, in bfloat16; nothing of it is made."""
    sizes = dict(
        hidden_size=512, n_heads=4, n_kv_heads=4, head_dim=128, mlp_size=1536, tied_head=False
    )
    return tiny_config(1_000_000, **sizes | changes)


@pytest.mark.parametrize("job", ["asking", "training", "training, remat"])
def test_no_layer_and_no_table_is_put_together(job):
    """From the compiled program's own account: what grows with depth is not whole layers."""
    temporaries, mesh = {}, make_mesh(jax.local_devices(), 8)
    for n_layers in (4, 16):
        cfg = wide(n_layers=n_layers)
        decoder = Decoder(cfg, LORA.scale, remat=job.endswith("remat"))

        def loss(adapter, params, tokens):
            forest = sequences(tokens, tokens, tokens)
            return logits(decoder, {"params": params, "lora": adapter}, forest).mean()

        run = loss if job == "asking" else jax.grad(loss)
        adapter = jax.eval_shape(lambda: init_adapter(jax.random.key(0), cfg, LORA))
        params = jax.tree.map(
            lambda x: np.zeros(x.shape, x.dtype), abstract_params(cfg, jnp.bfloat16)
        )
        arguments = (
            shapes_on(mesh, adapter),
            shapes_on(mesh, params, partition(cfg, mesh)),
            shapes_on(mesh, jax.ShapeDtypeStruct((1, 4), jnp.int32)),
        )
        compiled = jax.jit(run).lower(*arguments).compile(compiler_options=compiler_options())
        temporaries[n_layers] = compiled.memory_analysis().temp_size_in_bytes
    layer = 2 * sum(leaf.size for leaf in jax.tree.leaves(params["layers"])) // 16
    assert temporaries[16] - temporaries[4] < 0.05 * 12 * layer
    assert temporaries[16] < 0.5 * params["head"].nbytes
