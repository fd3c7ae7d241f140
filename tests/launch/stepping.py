"""A program that steps until it is told to stop: `python -m tests.launch.stepping --folder=F`.

Each process writes in F the step at which it left.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import jax
from absl import flags

from launch import cli, hosts, meeting


def main() -> None:
    folder = Path(cli.FLAGS.folder)
    with hosts.held() as leaving:
        for step in itertools.count():
            (folder / f"{jax.process_index()}").write_text(str(step))
            if leaving():
                break
    raise AssertionError("not reached")


if __name__ == "__main__":
    meeting.define_where()
    flags.DEFINE_string("folder", None, "Where the steps are written.")
    cli.run(main, lambda: "kept")
