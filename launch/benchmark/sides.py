"""The sides of a comparison as seen by the benchmark: processes, their turns and their memory."""

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from antiimit_jax.errors import UserError
from launch.benchmark.job import Job
from launch.benchmark.memory import MemoryWatch

BATCH_SIZES = (1, 2, 4, 8, 16, 32)  # items
_ALWAYS_TRIED = 4  # up to this size, since small batches are soon timed and times wander
_CLEARLY_SLOWER = 1.1  # larger batches are not tried after one that is slower by so much
_ROOT = Path(__file__).resolve().parents[2]
# Compilation is measured cold, and the peers find nothing on a hub.
_QUIET = dict(
    JAX_ENABLE_COMPILATION_CACHE="false", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false"
)


class Worker(contextlib.AbstractContextManager):
    """A process that holds one side; to be closed, or used as a context manager."""

    def __init__(self, job: Job, environment: Mapping[str, str] | None = None) -> None:
        """Starts the process and its loading; the first call waits for it.

        Args:
          environment: variables set for this process alone.
        """
        self._side = job.side
        self._pipe, theirs = Pipe()
        command = [sys.executable, "-m", "launch.benchmark.worker", str(theirs.fileno())]
        streams = {"stdin": subprocess.DEVNULL, "stdout": sys.stderr, "pass_fds": [theirs.fileno()]}
        env = os.environ | _QUIET | dict(environment or {})
        self._process = subprocess.Popen(command, cwd=_ROOT, env=env, **streams)
        theirs.close()
        self.memory = MemoryWatch(self._process.pid)
        self.started_mb: float | None = None  # held when its libraries were imported
        self.loaded_mb: float | None = None  # and when its model was loaded
        self._loading = True
        with self._connected() as pipe:
            pipe.send(job)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self.memory.close()
        self._process.terminate()
        self._process.wait()

    def call(self, name: str, *arguments: Any) -> tuple[float, Any]:
        """(seconds, result) of a method of `job.Side`.

        Raises:
          UserError: the process ended.
        """
        with self._connected() as pipe:
            if self._loading:
                self.started_mb, self.loaded_mb = pipe.recv(), pipe.recv()
                self._loading = False
            pipe.send((name, arguments))
            return pipe.recv()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        try:
            yield self._pipe
        except (EOFError, ConnectionError) as error:
            raise UserError(
                f"the process of side {self._side!r} ended with status {self._process.wait()}; "
                "what it said stands above (status -9: memory ran out, take fewer --workloads or "
                "--n_items)"
            ) from error


@dataclasses.dataclass
class Turns:
    """The runs of one side."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    results: list[Any] = dataclasses.field(default_factory=list)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)  # asked for after the last run


def interleave(
    workers: Mapping[str, Worker], repeats: int, enough_s: float, done: Callable[[int], None]
) -> dict[str, Turns]:
    """What `run` of every side gave, in turns, so that a busy moment hits all alike.

    A side that has run for `enough_s` in all has no further turn and is closed: the memory that a
    slow peer holds is the others'.
    """
    seen = {name: Turns() for name in workers}
    for turn in range(1, repeats + 1):
        for name, worker in workers.items():
            own = seen[name]
            if not own.facts:
                took, result = worker.call("run")
                own.seconds.append(took)
                own.results.append(result)
                if turn == repeats or sum(own.seconds) >= enough_s:
                    own.facts = worker.call("facts")[1]
                    worker.close()
            done(1)
    return seen


def best_batch(worker: Worker) -> tuple[int, dict[int, float]]:
    """The batch size with the least seconds per item, and these of each size that was tried.

    Sizes go up until one cannot be filled, does not fit, or is clearly slower than the best.
    """
    worker.call("trial", BATCH_SIZES[0])  # the first call of all is slower
    times: dict[int, float] = {}
    for size in BATCH_SIZES:
        took, items = worker.call("trial", size)
        if items is None and times:
            break
        times[size] = took / (items or 1)
        if size >= _ALWAYS_TRIED and times[size] > _CLEARLY_SLOWER * min(times.values()):
            break
    return min(times, key=times.__getitem__), times
