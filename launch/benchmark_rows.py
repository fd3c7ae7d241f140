"""What the benchmark measures and writes: interleaved times, rows, the machine, tables."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

Row = dict[str, Any]
SCHEMA = 1
TOLERANCE = 1e-3  # a peer whose probabilities or losses are further from ours does not count
BATCH_SIZES = (4, 8, 16, 32)
_PACKAGES = ("antiimit_jax", "jax", "jaxlib", "flax", "optax", "numpy")
_MALLOC = ("GLIBC_TUNABLES", "MALLOC_")  # settings that change both sides' speed
_MATMUL_SIZE = 2048


def seconds(run: Callable[[], Any]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def interleave(
    runs: Mapping[str, Callable[[], Any]], repeats: int, done: Callable[[int], None]
) -> dict[str, list[float]]:
    """Seconds of every run, `repeats` times in turn, so that a busy moment hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run))
            done(1)
    return times


def best_batch(
    trial: Callable[[int], Any],
    n_items: int,
    fits: Callable[[int], bool] = lambda size: True,
) -> tuple[int, dict[int, float]]:
    """The fastest of the batch sizes and the seconds of each, one call of `trial` a size.

    Sizes that do not fit are left out, but for the smallest; so are those that n_items cannot fill.
    """
    first, *larger = BATCH_SIZES
    sizes = [first] + [size for size in larger if size < 2 * n_items and fits(size)]
    times = {size: seconds(lambda: trial(size)) for size in sizes}
    return min(times, key=times.__getitem__), times


def make_row(
    *,
    workload: str,
    what: str,
    ours: Sequence[float],
    peer: Sequence[float],
    n_items: int,
    ours_tokens: int,
    peer_tokens: int,
    agrees: bool,
    note: str = "",
    **more: Any,
) -> Row:
    """One row of benchmark.json: medians of seconds, spreads as [least, most].

    Args:
      ours_tokens, peer_tokens: what each computes for the same items, without padding.
      agrees: whether the peer's answers equal ours; if not, its time is null.
      more: further keys.
    """
    ours_s = statistics.median(ours)
    peer_s = statistics.median(peer) if agrees else None
    if not agrees:
        difference = f"the peer's answers differ from ours by more than {TOLERANCE:g}"
        note = "; ".join(filter(None, (note, f"{difference}: its time does not count")))
    rate = lambda count, took: None if took is None else count / took
    return {
        "workload": workload,
        "what": what,
        "peer": "usual",
        "ratio": rate(peer_s, ours_s) if agrees else None,
        "ours_s": ours_s,
        "peer_s": peer_s,
        "spread": {
            "ours": [min(ours), max(ours)],
            "peer": [min(peer), max(peer)] if agrees else None,
        },
        "repeats": len(ours),
        "n_items": n_items,
        "ours_items_per_s": rate(n_items, ours_s),
        "peer_items_per_s": rate(n_items, peer_s),
        "ours_tokens": ours_tokens,
        "peer_tokens": peer_tokens,
        "ours_tokens_per_s": rate(ours_tokens, ours_s),
        "peer_tokens_per_s": rate(peer_tokens, peer_s),
        **more,
        "note": note or None,
    }


def hold_cores(count: int) -> int:
    """Keeps this process, and so both sides, on so many cores where the system can; how many.

    Call it before JAX starts its threads.
    """
    if not hasattr(os, "sched_setaffinity"):
        return os.cpu_count() or 1
    cores = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cores)
    return len(cores)


class MatmulRate:
    """The machine's own float32 rate in GFLOP/s, by JAX, measured several times in a run."""

    def __init__(self) -> None:
        self._matrix = jax.random.normal(jax.random.key(0), (_MATMUL_SIZE, _MATMUL_SIZE))
        self._product = jax.jit(jnp.matmul)
        self._rates: list[float] = []
        self._once()

    def _once(self) -> None:
        jax.block_until_ready(self._product(self._matrix, self._matrix))

    def measure(self) -> None:
        """Five products more."""
        self._rates += [2e-9 * _MATMUL_SIZE**3 / seconds(self._once) for _ in range(5)]

    def summary(self) -> dict[str, Any]:
        """Median and [least, most] of all products so far."""
        return {
            "median": statistics.median(self._rates),
            "spread": [min(self._rates), max(self._rates)],
        }


def machine(cores: int, rate: MatmulRate, versions: Mapping[str, str]) -> dict[str, Any]:
    """Where and with what the run was made."""
    ours = {name: _version(name) for name in _PACKAGES}
    return {
        "cpu": _cpu_name(),
        "cores": cores,
        "system": platform.platform(),
        "matmul_gflops_float32": rate.summary(),
        "malloc": {name: value for name, value in os.environ.items() if name.startswith(_MALLOC)},
        "versions": {"python": platform.python_version(), **ours, **versions},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


_HEAD = (
    "workload", "what", "ours in", "ours s", "peer s", "ratio", "items/s", "peer's", "tokens/s",
    "peer's",
)  # fmt: skip


def _cells(row: Row) -> list[str]:
    spread = row["spread"]
    number = lambda value, form: "-" if value is None else format(value, form)

    def timed(side: str) -> str:
        if spread[side] is None:
            return "-"
        return f"{row[side + '_s']:.2f} ({spread[side][0]:.2f}-{spread[side][1]:.2f})"

    return [
        row["workload"], row["what"], row["ours_dtype"], timed("ours"), timed("peer"),
        number(row["ratio"], ".2f"), number(row["ours_items_per_s"], ".2f"),
        number(row["peer_items_per_s"], ".2f"), number(row["ours_tokens_per_s"], ".0f"),
        number(row["peer_tokens_per_s"], ".0f"),
    ]  # fmt: skip


def plain_table(rows: Sequence[Row]) -> str:
    """For a terminal; notes below."""
    lines = [_HEAD, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(l, widths)).rstrip() for l in lines]
    return "\n".join(shown + _notes(rows)) + "\n"


def markdown_table(rows: Sequence[Row], place: Mapping[str, Any]) -> str:
    """For a README: the table, its notes, and the machine in one sentence."""
    lines = [_HEAD, ["---"] * 3 + ["---:"] * (len(_HEAD) - 3), *map(_cells, rows)]
    table = ["| " + " | ".join(cells) + " |" for cells in lines]
    notes = [f"\n{note}" for note in _notes(rows)]
    versions = place["versions"]
    peers = ", ".join(
        f"{name} {versions[name]}" for name in ("jax", "torch", "transformers", "peft")
    )
    words = (
        f"\nMedians (least-most) in seconds. {place['cores']} cores of {place['cpu']}, float32 "
        f"products at {place['matmul_gflops_float32']['median']:.0f} GFLOP/s; {peers}."
    )
    return "\n".join([*table, *notes, words]) + "\n"


def _notes(rows: Sequence[Row]) -> list[str]:
    return [
        f"{row['workload']}, {row['what']}, {row['ours_dtype']}: {row['note']}."
        for row in rows
        if row["note"]
    ]
