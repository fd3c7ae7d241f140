"""The programs as installed commands: `aij-study` runs what `python -m launch.study` runs.

One function serves all of them. Which program it is, the name says under which it was started.
"""

import os
import runpy
import shlex
import shutil
import sys
from pathlib import Path

from launch.allocator import program_name


def main() -> None:
    runpy.run_module(f"launch.{program_name(sys.orig_argv)}", run_name="__main__", alter_sys=True)


def installed(program: str) -> str:
    """How a shell starts a program of this Python's: by its name if that is what a shell finds."""
    beside, found = Path(sys.executable).parent / program, shutil.which(program)
    if not beside.exists():
        return f"python -m launch.{program.removeprefix('aij-').replace('-', '_')}"
    return program if found == str(beside) else shlex.quote(os.path.relpath(beside))
