"""One side in a process of its own: waits for calls on a pipe and times them.

    python -m launch.benchmark.worker FILE_DESCRIPTOR

Processes of their own keep the sides' memory apart; a peer's process holds no JAX.
"""

import importlib
import sys
import time
from multiprocessing.connection import Connection
from types import ModuleType

from launch.benchmark.job import OURS
from launch.benchmark.memory import held_mb


def module_of(side: str) -> ModuleType:
    """The module whose `build(job)` makes a side, with all libraries that the side needs."""
    return importlib.import_module(f"launch.benchmark.{'ours' if side == OURS else 'peers'}")


def serve(pipe: Connection) -> None:
    """Takes a job, tells what it holds when started and when loaded, then answers calls.

    A call ("name", arguments) is answered with (seconds, result); ends when the pipe closes.
    """
    job = pipe.recv()
    module = module_of(job.side)
    pipe.send(held_mb("self"))
    side = module.build(job)
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
