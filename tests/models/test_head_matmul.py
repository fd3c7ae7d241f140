"""The head in blocks: the same logits and gradients as in one piece, in less memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antiimit_jax.models import decoder
from antiimit_jax.models.decoder import head_matmul
from antiimit_jax.parallel import compiler_options


@pytest.mark.parametrize("rows", [1, 7, 100, 250, 1003, 5000])
def test_logits_of_narrow_tables_are_exact_whatever_the_blocks(rows, monkeypatch):
    monkeypatch.setattr(decoder, "_WIDENED_BYTES", 4 * 16 * rows)
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=(1003, 16)), jnp.bfloat16)
    hidden = jnp.asarray(rng.normal(size=(2, 3, 16)), jnp.float32)
    wide = np.asarray(table, np.float64)
    true = np.asarray(hidden, np.float64) @ wide.T
    np.testing.assert_allclose(head_matmul(hidden, table), true, atol=2e-5)
    slope = jax.grad(lambda h: jnp.sin(head_matmul(h, table)).sum())(hidden)
    np.testing.assert_allclose(slope, np.cos(true) @ wide, atol=1e-3)


def test_the_gradient_keeps_no_widened_table():
    V, D, R = 64_000, 2048, 16
    slope = jax.grad(lambda h, t: jax.nn.logsumexp(head_matmul(h, t), axis=-1).sum())
    shapes = jax.ShapeDtypeStruct((R, D), jnp.float32), jax.ShapeDtypeStruct((V, D), jnp.bfloat16)
    needed = jax.jit(slope, compiler_options=compiler_options()).lower(*shapes).compile()
    assert needed.memory_analysis().temp_size_in_bytes < 0.5 * 4 * V * D
