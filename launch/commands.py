"""The programs as installed commands: `aij-study` runs what `python -m launch.study` runs.

One function serves all of them. Which program it is, the name says under which it was started.
"""

import runpy
import sys

from launch.allocator import program_name


def main() -> None:
    runpy.run_module(f"launch.{program_name(sys.orig_argv)}", run_name="__main__", alter_sys=True)
