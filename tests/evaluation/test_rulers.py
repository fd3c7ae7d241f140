"""Rulers change matrices by what they say, and nothing else."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from antiimit_jax.evaluation.rulers import RULERS, apply_ruler
from antiimit_jax.language_model import load_language_model
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
