"""Rulers: known small changes of the base's weights, so that a drift has something to stand beside.

Each takes the tree of numpy arrays and gives one of the same shapes in float32; matrices change,
norms and biases do not. `Asker.changed` asks for one parameter at a time, so that a changed model
never lies whole in the memory of a host whose devices have their own. A run with quantised weights
has a ruler more: what they stand for.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_dtypes
import numpy as np

from antiimit_jax.models.quantized import FORMATS, rounded_to
from antiimit_jax.models.weights import is_matrix
from antiimit_jax.parallel import whole
from antiimit_jax.trees import flat, nested

Tree = Any
_BLOCK = 32
_NOISE = 1e-5  # standard deviation of the noise added to every weight


def int8_channel(name: str, w: np.ndarray) -> np.ndarray:
    """Symmetric int8 per output channel: a row of the embedding, a column of a kernel."""
    return _rounded(w, _input_axis(name))


def int8_block(name: str, w: np.ndarray) -> np.ndarray:
    """Symmetric int8 in blocks of 32 along the input dimension, as in Q8_0."""
    axis = _input_axis(name)
    inner = np.moveaxis(w, axis, -1)
    if inner.shape[-1] % _BLOCK:
        return _rounded(w, axis)
    blocks = inner.reshape(*inner.shape[:-1], -1, _BLOCK)
    return np.moveaxis(_rounded(blocks, -1).reshape(inner.shape), -1, axis)


def bf16(name: str, w: np.ndarray) -> np.ndarray:
    """Weights rounded to bfloat16; the arithmetic stays float32."""
    return w.astype(ml_dtypes.bfloat16).astype(np.float32)


def noise(name: str, w: np.ndarray) -> np.ndarray:
    """Gaussian noise of standard deviation 1e-5, the same in every run."""
    rng = np.random.default_rng([len(name), *w.shape])
    return w + np.float32(_NOISE) * rng.standard_normal(w.shape, np.float32)


def _input_axis(name: str) -> int:
    return -1 if name in ("embedding", "head") else -2


def _rounded(w: np.ndarray, axis: int) -> np.ndarray:
    scale = np.abs(w).max(axis=axis, keepdims=True) / 127.0
    scale = np.where(scale == 0, 1.0, scale)
    return (np.round(w / scale) * scale).astype(np.float32)


def own(how: str, dtype: str, name: str, w: np.ndarray) -> np.ndarray:
    """The layers' matrices as a run with `quantize` = how in that dtype holds them, in float32."""
    return rounded_to(how, w.astype(dtype)) if name == "kernel" else w


RULERS = {change.__name__: change for change in (int8_channel, int8_block, bf16, noise)}
OWN = tuple(f"own_{how}" for how in FORMATS if how != "none")


def each_changed(params: Tree, change: Callable[[Tree], Tree]) -> Iterator[tuple[str, Any]]:
    """Dotted name and new value of every parameter, one after the other.

    Args:
      change: maps a tree of host arrays to one of the same names; here each holds one array.
    """
    for name, leaf in flat(params).items():
        yield name, flat(change(nested({name: jax.tree.map(whole, leaf)})))[name]


def apply_ruler(ruler: str, params: Tree, dtype: str = "float32") -> Tree:
    """The base's parameters [float32 tree] as a ruler changes them.

    Args:
      dtype: of the run whose quantised weights a ruler of `OWN` stands for.
    """
    quantised = functools.partial(own, ruler.removeprefix("own_"), dtype)
    change = quantised if ruler in OWN else RULERS[ruler]

    def leaf(path: tuple, w: np.ndarray) -> np.ndarray:
        w = np.asarray(w, np.float32)
        # In the order of its axes, a device of the CPU takes it over without a copy.
        return np.ascontiguousarray(change(path[-1].key, w)) if is_matrix(path) else w

    return jax.tree_util.tree_map_with_path(leaf, params)
