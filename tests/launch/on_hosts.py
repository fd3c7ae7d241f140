"""A program on several hosts: its processes on this machine, which meet on the loopback device."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.launch.processes import forked


class Ended(NamedTuple):
    """How one process ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What it said; of bars, which return to the beginning of their line, the last state."""
        return [line.rpartition("\r")[2] for line in self.err.splitlines()]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def flags_of(processes: int) -> Iterator[list[str]]:
    """--coordinator, --processes and --process_id of each."""
    address = f"127.0.0.1:{free_port()}"
    for number in range(processes):
        yield [f"--coordinator={address}", f"--processes={processes}", f"--process_id={number}"]


def together(
    commands: Sequence[Sequence[str]],
    module: str = "tests.launch.impatient",
    devices: int = 1,
    meanwhile: Callable[[Sequence, Path], None] = lambda children, folder: None,
    environs: Sequence[dict[str, str]] = (),
) -> list[Ended]:
    """Starts a program and its flags for each process, and waits until all have ended.

    Args:
      module: that runs the program.
      devices: of each process.
      meanwhile: called with the processes and the folder of their streams, once they have started.
      environs: of each process.
    """
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    with tempfile.TemporaryDirectory() as name:
        streams = [
            [Path(name, f"{number}.{stream}") for stream in ("out", "err")]
            for number in range(len(commands))
        ]
        for stream in (stream for pair in streams for stream in pair):
            stream.touch()
        children = [
            forked(
                [module, *command],
                streams[number],
                XLA_FLAGS=flags,
                **(environs[number] if environs else {}),
            )
            for number, command in enumerate(commands)
        ]
        meanwhile(children, Path(name))
        limit = time.monotonic() + 600
        for child in children:
            child.join(max(limit - time.monotonic(), 0))
        late = [number for number, child in enumerate(children) if child.exitcode is None]
        for number in late:
            children[number].kill()
        said = [[stream.read_text() for stream in pair] for pair in streams]
        assert not late, said
        return [Ended(child.exitcode, *texts) for child, texts in zip(children, said)]
