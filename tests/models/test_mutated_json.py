"""Mutated JSON of models and adapters is read or refused: no crash, no hang, no memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import pytest

from tests.battery import tenth
from tests.launch.processes import ROOT


def battery(kind: str, first: int, count: int, timeout: float) -> int:
    """Reads so many mutations; how many of them were refused."""
    with tempfile.TemporaryFile() as at:
        os.set_inheritable(at.fileno(), True)
        code = f"import os, sys; os.dup2({at.fileno()}, 3); os.execv(sys.executable, sys.argv[1:])"
        inner = [sys.executable, "-m", "tests.models.mutated_json", kind, str(first), str(count)]
        result = subprocess.run(
            [sys.executable, "-c", code, *inner],
            cwd=ROOT,
            capture_output=True,
            pass_fds=[at.fileno()],
            timeout=timeout,
        )
        at.seek(0)
        last = at.read().decode().strip()
    *faults, end = [json.loads(line) for line in result.stdout.splitlines()] or [{}]
    assert result.returncode == 0, f"died at seed {last}: {result.stderr.decode()[-500:]}"
    assert not faults, faults[:10]
    return end["refused"]


@pytest.mark.parametrize("first", tenth(list(range(0, 100_000, 10_000))))
@pytest.mark.parametrize("kind", ["config", "adapter", "tokenizer"])
def test_mutations_are_read_or_refused(kind, first):
    count = 10_000
    assert count / 2 < battery(kind, first, count, timeout=600) < count
