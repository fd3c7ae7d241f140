"""A study that is ended at random moments comes to the bytes of one that runs undisturbed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator

import pytest

from launch.interrupt import TERMINATED
from tests.launch.processes import forked, launch
from tests.launch.small_runs import results

_ENDS = {signal.SIGTERM: TERMINATED, signal.SIGKILL: -signal.SIGKILL}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Iterator[None]:
    """What is compiled is kept for all runs here."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("compiled")
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        yield


@pytest.mark.parametrize("kills", [pytest.param(100, marks=pytest.mark.large), 10])
def test_a_study_ended_at_random_moments_comes_to_the_same_bytes(compiled, done, tmp_path, kills):
    flags = lambda workdir: [f"--config={done / 'config.json'}", f"--workdir={workdir}"]
    began, whole = time.monotonic(), tmp_path / "whole"
    assert launch("study", *flags(whole)).returncode == 0
    takes = (time.monotonic() - began) / 2  # the others find all compiled
    chance, left, rounds = random.Random(kills), kills, 0
    while left > 0:
        workdir, code = tmp_path / f"round-{rounds}", TERMINATED
        while code:
            child = forked(["launch.study", *flags(workdir)], [tmp_path / "out", tmp_path / "err"])
            child.join(chance.uniform(0, takes) if left else 300)
            number = signal.SIGTERM if left % 2 else signal.SIGKILL
            if child.exitcode is None:
                os.kill(child.pid, number)
                left -= 1
                child.join(60)
            code = child.exitcode
            assert code in (0, _ENDS[number]), (tmp_path / "err").read_text()
        assert results(workdir) == results(whole)
        rounds += 1
