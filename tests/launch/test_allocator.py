"""Long programs that are not started by make ask for memory as under make."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from launch.allocator import settings, settle

ROOT = Path(__file__).resolve().parents[2]


def restarted(argv: list[str], environ: dict[str, str]) -> dict[str, str] | None:
    """The environment of a new start, or None where there is none."""
    starts = []
    settle(argv, environ, lambda program, args, env: starts.append((program, args, env)))
    assert len(starts) < 2
    if not starts:
        return None
    assert starts[0][:2] == (sys.executable, argv)
    return starts[0][2]


def test_only_long_programs_without_settings_of_their_own_start_again():
    argv = ["python", "-m", "launch.study", "--workdir=W"]
    assert restarted(argv, {"HOME": "/h"}) == {"HOME": "/h"} | settings()
    assert restarted(argv, settings()) is None  # the new start
    for name in settings():
        assert restarted(argv, {name: ""}) is None
    assert restarted(["python", "-m", "launch.score"], {}) is None
    assert restarted(["python", "-m", "pytest", "launch.study"], {}) is None


def test_make_and_programs_read_the_same_file():
    show = "include Makefile\nshow:\n\t@env\n"
    plain = {k: v for k, v in os.environ.items() if k not in settings()}
    made = subprocess.run(
        ["make", "-s", "-f", "-", "show"],
        input=show,
        env=plain,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        settings().items()
        <= dict(line.split("=", 1) for line in made.stdout.splitlines() if "=" in line).items()
    )


def test_a_program_started_directly_runs_with_the_settings():
    plain = {k: v for k, v in os.environ.items() if k not in settings()}
    command = [sys.executable, "-X", "importtime", "-m", "launch.evaluate", "--help"]
    once = subprocess.run(command, env=plain | settings(), cwd=ROOT, capture_output=True, text=True)
    again = subprocess.run(command, env=plain, cwd=ROOT, capture_output=True, text=True)
    assert once.returncode == again.returncode == 0 and again.stdout == once.stdout
    count = lambda run: sum(line.endswith("launch.allocator") for line in run.stderr.splitlines())
    assert (count(once), count(again)) == (1, 2)  # imported by either start
