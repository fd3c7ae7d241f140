"""Small studies, one for each line of JSON that comes, whose changes of the disk may be watched.

    LD_PRELOAD=disk.so python -m tests.launch.watched_studies

What is slow and the same for all of them is done once. A study that takes minutes hangs: then the
process ends, with what each thread was doing on standard error.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from antiimit_jax.errors import UserError
from launch import interrupt
from tests.launch.small_runs import once, run_study, small_config
from tests.launch.watched import watched

_HANGS = 300.0  # seconds


def study(
    model: str, workdir: str, overwrite: str | None = None, seed: int = 0, **watching: Any
) -> str | None:
    """One study.

    Args:
      watching: how its changes of the disk are watched (`watched`).

    Returns:
      The line that a program would end with (`launch.cli.run`), or None.
    """
    config, folder = small_config(Path(model), seed=seed), Path(workdir)
    try:
        with watched(folder, **watching):
            run_study(config, folder, overwrite)
    except UserError as error:
        return f"{error}"
    except OSError as error:
        if error.errno is None:
            raise
        return f"{error.filename}: {error.strerror}"
    return None


def main() -> None:
    interrupt.raise_stopped(lambda stopped: os._exit(stopped.exit_code))
    dumps = os.fdopen(os.dup(2), "w")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryFile() as said:
        once(patch)
        os.dup2(said.fileno(), 2)
        for line in sys.stdin:
            faulthandler.dump_traceback_later(_HANGS, exit=True, file=dumps)
            error = study(**json.loads(line))
            faulthandler.cancel_dump_traceback_later()
            text = os.pread(2, 1 << 20, 0).decode()
            os.ftruncate(2, 0)
            os.lseek(2, 0, os.SEEK_SET)
            print(json.dumps({"error": error, "said": text}))


if __name__ == "__main__":
    main()
