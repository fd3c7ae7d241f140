"""Work on several devices: where arrays lie, and how compiled functions run on many batches.

Either every device holds all weights and works on batches of its own (`Copies`, `jax.pmap`), or the
devices are a mesh (`Rows`, `jax.jit` with a `NamedSharding` for each array): each of its rows works
on batches of its own, and the devices of a row split the weights and each batch's work. Batches are
dealt out in rounds, and the last round is filled with empty ones whose results are dropped.

The devices may belong to several processes, one on each host. All of them run the same program on
the same host arrays, each puts its part of an array on its own devices, and all read every result.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # its barrier, which is not public
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from antiimit_jax.errors import UserError

Tree = Any
Devices = Sequence[jax.Device]
DATA, MODEL = "data", "model"  # axes of a mesh: rows, and the devices of a row
DEALT, WHOLE = PartitionSpec(DATA), PartitionSpec()  # a part for each row; all on each device
AUTO = "auto"  # as the weights need it (`models.sharding.mesh_of`)
MESHES = "auto, or rows and the devices of a row, as data:2,model:4"
_LONG_MS = 24 * 3600 * 1000
_meetings = itertools.count()
_NAME = re.compile(r"data:([1-9]\d*),model:([1-9]\d*)")


def is_mesh(name: str) -> bool:
    """Whether it names a mesh: so many rows of so many devices as data:2,model:4, or AUTO."""
    return name == AUTO or _NAME.fullmatch(name) is not None


def splits(name: str) -> bool:
    """Whether it names a mesh with several devices to a row, which split the weights."""
    match = _NAME.fullmatch(name)
    return match is not None and match[2] != "1"


def mesh_name(rows: int, shards: int) -> str:
    """The name of a mesh of so many rows of so many devices."""
    return f"{DATA}:{rows},{MODEL}:{shards}"


def mesh_sizes(name: str, devices: int) -> tuple[int, int]:
    """How many rows of how many devices a mesh has; AUTO gives each device a row.

    Raises:
      UserError: no such name, or a number of devices that does not divide those there are.
    """
    if not is_mesh(name):
        raise UserError(f"--mesh={name}: {MESHES}")
    match = _NAME.fullmatch(name)
    rows, shards = map(int, match.groups()) if match else (devices, 1)
    if devices % (rows * shards):
        parts = [n for n in range(1, devices + 1) if devices % n == 0]
        fitting = [(r, s) for r in parts for s in parts if devices % (r * s) == 0]
        far = lambda sizes: abs(sizes[0] - rows) + abs(sizes[1] - shards)
        nearest = mesh_name(*min(fitting, key=lambda sizes: (far(sizes), -sizes[0] * sizes[1])))
        what = f"takes {rows * shards} devices, which do not divide the {devices} that there are"
        raise UserError(f"--mesh={name}: {what}; the nearest that do: {nearest}")
    return rows, shards


def make_mesh(devices: Devices, shards: int = 1) -> Mesh:
    """Rows of so many devices, in order; `shards` divides their number.

    `jax.make_mesh` would refuse some of a TPU's devices where they form no cuboid.
    """
    return Mesh(np.reshape(np.array(devices), (-1, shards)), (DATA, MODEL))


def on_mesh(mesh: Mesh, specs: Tree = WHOLE) -> Tree:
    """A `NamedSharding` for each `PartitionSpec` of a tree."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def keeps() -> bool:
    """Whether this process keeps and tells what is found: the first one alone does."""
    return jax.process_index() == 0


def put(tree: Tree, shardings: Tree) -> Tree:
    """Host arrays, equal on all processes, on the devices; `shardings` is a prefix of the tree.

    With several processes `jax.device_put` would send each array to all of them to compare it.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def own(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)  # it lies on all processes already
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    lying = lambda sharding, part: jax.tree.map(lambda leaf: own(leaf, sharding), part)
    return jax.tree.map(lying, shardings, tree)


def whole(array: Any) -> np.ndarray:
    """An array on the host; one that lies on several processes is gathered, so all must ask."""
    if isinstance(array, jax.Array) and not (
        array.is_fully_addressable or array.is_fully_replicated
    ):
        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def meet() -> None:
    """Waits until all processes are there; no device takes part.

    A reduction on CPUs fails where one of them compiles thirty seconds longer than another.
    """
    if jax.process_count() > 1:
        name = f"antiimit_jax/met/{next(_meetings)}"
        distributed.global_state.client.wait_at_barrier(name, _LONG_MS)


def least(size: int) -> int:
    """The least of all processes' sizes, as exact as float32."""
    if jax.process_count() == 1:
        return size
    return int(np.min(multihost_utils.process_allgather(np.float32(size))))


def shapes_on(mesh: Mesh, tree: Tree, specs: Tree = WHOLE) -> Tree:
    """Arrays, abstract or not, as abstract arrays on a mesh; `specs` is a prefix of the tree."""
    shape = lambda sharding: lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    lying = lambda sharding, part: jax.tree.map(shape(sharding), part)
    return jax.tree.map(lying, on_mesh(mesh, specs), tree)


def by_rows(fn: Callable, mesh: Mesh, out: PartitionSpec) -> Callable:
    """`fn(whole, part)` on all rows at once, each with its part along axis 0; call it under `jit`.

    Within a row XLA splits the work as the arrays lie. `out` is DEALT, or WHOLE where the results
    of all rows are equal.
    """
    how = dict(in_specs=(WHOLE, DEALT), out_specs=out, axis_names={DATA}, check_vma=False)
    return jax.shard_map(fn, mesh=mesh, **how)


class Rows:
    """Each row of a mesh works on its own batches; its devices split the weights between them."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    @property
    def n_batches(self) -> int:
        """Batches of a round, which run at the same time."""
        return self.mesh.shape[DATA]

    def place(self, tree: Tree, specs: Tree = WHOLE) -> Tree:
        """Puts host arrays where the programs read them, once."""
        return put(tree, on_mesh(self.mesh, specs))

    def deal(self, stacked: Tree) -> Tree:
        """Puts the host arrays of a round, [n_batches, ...], where each batch runs."""
        return put(stacked, on_mesh(self.mesh, DEALT))

    def program(self, fn: Callable) -> Any:
        """`fn(placed, batch)` for all batches of a round, jitted; all processes read all."""

        def of_row(placed: Tree, dealt: Tree) -> Tree:
            result = fn(placed, jax.tree.map(lambda leaf: leaf[0], dealt))
            return jax.tree.map(lambda leaf: leaf[None], result)

        out = on_mesh(self.mesh) if jax.process_count() > 1 else None
        return jax.jit(by_rows(of_row, self.mesh, DEALT), out_shardings=out)


class Copies(Rows):
    """Rows of one device, which has all weights: `pmap`, and placed leaves are [devices, ...]."""

    def place(self, tree: Tree, specs: Tree = WHOLE) -> Tree:
        """A copy for every device; what `specs` splits is split between one."""
        devices = list(self.mesh.devices.flat)

        def put(leaf: Any) -> jax.Array:
            copies = [jax.device_put(leaf[None], device) for device in devices]
            shape = (len(copies), *np.shape(leaf))
            return jax.make_array_from_single_device_arrays(
                shape, NamedSharding(self.mesh, DEALT), copies
            )

        return jax.tree.map(put, tree)

    def program(self, fn: Callable) -> Any:
        return jax.pmap(fn, axis_name=DATA, devices=list(self.mesh.devices.flat))


def layout_of(mesh: Mesh) -> Rows:
    """A model that the devices of a row share, or of which every device has a copy.

    What `pmap` gives, only the process of its device can read, so it serves one process alone.
    """
    alone = mesh.shape[MODEL] == 1 and jax.process_count() == 1
    return Copies(mesh) if alone else Rows(mesh)


class DataParallel:
    """`fn(placed, batch)` on many batches at once; compiled once for arguments of equal shapes."""

    def __init__(self, fn: Callable, layout: Rows) -> None:
        self._layout, self._program = layout, layout.program(fn)
        self._compiled: dict[Any, Callable] = {}

    def __call__(self, placed: Tree, batches: Sequence[Tree], empty: Tree) -> Iterator[Tree]:
        """Yields one result of host arrays for each batch, in order.

        Args:
          placed: a tree that the same layout placed.
          batches: host arrays of equal shapes.
          empty: a batch of padding only, which fills the last round.
        """
        n, before = self._layout.n_batches, (None, 0)  # the last round's result, of so many batches
        for start in range(0, len(batches), n):
            group = list(batches[start : start + n])
            filled = group + [empty] * (n - len(group))
            dealt = self._layout.deal(jax.tree.map(lambda *leaves: np.stack(leaves), *filled))
            result = self.compiled(placed, dealt)(placed, dealt)
            yield from _unstack(*before)  # while the devices work on the next round
            before = result, len(group)
        yield from _unstack(*before)

    def compiled(self, placed: Tree, dealt: Tree) -> Any:
        """The program for these shapes, abstract or not; leaves of `dealt` are [n_batches, ...]."""
        leaves, structure = jax.tree.flatten((placed, dealt))
        key = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if key not in self._compiled:
            lowered = self._program.lower(placed, dealt)
            self._compiled[key] = lowered.compile(compiler_options=compiler_options())
            meet()
        return self._compiled[key]


def compiler_options() -> dict[str, str] | None:
    """How programs that hold a model are compiled.

    XLA's CPU backend would move the widening of narrow weights out of the scan over layers, and so
    hold all of them in float32 at once: twice the weights again.
    """
    if jax.default_backend() == "cpu":
        return {"xla_disable_hlo_passes": "while-loop-invariant-code-motion"}
    return None


def _unstack(result: Tree, count: int) -> Iterator[Tree]:
    host = jax.device_get(result)
    for number in range(count):
        yield jax.tree.map(lambda leaf, n=number: leaf[n], host)
