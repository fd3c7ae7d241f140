"""Ctrl-C and termination end every program with one true line and exit code 130 (143).

Python tells the main thread of a signal when that comes back from compiled code; compiling may keep
it there for minutes. So a second thread learns of the signal through the pipe that Python's own
handler writes to, and ends the process where the main thread does not come to its end soon.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from launch.allocator import program_name

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE_S = 3.0  # in which the main thread may remove what is half written


class Stopped(KeyboardInterrupt):
    """A signal told the program to stop."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def before_imports() -> None:
    """While a program still imports its modules, a signal ends it at once."""
    program = program_name(sys.orig_argv)
    if program and not program.endswith(".worker"):
        for number in SIGNALS:
            signal.signal(number, _end_at_once)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped; nothing was written\n")
    os._exit(128 + number)


def raise_stopped(end: Callable[[Stopped], None]) -> None:
    """From now on a signal raises `Stopped` in the main thread.

    Args:
      end: says what is to say and ends the process. It is called in another thread where the
        process still runs some seconds later.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)

    def watch() -> None:
        number = os.read(heard, 1)[0]
        time.sleep(_GRACE_S)
        end(Stopped(number))

    def handle(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:  # a second one would interrupt the end that the first one brings
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    threading.Thread(target=watch, daemon=True).start()
    # An exception in a finalizer or a foreign callback is lost; then the thread above ends it.
    show = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if lost.exc_type is Stopped else show(lost)
    for number in SIGNALS:
        signal.signal(number, handle)
    signal.set_wakeup_fd(told)
