"""Activations times frozen weights, as they are or quantised, with a backward pass of its own."""

import jax
import jax.numpy as jnp

from antiimit_jax.models.quantized import Kernel

Array = jax.Array


@jax.custom_vjp
def matmul(x: Array, w: Array | Kernel) -> Array:
    """x [M, in] @ w [in, out] -> [M, out] in x's dtype, multiplied in w's dtype.

    With bfloat16 weights and float32 activations both passes multiply in bfloat16 and accumulate in
    float32; plain autodiff would widen the weights to float32 in the backward pass. A quantised
    matrix has no gradient, and both passes widen it to its own dtype.
    """
    return _dot(x, w, (1, 0))


def _dot(x: Array, w: Array | Kernel, contract: tuple[int, int]) -> Array:
    w = w.widened() if isinstance(w, Kernel) else w
    dims = (((contract[0],), (contract[1],)), ((), ()))
    return jax.lax.dot_general(x.astype(w.dtype), w, dims, preferred_element_type=x.dtype)


def _matmul_fwd(x: Array, w: Array | Kernel) -> tuple[Array, tuple[Array, Array | Kernel]]:
    return matmul(x, w), (x, w)


def _matmul_bwd(saved: tuple[Array, Array | Kernel], g: Array) -> tuple[Array, Array | None]:
    x, w = saved
    if isinstance(w, Kernel):
        return _dot(g, w, (1, 1)), None
    dw = jax.lax.dot_general(x, g, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return _dot(g, w, (1, 1)), dw.astype(w.dtype)


matmul.defvjp(_matmul_fwd, _matmul_bwd)
