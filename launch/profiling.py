"""--profile: a JAX trace of some beats of every long part, which TensorBoard's profiler opens.

A beat is a training step or a batch of an evaluation, told to a progress bar. The first ones, which
compile, are left out. What took the time, by operation, is said at the end of each trace.
"""

import collections
import re
from collections.abc import Callable
from pathlib import Path

import jax

from antiimit_jax.evaluation.progress import Done, Progress

_FIRST, _LAST = 3, 7  # beats: a trace begins behind the first and ends with the last
_SHOWN = 6


class Profiled:
    """A `Progress` that traces as it tells."""

    def __init__(self, progress: Progress, folder: Path, tell: Callable[[str], None]) -> None:
        """Args: folder: TensorBoard's; the traces lie in plugins/profile below it."""
        self._progress, self._folder, self._tell = progress, folder, tell
        self._tracing = ""  # what is traced now

    def __call__(self, what: str, total: int) -> Done:
        self.stop()  # a part that had fewer beats
        done, beats = self._progress(what, total), 0

        def beat(count: int, how: str = "") -> None:
            nonlocal beats
            done(count, how)
            beats += 1
            if beats == _FIRST:
                self._start(what)
            elif beats == _LAST and self._tracing == what:
                self.stop()

        return beat

    def _start(self, what: str) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        jax.profiler.start_trace(self._folder, profiler_options=options)
        self._tracing = what

    def stop(self) -> None:
        """Ends the trace, if one is being taken, and says what it holds."""
        if not self._tracing:
            return
        what, self._tracing = self._tracing, ""
        jax.profiler.stop_trace()
        traces = self._folder.glob("plugins/profile/*/*.xplane.pb")
        newest = max(traces, key=lambda file: file.stat().st_mtime)
        shares = [f"{name} {share:.0%}" for name, share in time_by_operation(newest).items()]
        if shares:
            top = ", ".join(shares[:_SHOWN])
            self._tell(f"{what}: {top} of the time ({newest.parent})")


def time_by_operation(trace: Path) -> dict[str, float]:
    """Shares of the time of XLA operations in a trace by kind ("dot", "fusion"), greatest first."""
    times: dict[str, float] = collections.defaultdict(float)
    for plane in jax.profiler.ProfileData.from_file(str(trace)).planes:
        for line in plane.lines:
            for event in line.events:
                if any(name == "hlo_op" for name, _ in event.stats):
                    times[kind(event.name)] += event.duration_ns
    total = sum(times.values()) or 1.0
    return {name: t / total for name, t in sorted(times.items(), key=lambda row: -row[1])}


def kind(operation: str) -> str:
    """ "loop_add_fusion.12.clone" -> "loop_add_fusion"."""
    return re.sub(r"(\.(\d+|clone|remat\d*))+$", "", operation)
