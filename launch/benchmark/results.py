"""What the benchmark writes: rows, figures, and the machine they were measured on."""

import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from antiimit_jax.versions import versions

Row = dict[str, Any]
Seconds = Sequence[float]
SCHEMA = 2
TOLERANCE = 1e-3  # a peer whose probabilities or losses are further from ours does not count
_PACKAGES = "antiimit_jax jax jaxlib flax optax numpy torch transformers peft".split()
_MALLOC = ("GLIBC_TUNABLES", "MALLOC_")  # settings that change all sides' speed
_MATMUL_SIZE = 2048
_TINY = 1e-12


def distance(ours: Sequence[Any], peer: Sequence[Any]) -> float:
    """How far a peer's results are from ours: the largest relative difference of a probability.

    For training, results are losses step by step, and the difference of losses counts (in nats).
    """
    if isinstance(ours[0], float):
        steps = min(len(ours), len(peer))
        return float(np.abs(np.subtract(ours[:steps], peer[:steps])).max())
    a, b = np.concatenate(ours[0]), np.concatenate(peer[0])
    larger = np.maximum(np.maximum(a, b), _TINY)
    return float(np.max(np.abs(a - b) / larger))  # NaN stays NaN


def make_row(case: Row, peer: str, ours_s: Seconds, peer_s: Seconds, difference: float) -> Row:
    """One row of benchmark.json: medians of seconds, spreads as [least, most].

    A peer that is further from ours than TOLERANCE has no time and no ratio. `case` holds workload,
    what and n_items.
    """
    agrees = difference <= TOLERANCE  # false where it is not a number
    ours, theirs = statistics.median(ours_s), statistics.median(peer_s)
    note = f"its answers differ from ours by more than {TOLERANCE:g}: its time does not count"
    return {
        **case,
        "peer": peer,
        "ratio": theirs / ours if agrees else None,
        "ours_s": ours,
        "peer_s": theirs if agrees else None,
        "spread": {"ours": spread(ours_s), "peer": spread(peer_s) if agrees else None},
        "repeats": {"ours": len(ours_s), "peer": len(peer_s)},
        "difference": difference if np.isfinite(difference) else None,
        "note": None if agrees else note,
    }


def make_figures(
    case: Row, side: str, seconds: Seconds, flops: float, rate: float, facts: Row
) -> Row:
    """How one side did.

    Args:
      case: workload, what and n_items.
      flops: operations that the workload needs, whoever computes it (`work.flops`).
      rate: the machine's own, in operations a second.
      facts: of the side: tokens it computed, padded share, memory, compilation.
    """
    took = statistics.median(seconds)
    return {
        **case,
        "side": side,
        "seconds": took,
        "spread": spread(seconds),
        "items_per_s": case["n_items"] / took,
        "tokens_per_s": facts["tokens"] / took,
        "matmul_share": flops / took / rate,
        "needed_flops": flops,
        **facts,
    }


def spread(values: Seconds) -> list[float]:
    """The least and the most."""
    return [min(values), max(values)]


def hold_cores(count: int) -> int:
    """Keeps this process and its children on so many cores where the system can; how many.

    Call it before JAX starts its threads.
    """
    if not hasattr(os, "sched_setaffinity"):
        return os.cpu_count() or 1
    cores = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cores)
    return len(cores)


class MatmulRate:
    """The machine's own float32 rate by JAX, in operations a second, measured often in a run."""

    def __init__(self) -> None:
        self._matrix = jax.random.normal(jax.random.key(0), (_MATMUL_SIZE, _MATMUL_SIZE))
        self._matmul = jax.jit(jnp.matmul)
        self.rates: list[float] = []  # of all matmuls so far
        jax.block_until_ready(self._matmul(self._matrix, self._matrix))

    def measure(self) -> float:
        """The median of five matmuls."""
        for _ in range(5):
            began = time.perf_counter()
            jax.block_until_ready(self._matmul(self._matrix, self._matrix))
            self.rates.append(2.0 * _MATMUL_SIZE**3 / (time.perf_counter() - began))
        return statistics.median(self.rates[-5:])


def machine(cores: int, rate: MatmulRate) -> dict[str, Any]:
    """Where and with what the run was made."""
    gflops = [1e-9 * each for each in rate.rates]
    return {
        "cpu": _cpu_name(),
        "cores": cores,
        "system": platform.platform(),
        "matmul_gflops_float32": {"median": statistics.median(gflops), "spread": spread(gflops)},
        "malloc": {name: value for name, value in os.environ.items() if name.startswith(_MALLOC)},
        "versions": versions(_PACKAGES),
    }


def _cpu_name() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
