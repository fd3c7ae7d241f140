"""Progress bars on standard error."""

import sys
import time

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
        passed = (time.monotonic() - self._began) / 60
        return f"{passed:.0f} of about {self._seconds / 60:.0f} min" if self._seconds else ""

    def close(self) -> None:
        """Ends all bars, so that what is said next has a line of its own."""
        while self._open:
            self._open.pop().close()


bar = Bars()
