"""Where the parameters lie on a mesh, by the logical axes of the leaf table.

The devices of a row split the ffn, the hidden size or the vocabulary, never the heads, of which
there may be 28 for 8 devices. The decoder does not know: XLA splits its work accordingly.
"""

from typing import Any

from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.leaves import Leaf, leaves_of
from antiimit_jax.parallel import MODEL, WHOLE
from antiimit_jax.trees import nested

Tree = Any
_SPLIT = ("mlp", "hidden", "vocab")  # a matrix is split along the first that the devices divide


def partition(cfg: ModelConfig, mesh: Mesh | AbstractMesh) -> Tree:
    """For every parameter, as `Decoder` holds it, which of its axes the devices of a row split.

    Norms and biases stay whole on every device, and so does what their number does not divide.
    """
    return nested({leaf.name: _spec(leaf, cfg, mesh) for leaf in leaves_of(cfg)})


def _spec(leaf: Leaf, cfg: ModelConfig, mesh: Mesh | AbstractMesh) -> PartitionSpec:
    sizes, shards = dict(zip(leaf.sizes, leaf.shape(cfg))), mesh.shape[MODEL]
    divided = [name for name in _SPLIT if name in sizes and sizes[name] % shards == 0]
    if shards == 1 or len(sizes) == 1 or not divided:
        return WHOLE
    return PartitionSpec(*(MODEL if name == divided[0] else None for name in leaf.axes))
