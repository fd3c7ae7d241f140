"""Chat templates, which are foreign code: rendered by transformers in a process that can be ended.

Jinja's sandbox keeps a template from files and attributes, not from looping or from filling the
memory. So one process with limits (`template_child`) renders for the whole program. It is started
while a tokenizer loads and answers in well under a millisecond.
"""

import contextlib
import datetime
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from antiimit_jax.errors import UserError

WALL_SECONDS = 4.0  # for one rendering; beyond it the process is ended
START_SECONDS = 60.0
PROMPT_DATE = "2026-01-01"  # all the time that a template sees, where nothing else is said
_CHILD = Path(__file__).with_name("template_child.py")


def is_date(text: str) -> bool:
    """Whether a text is a date as 2026-01-31."""
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


class TemplateRenderer:
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
                command, pipe = [sys.executable, "-P", str(_CHILD)], subprocess.PIPE
                env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
                env |= {"PYTHONHASHSEED": "0", "TZ": "UTC"}
                self._child = subprocess.Popen(
                    command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=env
                )

    def render(
        self,
        template: str,
        messages: list[dict[str, str]],
        *,
        date: str = PROMPT_DATE,
        **options: Any,
    ) -> str:
        """The text of a chat.

        Args:
          date: what `strftime_now` tells, and `date_string` as Llama's templates write it.
          options: `continue_final_message`, `add_generation_prompt`, names of special tokens, and
            whatever else the template may ask for.

        Raises:
          UserError: the template refuses the messages, or takes too long or too much.
        """
        options = {"date_string": f"{datetime.date.fromisoformat(date):%d %b %Y}"} | options
        asked = {"template": template, "messages": messages, "date": date, "options": options}
        request = json.dumps(asked)
        with self._lock:
            self.start()
            if not self._ready and self._receive(START_SECONDS) is None:
                raise UserError("the process that renders chat templates does not start")
            self._ready = True
            with contextlib.suppress(BrokenPipeError):  # told below, as an ended process
                self._child.stdin.write(request.encode() + b"\n")
                self._child.stdin.flush()
            reply = self._receive(WALL_SECONDS)
        if reply is None:
            raise UserError("the chat template takes too long or too much memory: it was stopped")
        if "error" in reply:
            raise UserError(f"the chat template refuses these messages: {reply['error']}")
        return reply["text"]

    def stop(self) -> None:
        """Ends the process and closes its pipes; the next rendering starts another."""
        if self._child is not None:
            self._child.kill()
            with contextlib.suppress(BrokenPipeError), self._child:
                pass
        self._child, self._ready = None, False

    def _receive(self, seconds: float) -> dict[str, str] | None:
        """The next answer, or None: none in time, or the process has ended."""
        out = self._child.stdout
        if select.select([out], [], [], seconds)[0] and (line := out.readline()):
            return json.loads(line)
        self.stop()
        return None


RENDERER = TemplateRenderer()
