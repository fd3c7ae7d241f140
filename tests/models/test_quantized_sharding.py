"""Quantised weights that devices share: the bits and the q of one device, in parts of each."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from antiimit_jax.language_model import load_language_model
from antiimit_jax.models.decoder import Decoder, sequences
from antiimit_jax.models.quantized import Kernel, format_of, quantize_layers
from antiimit_jax.models.sharding import bytes_of_one, partition
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
from antiimit_jax.run_config import from_dict
from tests.random_decoder import random_params, tiny_config
from tests.tiny_model import write_tiny_model

FORMATS = ("int8", "nf4")
SHARDS = 4
SPLIT = PartitionSpec(None, None, MODEL)
INPUTS = PartitionSpec(None, MODEL, None)


def q(decoder: Decoder, params, forest):
    variables = {"params": params}
    hidden = decoder.apply(variables, forest)
    return jax.nn.softmax(decoder.apply(variables, hidden, method="logits"))


# Four blocks of 32 inputs, or one, which no device may cut.
@pytest.mark.parametrize("how, hidden", [("int8", 128), ("nf4", 128), ("nf4", 32)])
def test_shared_quantised_weights_give_the_q_of_one_device(how, hidden):
    rows = Rows(make_mesh(jax.local_devices(), SHARDS))
    cfg = tiny_config(47, hidden_size=hidden, n_heads=4, mlp_size=128, tied_head=False)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf / 2 if is_matrix(path) else leaf, random_params(cfg, 1)
    )
    quantize_layers(params, how)
    tokens = np.random.default_rng(3).integers(0, 47, (2, 2, 9)).astype(np.int32)
    places = np.broadcast_to(np.arange(9, dtype=np.int32), (2, 9))
    ends = np.full_like(places, 9)
    forests = [jax.tree.map(np.asarray, sequences(some, places, ends)) for some in tokens]
    decoder = Decoder(cfg)
    alone = jax.jit(q, static_argnums=0)
    expected = [alone(decoder, params, forest) for forest in forests]

    placed = rows.place(params, partition(cfg, rows.mesh, how))
    together = DataParallel(lambda placed, forest: q(decoder, placed, forest), rows)
    for one, other in zip(expected, together(placed, forests, forests[0]), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5)

    held = dict.fromkeys(rows.mesh.devices.flat, 0)
    for leaf in jax.tree.leaves(placed):
        for shard in leaf.addressable_shards:
            held[shard.device] += shard.data.nbytes
    assert set(held.values()) == {bytes_of_one(cfg, params, SHARDS)}


def test_no_block_of_inputs_is_cut_and_scales_lie_with_their_values():
    mesh = make_mesh(jax.local_devices(), SHARDS)
    of = lambda how, **sizes: partition(tiny_config(48, **sizes), mesh, how)["layers"]
    sizes = dict(hidden_size=64, n_heads=4, mlp_size=128)
    int8, nf4 = (of(how, **sizes) for how in FORMATS)
    assert int8["mlp"]["up"]["kernel"] == nf4["mlp"]["up"]["kernel"] == Kernel(SPLIT, SPLIT)
    assert int8["attn"]["q"]["kernel"] == Kernel(INPUTS, WHOLE)  # a scale of each output
    assert nf4["attn"]["q"]["kernel"] == WHOLE  # two blocks for four devices
    assert nf4["mlp"]["down"]["kernel"] == Kernel(INPUTS, INPUTS)
    narrow = of("nf4", **sizes | {"mlp_size": 64})
    assert narrow["mlp"]["down"]["kernel"] == Kernel(SPLIT, SPLIT)  # its outputs instead


@pytest.mark.parametrize("how", FORMATS)
def test_a_model_is_quantised_into_its_shards_to_the_bits_of_one_device(how, tmp_path):
    sizes = dict(hidden_size=128, intermediate_size=256, scale=0.2)
    path = str(write_tiny_model(tmp_path / "model", **sizes))
    load = lambda mesh: load_language_model(path, dtype="bfloat16", quantize=how, mesh=mesh)
    one, shared = load("data:8,model:1"), load(f"data:2,model:{SHARDS}")
    assert format_of(shared.params) == how == from_dict({"quantize": how}).quantize
    jax.tree.map(np.testing.assert_array_equal, one.params, shared.params)
    device = shared.mesh.devices[0, 1]
    parts = [shard for leaf in jax.tree.leaves(shared.params) for shard in leaf.addressable_shards]
    held = sum(part.data.nbytes for part in parts if part.device == device)
    planned = abstract_params(one.cfg, "bfloat16", how)
    assert held == bytes_of_one(one.cfg, planned, SHARDS)
    assert held < 0.3 * sum(leaf.nbytes for leaf in jax.tree.leaves(one.params))


@pytest.mark.parametrize("how", FORMATS)
def test_no_matrix_is_put_together(how):
    """What a program sets aside is a part of the largest matrix, widened, and no more."""
    mesh = make_mesh(jax.local_devices(), 8)
    cfg = tiny_config(64, n_layers=4, hidden_size=512, n_heads=4, n_kv_heads=4, mlp_size=16384)

    def run(params, tokens):
        return q(Decoder(cfg), params, sequences(tokens, tokens, tokens)).mean()

    params = abstract_params(cfg, "float32", how)
    arguments = (
        shapes_on(mesh, params, partition(cfg, mesh, how)),
        shapes_on(mesh, jax.ShapeDtypeStruct((1, 4), np.int32)),
    )
    compiled = jax.jit(run).lower(*arguments).compile(compiler_options=compiler_options())
    largest = 4 * 512 * 16384
    assert compiled.memory_analysis().temp_size_in_bytes < 0.7 * largest
