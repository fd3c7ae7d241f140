"""A process whose changes of a folder fail or are recorded: `disk.c` is preloaded into it."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.launch.processes import ROOT

Ask = Callable[..., Any]  # of the process, with one JSON object
_SOURCE = Path(__file__).with_name("disk.c")


def built(folder: Path) -> Path:
    """The library, compiled by the system's own compiler; without one the test is skipped."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler (cc): nothing else makes the writes of all libraries fail")
    library = folder / "disk.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], check=True)
    return library


@contextmanager
def watched(folder: Path, number: int = 0, code: int = 0, log: str | None = None) -> Iterator[None]:
    """Has the library, which is preloaded here, watch the changes of a folder and all below it.

    Args:
      number: the change that fails with an errno `code`; with ENOSPC all after it do too. 0: none.
      log: the file where all are recorded.
    """
    watch = ctypes.CDLL(None).disk_watch
    watch(os.fsencode(folder.resolve()), ctypes.c_long(number), code, log and os.fsencode(log))
    try:
        yield
    finally:
        watch(None, ctypes.c_long(0), 0, None)


@contextmanager
def process(module: str, library: Path) -> Iterator[Ask]:
    """A Python program with the library in it, which answers JSON with JSON, a line each."""
    child = subprocess.Popen(
        [sys.executable, "-u", "-m", module],
        cwd=ROOT,
        env=os.environ | {"LD_PRELOAD": str(library)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask(**given: Any) -> Any:
        print(json.dumps(given), file=child.stdin, flush=True)
        return json.loads(child.stdout.readline())

    with child:
        yield ask
