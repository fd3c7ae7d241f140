"""A process with limits, for chat templates and tokenizers: what others wrote runs there.

Jinja's sandbox keeps a template from files and attributes, not from looping or from filling the
memory; a tokenizer's file can make its library do the same, or abort. So one process
(`limited_child`) works for the whole program. It is started while a model loads and answers in well
under a millisecond.
"""

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from antiimit_jax.errors import UserError

WALL_SECONDS = 20.0  # for one answer: a busy machine is slow; the child counts processor time
START_SECONDS = 60.0
_MORE_SECONDS = 2.0
_ROOT = Path(__file__).parents[2]


class LimitedProcess:
    """One child process; started again after it had to be ended."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._child: subprocess.Popen | None = None
        self._ready = False

    def start(self) -> None:
        """Starts the process, if none runs, without waiting for it."""
        with self._lock:
            if self._child is None or self._child.poll() is not None:
                self.stop()
                command = [sys.executable, "-P", "-m", "antiimit_jax.text.limited_child"]
                env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
                env |= {"PYTHONHASHSEED": "0", "TZ": "UTC", "TOKENIZERS_PARALLELISM": "false"}
                env["PYTHONPATH"] = os.pathsep.join([str(_ROOT), env.get("PYTHONPATH", "")])
                pipe, null = subprocess.PIPE, subprocess.DEVNULL
                self._child = subprocess.Popen(
                    command, stdin=pipe, stdout=pipe, stderr=null, env=env
                )

    def ask(
        self, request: dict[str, Any], what: str, seconds: float = WALL_SECONDS
    ) -> dict[str, Any]:
        """The answer to a request that `limited_child` knows.

        Args:
          what: is named where the process had to be ended.
          seconds: by the clock; the child is held to its processor time as well.

        Raises:
          UserError: there is no answer within its limits.
        """
        line = json.dumps(request).encode() + b"\n"
        with self._lock:
            self.start()
            if not self._ready and self._receive(START_SECONDS) is None:
                raise UserError("the process for chat templates and tokenizers does not start")
            self._ready = True
            with contextlib.suppress(BrokenPipeError):  # told below, as an ended process
                self._child.stdin.write(line)
                self._child.stdin.flush()
            reply = self._receive(seconds)
        if reply is None:
            raise UserError(f"{what} takes too long or too much memory: it was stopped")
        return reply

    def stop(self) -> None:
        """Ends the process and closes its pipes; the next request starts another."""
        if self._child is not None:
            self._child.kill()
            with contextlib.suppress(BrokenPipeError), self._child:
                pass
        self._child, self._ready = None, False

    def _receive(self, seconds: float) -> dict[str, Any] | None:
        """The next answer, or None: none in time, or the process has ended."""
        out = self._child.stdout
        comes = lambda within: select.select([out], [], [], within)[0]
        # A machine that stood still has let the time pass without the child: a moment more.
        if (comes(seconds) or comes(_MORE_SECONDS)) and (line := out.readline()):
            return json.loads(line)
        self.stop()
        return None


PROCESS = LimitedProcess()
atexit.register(PROCESS.stop)
