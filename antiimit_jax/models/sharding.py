"""Weights that all devices share: where each is split, and how a decoder reads them.

A device holds its slices and, while a layer runs, that layer whole. Everything here but
`split_axes` runs within `pmap`, on batches of equal shapes on all devices.
"""

from typing import Any

import jax
from flax import linen as nn

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.leaves import Leaf, leaves_of
from antiimit_jax.parallel import AXIS, gather
from antiimit_jax.trees import nested

Array = jax.Array
Tree = Any


def split_axes(cfg: ModelConfig, shards: int) -> Tree:
    """For every parameter, as `Decoder` holds it, the axis that the devices share; -1 is none.

    Kernels [L, in, out] are split along in or, where the number of devices does not divide it,
    along out; the tables [V, D] along D; norms and biases stay whole, as does what is divided by
    nothing. With one device all stay whole.
    """
    return nested({leaf.name: _split_axis(leaf, cfg, shards) for leaf in leaves_of(cfg)})


def _split_axis(leaf: Leaf, cfg: ModelConfig, shards: int) -> int:
    sizes = leaf.shape(cfg)
    if len(sizes) == 1 or shards == 1:
        return -1
    if not leaf.stacked:
        return 1 if sizes[1] % shards == 0 else -1
    sizes = sizes[::-1] if leaf.transposed else sizes
    return next((axis for axis, size in enumerate(sizes, 1) if size % shards == 0), -1)


def shared_block(block: type[nn.Module], cfg: ModelConfig, shards: int) -> type[nn.Module]:
    """A decoder block that puts its layer's parameters together from all devices' slices.

    A backward pass must do so again, or it would hold all layers: that is up to `nn.remat` around.
    """
    axes = jax.tree.map(lambda axis: axis - 1, split_axes(cfg, shards)["layers"])  # without L
    whole = lambda slices: {"params": gather(slices["params"], axes)}
    return nn.map_variables(block, "params", whole)


def table_width(cfg: ModelConfig, shards: int) -> int:
    """Columns of the embedding and of the head that a device holds."""
    return cfg.hidden_size // (shards if cfg.hidden_size % shards == 0 else 1)


def look_up(table: Array, tokens: Array) -> Array:
    """Rows [M, D] of a table of which each device holds [V, D / devices], for its own tokens [M].

    Every device looks up all devices' tokens in its columns and sends each what it asked for.
    """
    asked = jax.lax.all_gather(tokens, AXIS, tiled=True)  # [devices * M]
    return jax.lax.all_to_all(table[asked], AXIS, split_axis=0, concat_axis=1, tiled=True)


def whole_rows(rows: Array) -> Array:
    """Rows [R, D / devices] of such a table -> [R, D]; the same rows on all devices."""
    return gather(rows, 1)
