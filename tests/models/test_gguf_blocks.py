"""Every storage type that the `gguf` package dequantises arrives in shape, and one at a time."""

from __future__ import annotations

import tracemalloc

import gguf
import numpy as np
import pytest

from antiimit_jax.models.gguf import GgufCheckpoint
from tests.models.gguf_files import Kind, write_gguf
from tests.models.llama_peer import random_llama

NAME, HF_NAME = "blk.1.ffn_up.weight", "model.layers.1.mlp.up_proj.weight"
ROWS, COLUMNS = 6, 256
SIZES = dict(
    hidden_size=COLUMNS,
    intermediate_size=ROWS,
    vocab_size=8,
    num_attention_heads=1,
    num_key_value_heads=1,
    head_dim=4,
)


def _dequantised(kind: gguf.GGMLQuantizationType) -> bool:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    try:
        gguf.quants.dequantize(np.zeros((1, 256 // block * size), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


KINDS = [kind for kind in Kind if _dequantised(kind)]


def _random_blocks(kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """Stored bytes [ROWS, bytes of a row] of finite values, none of them written by a quantiser."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rng, wanted = np.random.default_rng(int(kind)), ROWS * COLUMNS // block
    blocks = rng.integers(0, 256, (4 * wanted + 50, size), dtype=np.uint8)
    with np.errstate(all="ignore"):  # random scales may overflow
        values = gguf.quants.dequantize(blocks, kind)
    kept = blocks[np.isfinite(values).all(axis=1) & (np.abs(values).max(axis=1) < 1e30)][:wanted]
    assert len(kept) == wanted
    return kept.reshape(ROWS, -1)


@pytest.fixture(scope="module")
def model():
    return random_llama(**SIZES)


def test_the_package_dequantises_k_and_i_quants():
    assert len(KINDS) >= 26 and {"Q2_K", "Q6_K", "IQ1_S", "IQ4_XS"} <= {kind.name for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_random_blocks_mean_what_the_packages_own_dequantiser_says(kind, model, tmp_path):
    blocks = _random_blocks(kind)
    file = write_gguf(
        model, tmp_path / "m.gguf", change=lambda tensors: tensors.update({NAME: (blocks, kind)})
    )
    checkpoint = GgufCheckpoint(file)
    read, true = checkpoint.read(HF_NAME), gguf.quants.dequantize(blocks, kind)
    assert read.shape == (ROWS, COLUMNS) and read.dtype == np.float32
    assert np.unique(read).size > 2
    np.testing.assert_array_equal(read, true)


def test_reading_one_tensor_takes_the_memory_of_one_tensor(tmp_path):
    file = write_gguf(random_llama(**SIZES | {"vocab_size": 20_000}), tmp_path / "m.gguf")
    tracemalloc.start()
    checkpoint = GgufCheckpoint(file)
    checkpoint.config(), checkpoint.names()
    checkpoint.read("model.layers.0.mlp.up_proj.weight")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < file.stat().st_size / 20
