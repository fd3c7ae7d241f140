"""Running the programs as a user does: real processes with few, small settings.

`launch` forks each program from a process that holds what all of them import, which takes longer
than most of them; `command` is for tests that need a process of their own from its start.
"""

from __future__ import annotations

import ast
import contextlib
import multiprocessing
import os
import runpy
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from launch.benchmark.memory import held_mb
from launch.interrupt import before_imports

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
    "--config.ladder.rungs=('L6',)",
    "--config.ladder.n_sets=1",
    "--config.sad_like.n_pairs=1",
    "--config.sad_like.n_seeds=0",
    "--config.sad_like.n_shots=1",
    "--config.deviate.n_starts=1",
    "--config.deviate.n_drawn=1",
    "--config.introspection.n_texts=1",
    "--config.introspection.n_other=1",
    "--config.n_boot=50",
    "--config.drift.n_prompts=7",
    "--config.drift.n_continued=1",
    "--config.drift.continued_tokens=4",
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


def trained_as_documented(program: str, **given: Path) -> subprocess.CompletedProcess:
    """One small step of the training that a program's docstring shows, with files in their place.

    Args:
      given: what stands there as items=FILE, model=M and so on.
    """
    source = (ROOT / "launch" / f"{program}.py").read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(source)).replace("\\\n", " ")
    (line,) = (line for line in text.splitlines() if "launch.finetune" in line)
    flags = shlex.split(line.partition("launch.finetune")[2])
    names = [flag.partition("=")[0].removeprefix("--") for flag in flags]
    assert given.keys() <= set(names), line
    flags = [f"--{n}={given[n]}" if n in given else flag for n, flag in zip(names, flags)]
    small = dict.fromkeys(("steps", "groups", "rows", "accumulate"), 1)
    small |= {"anchor_tokens": 0, "eval_every": 0}
    return launch(
        "finetune", *flags, *(f"--config.train.{name}={value}" for name, value in small.items())
    )


def launch(program: str, *flags: str, timeout: int = 300) -> subprocess.CompletedProcess:
    """Runs a program to its end."""
    argv = [f"launch.{program}", *flags]
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdout", "stderr")]
        child = forked(argv, streams)
        child.join(timeout)
        if child.exitcode is None:
            child.kill()
            raise subprocess.TimeoutExpired(argv, timeout)
        said = [stream.read_text(encoding="utf-8") for stream in streams]
    return subprocess.CompletedProcess(argv, child.exitcode, *said)


def forked(argv: Sequence[str], streams: Sequence[Path], **environ: str) -> multiprocessing.Process:
    """Starts a program, `launch.NAME` and its flags, that writes to files as stdout and stderr."""
    child = _FORKS.Process(target=_run_module, args=(argv, environment() | environ, streams))
    child.start()
    return child


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["launch.workdir"])


def _run_module(argv: Sequence[str], env: Mapping[str, str], streams: Sequence[Path]) -> None:
    """What `python -m` does with a module and its flags, in a process of its own."""
    for number, stream in enumerate(streams, 1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = list(argv)
    before_imports([sys.executable, "-m", *argv])
    runpy.run_module(argv[0], run_name="__main__", alter_sys=True)


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
