"""How programs ask glibc for memory: `allocator.env`, which the Makefile reads too.

XLA asks for and returns gigabytes at every step; keeping them and using huge pages saves a fifth of
the time on CPUs. Arenas of threads give memory back whatever they are told, and one for all makes
threads wait, so there are two. glibc reads these variables only when a process starts.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_LONG = ("study", "finetune", "evaluate", "benchmark", "sweep")
_COMMAND = "aij-"  # before a program's name where it is started as an installed command


def program_name(argv: Sequence[str]) -> str:
    """Of `python -m launch.NAME` or `aij-NAME`, as `sys.orig_argv` has them; else empty."""
    if "-m" in argv[:-1]:
        module = argv[argv.index("-m") + 1]
        return module.removeprefix("launch.") if module.startswith("launch.") else ""
    names = [Path(arg).name for arg in argv[1:2]]
    bare = (name.removeprefix(_COMMAND) for name in names if name.startswith(_COMMAND))
    return "".join(bare).replace("-", "_")


def settings() -> dict[str, str]:
    """Variable -> value."""
    lines = (Path(__file__).parent / "allocator.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines)


def settle(
    argv: Sequence[str] = tuple(sys.orig_argv),
    environ: Mapping[str, str] = os.environ,
    restart: Callable = os.execve,
) -> None:
    """Starts a long program again with these settings, where it runs without any of them.

    Who sets one of the variables, if to nothing, keeps what is set.
    """
    wanted, program = settings(), program_name(argv)
    if sys.platform == "linux" and program in _LONG and not wanted.keys() & environ.keys():
        restart(sys.executable, list(argv), dict(environ) | wanted)
