"""Progress bars on standard error, and what is said above them."""

import io
import logging
import sys
import time

from absl.logging import get_absl_handler
from tqdm import tqdm

from antiimit_jax.errors import printable
from antiimit_jax.evaluation.progress import Done


class Bars:
    """Progress bars with an estimate of what is left, of the part and of the whole program."""

    def __init__(self) -> None:
        self._open: list[tqdm] = []
        self._began = self._seconds = 0.0

    def expect(self, seconds: float) -> None:
        """From now on bars show how much has passed of what the whole program takes."""
        self._began, self._seconds = time.monotonic(), seconds

    def __call__(self, what: str, total: int) -> Done:
        """A bar; call the result with what is done."""
        how = dict(file=sys.stderr, mininterval=0.5, dynamic_ncols=True)
        shown = tqdm(total=total, desc=printable(what), **how)
        self._open.append(shown)

        def done(count: int, said: str = "") -> None:
            shown.set_postfix_str("; ".join(filter(None, (said, self._whole()))), refresh=False)
            shown.update(count)
            if shown.n >= shown.total:
                shown.close()

        return done

    def _whole(self) -> str:
        if not self._seconds:
            return ""
        number, unit = scaled(self._seconds)
        passed = (time.monotonic() - self._began) * number / self._seconds
        return f"{passed:.0f} of about {number:.0f} {unit[:3]}"

    def close(self) -> None:
        """Ends all bars, so that what is said next has a line of its own."""
        while self._open:
            self._open.pop().close()


def scaled(seconds: float) -> tuple[float, str]:
    """A time in the unit that people would give it in."""
    return (seconds / 60, "minutes") if seconds >= 90 else (seconds, "seconds")


class _Above(io.TextIOBase):
    """Standard error for whole lines, which do not begin behind an open bar."""

    def write(self, text: str) -> int:
        for line in text.splitlines():
            say(line)
        return len(text)


def say(text: str) -> None:
    """A line on standard error, above any progress bar."""
    tqdm.write(printable(text), file=sys.stderr)


def warn_above() -> None:
    """From now on warnings, and what libraries log to standard error, are said above the bars."""
    logging.captureWarnings(True)
    loggers = [logging.root, *map(logging.getLogger, logging.root.manager.loggerDict)]
    handlers = {handler for logger in loggers for handler in logger.handlers}
    for handler in {*handlers, get_absl_handler().python_handler}:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
            handler.setStream(_Above())


bar = Bars()
