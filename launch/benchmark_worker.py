"""One side of a comparison in a process of its own: waits for calls on a pipe and times them.

    python -m launch.benchmark_worker FILE_DESCRIPTOR

Processes of their own keep the sides' memory apart; a peer's process holds no JAX.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from antiimit_jax.scoring.trie import WordQuery
from antiimit_jax.training.config import TrainConfig

WHAT = ("evaluate", "train")
OURS, PEERS = "ours", ("usual", "strong")
TERMINATORS, FORMS, SEED = "standard", "strict", 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What a side is to do, with the same model, questions and adapter as the other sides."""

    side: str  # ours, usual or strong
    what: str
    model: str  # ours: as --model takes it; a peer: a folder with safetensors
    queries: Sequence[WordQuery]
    shares: Sequence[Sequence[float]] = ()  # train: the targets of each query's words
    groups: Sequence[Sequence[int]] = ()  # queries of one phrasing and shot set (strong)
    stops: np.ndarray  # bool [V], the terminators
    prompt_format: str = "auto"
    train: TrainConfig | None = None
    adapter: str = ""  # train: a folder in PEFT's format
    learning_rates: Sequence[float] = ()  # train: of each step (a peer)
    threads: int = 2  # of a peer
    batch: int = 0  # of a peer: sequences (usual) or items (strong); 0 where none is chosen yet


class Side(Protocol):
    """What a worker can be asked for."""

    def run(self) -> Any:
        """One evaluation: q of every query's words. One training step: the loss before it."""

    def facts(self) -> dict[str, Any]:
        """`tokens` it computes without padding, `padded_share`, and what else it knows."""

    def trial(self, batch: int) -> int | None:
        """A peer: runs a few items in batches of a size; how many, or None for too large a size."""


def held_mb(pid: int | str) -> float | None:
    """Anonymous plus shared memory of a process in MiB, without pages of mapped files.

    None where the system has no /proc or the process is gone.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kinds = ("RssAnon:", "RssShmem:")
    held = [int(line.split()[1]) / 1024 for line in lines if line.startswith(kinds)]
    return sum(held) if held else None


def build(job: Job) -> Iterator[Side | None]:
    """None once the side's own libraries are imported, then the side a job asks for."""
    if job.side == OURS:
        from launch import benchmark_ours

        yield None
        kinds = {"evaluate": benchmark_ours.Evaluation, "train": benchmark_ours.Training}
        yield kinds[job.what](job)
    else:
        from launch import benchmark_peer

        yield None
        yield benchmark_peer.build(job)


def serve(pipe: Connection) -> None:
    """Takes a job, tells what it holds when started and when loaded, then answers calls.

    A call ("name", arguments) is answered with (seconds, result); ends when the pipe closes.
    """
    side = None
    for side in build(pipe.recv()):  # noqa: B007  the last one answers
        pipe.send(held_mb("self"))
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        began = time.perf_counter()
        result = getattr(side, name)(*arguments)
        pipe.send((time.perf_counter() - began, result))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
