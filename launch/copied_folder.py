"""A run's folder on several hosts: the first process works in it, each other in a private copy."""

import contextlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from jax.experimental import multihost_utils

from launch import hosts

_CHUNK = 2**24  # bytes that travel at once


@contextlib.contextmanager
def copied(workdir: Path | None) -> Iterator[Path]:
    """A run's folder: that of the first process, of which each other has a copy for as long.

    Args:
      workdir: None on the others.
    """
    if workdir is not None:
        if hosts.several():
            _send(workdir)
        yield workdir
        return
    private = Path(tempfile.mkdtemp(prefix="antiimit_jax_"))
    hosts.use_copy(private)
    try:
        with tempfile.TemporaryFile(dir=private) as sent:
            _receive(sent)
            with tarfile.open(fileobj=sent) as archive:
                archive.extractall(private, filter="data")
        yield private
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _send(workdir: Path) -> None:
    with tempfile.TemporaryFile() as whole:
        with tarfile.open(fileobj=whole, mode="w") as archive:
            for path in sorted(workdir.iterdir()):
                if path.name not in (".lock", "tensorboard"):  # nothing is decided by them
                    archive.add(path, path.name)
        hosts.exchange(str(whole.tell()))
        whole.seek(0)
        while chunk := whole.read(_CHUNK):
            multihost_utils.broadcast_one_to_all(np.frombuffer(chunk, np.uint8))


def _receive(into: IO[bytes]) -> None:
    size = int(hosts.exchange("")[0])
    for start in range(0, size, _CHUNK):
        room = np.zeros(min(_CHUNK, size - start), np.uint8)
        into.write(multihost_utils.broadcast_one_to_all(room).tobytes())
    into.seek(0)
