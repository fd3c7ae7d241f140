"""`python -m tests.launch.impatient NAME FLAGS`: the program launch.NAME with short time-outs."""

from __future__ import annotations

import os
import runpy
import sys

from launch import meeting

SILENT_S, MEET_S = 10, int(os.environ.get("MEET_S", "60"))

if __name__ == "__main__":
    meeting.SILENT_S, meeting.MEET_S = SILENT_S, MEET_S
    runpy.run_module(f"launch.{sys.argv.pop(1)}", run_name="__main__", alter_sys=True)
