"""Rulers change matrices by what they say, and nothing else."""

from __future__ import annotations

import functools
import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest

from antiimit_jax.evaluation.rulers import RULERS, apply_ruler
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.models.sharding import partition, placer
from antiimit_jax.models.weights import find_model, load_params
from antiimit_jax.parallel import make_mesh, on_mesh
from tests.tiny_model import write_tiny_model


def test_rulers_change_matrices_by_what_they_say(tmp_path):
    tiny = load_language_model(str(write_tiny_model(tmp_path, scale=0.3)))
    kernel = lambda tree: np.asarray(tree["layers"]["mlp"]["up"]["kernel"])
    w = kernel(tiny.params)
    for name in RULERS:
        tree = apply_ruler(name, tiny.params)
        for norm in ("attn_norm", "mlp_norm"):
            np.testing.assert_array_equal(
                tree["layers"][norm]["scale"], tiny.params["layers"][norm]["scale"]
            )
        assert np.abs(kernel(tree) - w).max() > 0
        assert tree["embed"]["embedding"].shape == tiny.params["embed"]["embedding"].shape
    step = np.abs(w).max(axis=1, keepdims=True) / 127
    levels = kernel(apply_ruler("int8_channel", tiny.params)) / step
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    assert np.abs(levels).max() <= 127.001
    assert np.abs(levels * step - w).max() <= step.max() / 2 * 1.001
    np.testing.assert_array_equal(
        kernel(apply_ruler("bf16", tiny.params)), w.astype(ml_dtypes.bfloat16).astype(np.float32)
    )
    block = np.abs(kernel(apply_ruler("int8_block", tiny.params)) - w).mean()
    assert block <= np.abs(kernel(apply_ruler("int8_channel", tiny.params)) - w).mean()
    assert np.std(kernel(apply_ruler("noise", tiny.params)) - w) == pytest.approx(1e-5, rel=0.05)


def test_of_a_model_that_devices_share_the_host_holds_one_changed_parameter(tmp_path):
    """Numpy's arrays are counted: what the devices give, what a ruler makes of it."""
    sizes = dict(vocab_size=512, hidden_size=256, intermediate_size=256, num_hidden_layers=12)
    source, mesh = find_model(str(write_tiny_model(tmp_path, **sizes))), make_mesh(jax.devices(), 8)
    cfg, whole = load_params(source)
    _, shared = load_params(source, place=placer(cfg, mesh))
    nothing = dict(tokenizer=None, terminators=None, prompt_format="base")  # is read
    lm = LanguageModel(source=source, cfg=cfg, params=shared, mesh=mesh, **nothing)
    runner, change = Runner(lm), functools.partial(apply_ruler, "bf16")
    runner.changed(change)  # what is made once
    tracemalloc.start()
    try:
        found = runner.changed(change).params
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    sizes = [leaf.nbytes for leaf in jax.tree.leaves(whole)]
    assert most - held < 4 * max(sizes) < 0.65 * sum(sizes)
    jax.tree.map(np.testing.assert_array_equal, found, change(whole))
    lies = jax.tree.map(lambda leaf: leaf.sharding, found)
    assert lies == on_mesh(mesh, partition(cfg, mesh))
