"""Work on all local devices with `jax.pmap`: placing weights and running compiled functions.

Weights are placed once: a copy on every device, or of every large array a slice on each, which
`gather` puts together where it is needed. Batches are dealt out a device each, and the last round
is filled with empty batches whose results are dropped.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = Any
Devices = Sequence[jax.Device]
AXIS = "data"  # of `pmap`
WEIGHTS = ("replicated", "sharded")  # how weights may lie on several devices


def place(tree: Tree, devices: Devices | None = None, axes: Tree = None) -> Tree:
    """Puts a tree of arrays on every device: leaves [...] become [devices, ...] for `pmap`.

    Args:
      axes: a tree of integers: the axis along which the devices share an array, so that each gets
        its own slice and nothing else; -1 copies it to every device, as does leaving `axes` out.
        An integer may stand for all arrays of a quantised matrix.
    """
    devices = list(devices or jax.local_devices())
    sharding = _one_each(devices)

    def put(leaf: Any, axis: int = -1) -> jax.Array:
        if axis < 0:
            shards = [jax.device_put(leaf[None], device) for device in devices]
        else:
            shards = [
                jax.block_until_ready(jax.device_put(part[None], device))  # one slice at a time
                for part, device in zip(np.split(leaf, len(devices), axis), devices)
            ]
        shape = (len(devices), *shards[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, shards)

    if axes is None:
        return jax.tree.map(put, tree)
    return jax.tree.map(put, tree, jax.tree.broadcast(axes, tree))


def scatter(tree: Tree, devices: Devices) -> Tree:
    """Puts host arrays [devices, ...] on the devices, one entry on each, for `pmap`."""
    return jax.device_put(tree, _one_each(devices))


def _one_each(devices: Devices) -> NamedSharding:
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS))


def gather(tree: Tree, axes: Tree) -> Tree:
    """Within `pmap`, the whole arrays from the slices that `place` gave to the devices."""

    def whole(leaf: jax.Array, axis: int) -> jax.Array:
        return leaf if axis < 0 else jax.lax.all_gather(leaf, AXIS, axis=axis, tiled=True)

    return jax.tree.map(whole, tree, axes)


class Pmapped:
    """`jax.pmap` of a function; compiled once for all arguments of the same shapes."""

    def __init__(self, fn: Callable, devices: Devices, donate: tuple[int, ...] = ()) -> None:
        self._fn = jax.pmap(fn, axis_name=AXIS, devices=list(devices), donate_argnums=donate)
        self._compiled: dict[Any, Callable] = {}

    def __call__(self, *arguments: Tree) -> Tree:
        return self.compiled(*arguments)(*arguments)

    def compiled(self, *arguments: Tree) -> Callable:
        """The program for these shapes; leaves are [devices, ...]."""
        leaves, structure = jax.tree.flatten(arguments)
        key = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if key not in self._compiled:
            lowered = self._fn.lower(*arguments)
            self._compiled[key] = lowered.compile(compiler_options=compiler_options())
        return self._compiled[key]


class DataParallel:
    """`fn(placed, batch)` on every local device at once; compiled once for each batch shape."""

    def __init__(self, fn: Callable, devices: Devices | None = None) -> None:
        self.devices = list(devices or jax.local_devices())
        self._run = Pmapped(fn, self.devices)

    def __call__(self, placed: Tree, batches: Sequence[Tree], empty: Tree) -> Iterator[Tree]:
        """Yields one result of host arrays for each batch, in order.

        Args:
          placed: a tree that `place` put on the same devices.
          batches: host arrays of equal shapes.
          empty: a batch of padding only, which fills the last round.
        """
        n, before = len(self.devices), (None, 0)  # the last round's result, of so many batches
        for start in range(0, len(batches), n):
            group = list(batches[start : start + n])
            filled = group + [empty] * (n - len(group))
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *filled)
            result = self._run(placed, stacked)
            yield from _unstack(*before)  # while the devices work on the next round
            before = result, len(group)
        yield from _unstack(*before)

    def compiled(self, placed: Tree, stacked: Tree) -> Callable:
        """The program for these shapes; leaves of `stacked` are [devices, ...]."""
        return self._run.compiled(placed, stacked)


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
