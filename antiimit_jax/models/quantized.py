"""Quantised kernels: int8 or nf4 values and their scales, made and widened by `qwix`.

The matrices of the layers can be held so, which is where a model's weight lies; embedding, head,
norms, biases and adapters stay as they are. A matmul widens one layer's matrix at a time, so that
memory is saved and not time. int8 has a scale for each output; nf4 (Dettmers et al. 2023, arXiv
2305.14314) has 16 uneven levels and a scale for each block of 32 inputs of an output.
"""

import functools
import importlib.util
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.host_arrays import aligned_empty
from antiimit_jax.models.leaves import leaves_of

Array = jax.Array
Tree = Any
FORMATS = ("none", "int8", "nf4")
_TYPES = {"int8": jnp.int8, "nf4": "nf4"}  # as qwix names them
BLOCK = 32  # inputs that share a scale in nf4
_AT_ONCE = 2**20  # values; qwix holds the distances of each from all 16 levels of nf4


class Kernel(NamedTuple):
    """A quantised matrix [in, out]; of stacked layers both arrays have a leading axis L."""

    values: Array  # int8 [in, out]; nf4: uint8 [in / 2, out], the levels of i and i + 16 of a block
    scale: Array  # [1, out], or [in / 32, out] for nf4

    @property
    def dtype(self) -> Any:
        """What it is widened to, and so what it is multiplied in."""
        return self.scale.dtype

    @property
    def how(self) -> str:
        """The format that it is held in."""
        return "nf4" if self.values.dtype == jnp.uint8 else "int8"

    def astype(self, dtype: Any) -> "Kernel":
        """The same values, widened to another dtype."""
        return self._replace(scale=self.scale.astype(dtype))

    def widened(self) -> Array:
        """The matrix that it stands for."""
        import qwix  # an extra: only who quantises needs it

        values = self.values
        if self.how == "nf4":  # whole bytes: JAX takes its own uint4 for two layouts
            *layers, _, outputs = values.shape
            blocks = values.reshape(*layers, -1, BLOCK // 2, outputs)
            values = jnp.concatenate([blocks & 15, blocks >> 4], axis=-2)
            values = values.reshape(*layers, -1, outputs)
        return qwix.dequantize(qwix.QArray(values, self.scale, None, _TYPES[self.how]))


def is_kernel(node: Any) -> bool:
    """Whether a node of a tree of parameters is a quantised matrix."""
    return isinstance(node, Kernel)


def format_of(params: Tree) -> str:
    """Which of `FORMATS` a tree of parameters holds the layers' matrices in."""
    nodes = jax.tree.leaves(params, is_leaf=is_kernel)
    return next((node.how for node in nodes if is_kernel(node)), "none")


def check_format(cfg: ModelConfig, how: str, model: str) -> None:
    """Raises UserError where `qwix` is not installed, or a matrix cannot be held in a format."""
    if how == "none":
        return
    if importlib.util.find_spec("qwix") is None:
        install = 'pip install "antiimit_jax[quant]"'
        raise UserError(f"quantize={how} needs the package qwix: {install}, or set it to none")
    inputs = {leaf.name: leaf.shape(cfg)[1] for leaf in leaves_of(cfg) if leaf.transposed}
    odd = [f"{name} has {size}" for name, size in inputs.items() if size % BLOCK]
    if how == "nf4" and odd:
        blocks = f"nf4 takes inputs in blocks of {BLOCK}, and {odd[0]}"
        raise UserError(f"--model={model}: cannot be held in nf4: {blocks}; set quantize to int8")


@functools.partial(jax.jit, static_argnames="how")
def quantized(w: Array, how: str) -> Kernel:
    """Matrices [L, in, out] in a format; the scales have the dtype of the matrices."""
    import qwix

    found = qwix.quantize(
        w.astype(jnp.float32),
        _TYPES[how],
        channelwise_axes=(0, 2),
        tiled_axes={1: BLOCK} if how == "nf4" else None,
        scale_dtype=w.dtype,
    )
    if how == "int8":
        return Kernel(found.qvalue, found.scale)
    layers, inputs, outputs = w.shape
    blocks = found.qvalue.astype(jnp.uint8).reshape(layers, -1, BLOCK, outputs)
    low, high = jnp.split(blocks, 2, axis=2)
    return Kernel((low | high << 4).reshape(layers, inputs // 2, outputs), found.scale)


def quantize_layers(params: Tree, how: str) -> None:
    """Puts quantised matrices in place of those of a loaded tree, one after the other.

    The tree itself is changed: host memory never holds both of more than one matrix. Those that are
    quantised already stay as they are.
    """
    _quantize_kernels(params["layers"], how)


def _quantize_kernels(tree: Tree, how: str) -> None:
    for name, node in tree.items():
        if isinstance(node, dict):
            _quantize_kernels(node, how)
        elif name == "kernel" and not is_kernel(node):
            tree[name] = on_host(node, how)


def on_host(w: np.ndarray, how: str) -> Kernel:
    """Matrices [L, in, out] of the host as a format holds them, some outputs at a time."""
    layers, inputs, outputs = w.shape
    shapes = jax.eval_shape(functools.partial(quantized, how=how), w)
    arrays = [aligned_empty(x.shape, x.dtype) for x in shapes]
    width = max(1, _AT_ONCE // inputs)
    for layer in range(layers):
        for first in range(0, outputs, width):
            place = np.s_[layer : layer + 1, :, first : first + width]
            for array, part in zip(arrays, quantized(w[place], how)):
                array[place] = part
    for array in arrays:
        array.flags.writeable = False
    return Kernel(*arrays)


def rounded_to(how: str, w: np.ndarray) -> np.ndarray:
    """Matrices [L, in, out] of the host as a format holds them, widened again to float32."""
    wide, widened = np.empty(w.shape, np.float32), jax.jit(Kernel.widened)
    for i, layer in enumerate(zip(*on_host(w, how))):
        wide[i] = widened(Kernel(*layer))
    return wide


def abstract_quantized(params: Tree, how: str) -> Tree:
    """Shapes and dtypes of what `quantize_layers` makes of a tree of shapes and dtypes."""
    if how == "none":
        return params

    def leaf(path: tuple, w: Any) -> Any:
        kernel = path[-1].key == "kernel"
        return jax.eval_shape(functools.partial(quantized, how=how), w) if kernel else w

    return jax.tree_util.tree_map_with_path(leaf, params)
