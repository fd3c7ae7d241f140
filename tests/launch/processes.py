"""Running the programs as a user does: real processes with few, small settings."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from launch.benchmark.memory import held_mb

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "--config.train.steps=8",
    "--config.train.placebo_steps=3",
    "--config.train.checkpoint_every=2",
    "--config.train.rows=2",
    "--config.train.groups=1",
    "--config.train.dtype=float32",
    "--config.lora.rank=2",
    "--config.control.n_items=40",  # one word set of each kind
    "--config.control.n_other=8",
    "--config.control.mixture.ks=(2,3)",
    "--config.control.mixture.k_weights=(0.8,0.2)",
    "--config.control.mixture.shot_weights=(0.7,0.3)",
    "--config.control.mixture.heldout_weight=0.3",
    "--config.scoring.n_items=4",
    "--config.precision.n_items=4",
    "--config.residual.n_items=4",
    "--config.sad_like.n_pairs=1",
    "--config.sad_like.n_seeds=0",
    "--config.sad_like.n_shots=1",
    "--config.deviate.n_starts=1",
    "--config.n_boot=50",
    "--config.drift.n_prompts=7",
    "--config.drift.rulers=('int8_channel',)",
)


def environment() -> dict[str, str]:
    """The environment of a user with two devices."""
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "COLUMNS": "100"}
    return os.environ | two


def bare_environment() -> dict[str, str]:
    """One device, and the C library's own allocator, which gives back what is free.

    The Makefile's keeps it: then memory that was used once still counts, and "new" memory is fast.
    """
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    return plain | {"XLA_FLAGS": "", "GLIBC_TUNABLES": ""}  # set to nothing: programs keep it


def command(program: str, *flags: str) -> list[str]:
    return [sys.executable, "-m", f"launch.{program}", *flags]


def launch(program: str, *flags: str, timeout: int = 300) -> subprocess.CompletedProcess:
    """Runs a program to its end."""
    return subprocess.run(
        command(program, *flags),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def peak_memory(
    command: list[str], env: dict[str, str]
) -> tuple[subprocess.CompletedProcess, float]:
    """Runs a program; the most bytes of anonymous and shared memory it was seen to hold."""
    peak = 0.0
    with subprocess.Popen(
        command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        while True:
            peak = max(peak, held_mb(child.pid) or 0.0)
            with contextlib.suppress(subprocess.TimeoutExpired):
                out, err = child.communicate(timeout=0.02)
                break
    return subprocess.CompletedProcess(command, child.returncode, out, err), peak * 2**20


def refused(result: subprocess.CompletedProcess, *parts: str) -> None:
    """The program ended with one clear line that holds all `parts`."""
    assert result.returncode != 0
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in lines[0], lines[0]
