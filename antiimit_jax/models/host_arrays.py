"""Large arrays in host memory: allocated so that JAX need not copy them, filled and judged fast."""

import math

import numpy as np

ALIGNMENT = 64  # bytes, of arrays that JAX takes over on a CPU
_TILE = 256
_CHUNK = 2**18  # values that stay in the cache between two looks
LARGEST = 2.0**60  # of parameters; the square of a larger one leaves float32


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that a CPU device takes over without a copy; pages count once they are filled."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def transpose_into(to: np.ndarray, array: np.ndarray) -> None:
    """to[:] = array.T of the same dtype, tile by tile in the processor's cache: 50 times as fast.

    Rows of a tile lie a little apart from a power of two, or they would share few cache sets.
    """
    to, array = (side.view(f"u{to.dtype.itemsize}") for side in (to, array))  # numpy's own types
    tile = np.empty((_TILE, _TILE + 2), to.dtype)
    for i in range(0, array.shape[0], _TILE):
        for j in range(0, array.shape[1], _TILE):
            part = array[i : i + _TILE, j : j + _TILE]
            here = tile[: part.shape[0], : part.shape[1]]
            here[:] = part
            to[j : j + _TILE, i : i + _TILE] = here.T


def is_sound(array: np.ndarray) -> bool:
    """Whether a contiguous array of floats holds neither NaN nor infinity, nor LARGEST and beyond.

    Bits of a larger value are a larger integer of its sign, those of infinity and NaN the largest.
    """
    bits = 8 * array.dtype.itemsize
    with np.errstate(over="ignore"):  # float16 ends before: infinity
        most = int(np.array(LARGEST, array.dtype).view(f"u{bits // 8}"))
    flat = array.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        if int(chunk.view(f"i{bits // 8}").max()) >= most:
            return False
        if int(chunk.view(f"u{bits // 8}").max()) >= most + 2 ** (bits - 1):
            return False
    return True
