"""Where the parameters lie on a mesh, by the logical axes of the leaf table.

The devices of a row split the ffn, the hidden size or the vocabulary, never the heads, of which
there may be 28 for 8 devices. The decoder does not know: XLA splits its work accordingly.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from antiimit_jax.errors import UserError
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.leaves import Leaf, leaves_of
from antiimit_jax.models.quantized import BLOCK, Kernel, format_of, on_host
from antiimit_jax.parallel import (
    AUTO,
    DATA,
    MODEL,
    WHOLE,
    Devices,
    least,
    make_mesh,
    mesh_sizes,
    on_mesh,
    put,
)
from antiimit_jax.trees import flat, n_bytes, nested

Tree = Any
_SPLIT = ("mlp", "hidden", "vocab")  # a matrix is split along the first that the devices divide


def partition(cfg: ModelConfig, mesh: Mesh | AbstractMesh, how: str = "none") -> Tree:
    """For every parameter, as `Decoder` holds it, which of its axes the devices of a row split.

    Norms and biases stay whole on every device, and so does what their number does not divide. A
    quantised matrix is split as what it stands for, between blocks that share a scale.

    Args:
      how: the format that the layers' matrices are held in, as `models.quantized` names it.
    """
    return nested({leaf.name: _spec(leaf, cfg, mesh, how) for leaf in leaves_of(cfg)})


def _spec(
    leaf: Leaf, cfg: ModelConfig, mesh: Mesh | AbstractMesh, how: str
) -> PartitionSpec | Kernel:
    sizes, shards = dict(zip(leaf.sizes, leaf.shape(cfg))), mesh.shape[MODEL]
    if how == "nf4" and leaf.transposed:
        sizes[leaf.sizes[1]] //= BLOCK
    divided = [name for name in _SPLIT if name in sizes and sizes[name] % shards == 0]
    if shards == 1 or len(sizes) == 1 or not divided:
        return WHOLE
    spec = PartitionSpec(*(MODEL if name == divided[0] else None for name in leaf.axes))
    if how == "none" or not leaf.transposed:
        return spec
    return Kernel(spec, spec if how == "nf4" or spec[-1] == MODEL else WHOLE)


def placer(
    cfg: ModelConfig, mesh: Mesh, how: str = "none"
) -> Callable[[str, np.ndarray], Any] | None:
    """Puts a parameter, by its dotted name, into its shards, quantised before where `how` says so.

    Where nothing is split it stays on the host; None where nothing is to be done.
    """
    split = mesh.shape[MODEL] > 1
    if not split and how == "none":
        return None
    shardings = flat(on_mesh(mesh, partition(cfg, mesh, how)))
    kernels = {leaf.name for leaf in leaves_of(cfg) if leaf.transposed and how != "none"}

    def place(name: str, array: np.ndarray) -> Any:
        held = on_host(array, how) if name in kernels else array
        return jax.block_until_ready(put(held, shardings[name])) if split else held

    return place


def bytes_of_one(cfg: ModelConfig, params: Tree, shards: int) -> int:
    """Bytes of the parameters, abstract or not, on one of the devices that share them."""
    specs = partition(cfg, AbstractMesh((1, shards), (DATA, MODEL)), format_of(params))
    own = lambda spec, part: n_bytes(part) // (1 if spec == WHOLE else shards)
    return sum(jax.tree.leaves(jax.tree.map(own, specs, params)))


def fitting_shards(cfg: ModelConfig, params: Tree, devices: int, room: int) -> int:
    """The fewest devices to a row whose parts of the weights take at most a sixth of `room` bytes.

    All of them where none does. Beside bfloat16 weights the rulers of `drift` hold them twice in
    float32, as stored and changed: five times in all. `launch.plan` says whether that is enough.
    So quantised weights are laid out as those that they stand for (`params` not quantised).
    """
    divisors = (n for n in range(1, devices + 1) if devices % n == 0)
    return next((n for n in divisors if 6 * bytes_of_one(cfg, params, n) <= room), devices)


def sizes_of(
    name: str, cfg: ModelConfig, params: Tree, devices: int, room: int | None
) -> tuple[int, int]:
    """How many rows of how many devices the mesh of that name has for a model.

    Args:
      room: bytes that a program may fill of each device's own memory: AUTO has `fitting_shards` of
        it. None where devices have none of their own, as on a CPU: each is a row.

    Raises:
      UserError: it takes a number of devices that does not divide those there are.
    """
    if name != AUTO or not room:
        return mesh_sizes(name, devices)
    shards = fitting_shards(cfg, params, devices, room)
    return devices // shards, shards


def mesh_of(name: str, cfg: ModelConfig, params: Tree, devices: Devices) -> Mesh:
    """The mesh of that name for a model, on these devices as they are.

    Raises:
      UserError: it takes a number of devices that does not divide those there are, or leaves out
        all of a process.
    """
    own = next(device for device in devices if device.process_index == jax.process_index())
    room = (own.memory_stats() or {}).get("bytes_limit") if name == AUTO else None
    rows, shards = sizes_of(name, cfg, params, len(devices), room and least(room))
    taken = devices[: rows * shards]
    if without := {d.process_index for d in devices} - {d.process_index for d in taken}:
        idle = f"leaves no device to process {min(without)}"
        raise UserError(f"--mesh={name}: {idle}; take all {len(devices)}, or start fewer processes")
    return make_mesh(taken, shards)
