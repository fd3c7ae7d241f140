"""A run's folder on several hosts: the first process works in it, each other in a private copy."""

import contextlib
import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

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
        with tarfile.open(fileobj=io.BytesIO(_received())) as archive:
            archive.extractall(private, filter="data")
        yield private
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _send(workdir: Path) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for path in sorted(workdir.iterdir()):
            if path.name not in (".lock", "tensorboard"):  # nothing is decided by them
                archive.add(path, path.name)
    sent = np.frombuffer(whole.getbuffer(), np.uint8)
    hosts.exchange(str(sent.size))
    for start in range(0, sent.size, _CHUNK):
        multihost_utils.broadcast_one_to_all(sent[start : start + _CHUNK])


def _received() -> bytes:
    size = int(hosts.exchange("")[0])
    sizes = [min(_CHUNK, size - start) for start in range(0, size, _CHUNK)]
    chunks = [multihost_utils.broadcast_one_to_all(np.zeros(n, np.uint8)) for n in sizes]
    return b"".join(chunk.tobytes() for chunk in chunks)
