"""bfloat16 weights stay bfloat16 while a model is asked, and exist once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import load_language_model
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.weights import abstract_params
from antiimit_jax.parallel import DataParallel, layout_of, make_mesh
from antiimit_jax.scoring.batching import pack_batches
from antiimit_jax.scoring.trie import word_query
from antiimit_jax.scoring.word_probs import word_log_probs
from antiimit_jax.text.formats import text_prompt
from tests.random_decoder import tiny_config
from tests.tiny_model import write_tiny_model


def test_no_layer_stack_and_no_head_is_widened(smollm2):
    """From the compiled program's own account; no weights are made."""
    cfg = tiny_config(
        100_000,
        hidden_size=1024,
        n_layers=12,
        n_heads=8,
        n_kv_heads=8,
        head_dim=128,
        mlp_size=4096,
        tied_head=False,
    )
    weights = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract_params(cfg, jnp.bfloat16))
    stops = np.zeros(cfg.vocab_size, bool)
    stops[smollm2.terminators.mask("standard").nonzero()] = True
    query = word_query(smollm2.tokenizer, text_prompt(smollm2.tokenizer, "a b"), ["apple", "river"])
    (work,) = pack_batches([query], stops)
    decoder = Decoder(cfg)
    ask = DataParallel(
        lambda placed, batch: word_log_probs(decoder, {"params": placed[0]}, placed[1], batch),
        layout_of(make_mesh(jax.local_devices()[:1])),
    )
    shape = lambda leaf: jax.ShapeDtypeStruct((1, *np.shape(leaf)), leaf.dtype)
    placed, batch = jax.tree.map(shape, ((weights, stops), work.empty))
    needed = ask.compiled(placed, batch).memory_analysis().temp_size_in_bytes
    widened_layers = 4 * sum(leaf.size for leaf in jax.tree.leaves(weights["layers"]))
    widened_head = 4 * weights["head"].size
    assert needed < 0.5 * min(widened_layers, widened_head)


def test_devices_share_the_arrays_that_were_read(tmp_path):
    lm = load_language_model(str(write_tiny_model(tmp_path)), dtype="bfloat16")
    runner = Runner(lm, jax.local_devices()[:3])
    for read, placed in zip(jax.tree.leaves(lm.params), jax.tree.leaves(runner.base.params)):
        assert not read.flags.writeable
        for shard in placed.addressable_shards:
            assert shard.data.unsafe_buffer_pointer() == read.ctypes.data
