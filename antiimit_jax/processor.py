"""How fast the processor multiplies, in float32 and in bfloat16; kept in the user's cache."""

import functools
import os
import platform
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from antiimit_jax.files import replace_file, write_json
from antiimit_jax.gguf_cache import user_cache
from antiimit_jax.json_files import read_json
from antiimit_jax.versions import versions

_KNOWN = {str: {"float32": float, "bfloat16": float}}
_SIZE = 2048  # rows and columns of the matrices


def processor_name() -> str:
    """As the system calls it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class MatmulRate:
    """The rate of matmuls with float32 results, in operations a second, measured often in a run."""

    def __init__(self, dtype: str = "float32") -> None:
        """`dtype` is of what is multiplied."""
        self._matrix = jax.random.normal(jax.random.key(0), (_SIZE, _SIZE)).astype(dtype)
        dot = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
        self._matmul = jax.jit(dot)
        self.rates: list[float] = []  # of all matmuls so far
        jax.block_until_ready(self._matmul(self._matrix, self._matrix))

    def measure(self) -> float:
        """The median of five matmuls."""
        for _ in range(5):
            began = time.perf_counter()
            jax.block_until_ready(self._matmul(self._matrix, self._matrix))
            self.rates.append(2.0 * _SIZE**3 / (time.perf_counter() - began))
        return statistics.median(self.rates[-5:])


def matmul_gflops() -> dict[str, int]:
    """GFLOP/s of matmuls by dtype, measured in turns in about a second."""
    sides = {dtype: MatmulRate(dtype) for dtype in ("float32", "bfloat16")}
    for _ in range(3):
        for side in sides.values():
            side.measure()
    return {dtype: round(1e-9 * statistics.median(side.rates)) for dtype, side in sides.items()}


def multiplies_bfloat16() -> bool:
    """Whether this machine's processor multiplies bfloat16 clearly faster than float32.

    The answer stays (`kept_gflops`), so that a run that goes on later computes as it began.
    """
    rates = kept_gflops()
    return rates["bfloat16"] > 1.2 * rates["float32"]


def kept_gflops() -> dict[str, float]:
    """This machine's GFLOP/s by dtype, kept in the user's cache.

    Measured once for each processor, number of cores and version of JAX.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    key = f"{processor_name()}, {cores} cores, jax {versions(['jax'])['jax']}"
    file = user_cache() / "processors.json"
    known = read_json(file, _KNOWN, hint="delete it") if file.exists() else {}
    if key not in known:
        known[key] = matmul_gflops()
        replace_file(file, lambda path: write_json(path, known))
    return known[key]
