"""Ctrl-C and termination end every program with one true line, and exit code 130 or 33.

A machine that is taken away sends SIGTERM first. Code 33 says that this is what ended the program:
a supervisor starts the same command again, which goes on. Nothing else ends with that code.

Python tells the main thread of a signal when that comes back from compiled code; compiling may keep
it there for minutes. So a second thread learns of the signal through the pipe that Python's own
handler writes to, and ends the process where the main thread does not come to its end soon.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from launch.allocator import program_name

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TERMINATED = 33  # exit code after SIGTERM, which means: start the same command again
_GRACE_S = 3.0  # in which the main thread may remove what is half written
_HELD_S = 25.0  # in which it may end a step and save; clouds take a machine away 30 s after SIGTERM


class Stopped(KeyboardInterrupt):
    """A signal told the program to stop."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def exit_code(self) -> int:
        """What the process ends with."""
        return TERMINATED if self.number == signal.SIGTERM else 128 + self.number


class _Hold:
    """Whether SIGTERM is held back, and what was told meanwhile."""

    on = False
    told: Stopped | None = None


_hold = _Hold()


@contextlib.contextmanager
def held() -> Iterator[Callable[[], bool]]:
    """Holds SIGTERM back until the block ends; gives a function that says whether one has come.

    Raises:
      Stopped: at the end of the block, where one has.
    """
    _hold.on = True
    try:
        yield lambda: _hold.told is not None
    finally:
        _hold.on = False
    if _hold.told:
        raise _hold.told


def before_imports(argv: Sequence[str] = tuple(sys.orig_argv)) -> None:
    """While a program still imports its modules, a signal ends it at once."""
    program = program_name(argv)
    if program and not program.endswith(".worker"):
        for number in SIGNALS:
            signal.signal(number, _end_at_once)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped; nothing was written\n")
    os._exit(Stopped(number).exit_code)


def raise_stopped(end: Callable[[Stopped], None]) -> None:
    """From now on a signal raises `Stopped` in the main thread.

    Args:
      end: says what is to say and ends the process. It is called in another thread where the
        process still runs some seconds later, or where SIGTERM is the second signal.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)

    def watch() -> None:
        number = os.read(heard, 1)[0]
        left = _HELD_S if _hold.on and number == signal.SIGTERM else _GRACE_S
        limit = time.monotonic() + left
        while select.select([heard], [], [], max(limit - time.monotonic(), 0))[0]:
            if os.read(heard, 1)[0] == signal.SIGTERM:
                break
        end(Stopped(number))

    def handle(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:  # a second one would interrupt the end that the first one brings
            signal.signal(each, lambda number, frame: None)  # but the thread above hears of it
        stopped = Stopped(number)
        if not (_hold.on and number == signal.SIGTERM):
            raise stopped
        _hold.told = stopped

    threading.Thread(target=watch, daemon=True).start()
    # An exception in a finalizer or a foreign callback is lost; then the thread above ends it.
    # Orbax's threads still call loops that an error, which it raises as well, has closed.
    show = sys.unraisablehook
    closed = RuntimeError, "Event loop is closed"
    known = lambda lost: lost.exc_type is Stopped or (lost.exc_type, str(lost.exc_value)) == closed
    sys.unraisablehook = lambda lost: None if known(lost) else show(lost)
    for number in SIGNALS:
        signal.signal(number, handle)
    signal.set_wakeup_fd(told)
