"""What the benchmark writes: rows, figures, and the machine they were measured on."""

import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from antiimit_jax.processor import MatmulRate, processor_name
from antiimit_jax.versions import versions

Row = dict[str, Any]
Seconds = Sequence[float]
SCHEMA = 2
TOLERANCE = 1e-3  # a peer whose probabilities or losses are further from ours does not count
_PACKAGES = "antiimit_jax jax jaxlib flax optax numpy torch transformers peft".split()
_MALLOC = ("GLIBC_TUNABLES", "MALLOC_")  # settings that change all sides' speed
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


def machine(cores: int, rate: MatmulRate) -> dict[str, Any]:
    """Where and with what the run was made."""
    gflops = [1e-9 * each for each in rate.rates]
    return {
        "cpu": processor_name(),
        "cores": cores,
        "system": platform.platform(),
        "matmul_gflops_float32": {"median": statistics.median(gflops), "spread": spread(gflops)},
        "malloc": {name: value for name, value in os.environ.items() if name.startswith(_MALLOC)},
        "versions": versions(_PACKAGES),
    }
