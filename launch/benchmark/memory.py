"""Memory of processes and of the machine, as Linux tells it."""

import threading
from pathlib import Path

_LOOK_EVERY_S = 0.02


def held_mb(pid: int | str) -> float | None:
    """Anonymous plus shared memory of a process in MiB, without pages of mapped files.

    None where the system has no /proc or the process is gone.
    """
    return _mib(f"/proc/{pid}/status", ("RssAnon:", "RssShmem:"))


def available_mb() -> float:
    """MiB that can still be had; infinity where the system does not say."""
    return _mib("/proc/meminfo", ("MemAvailable:",)) or float("inf")


def _mib(file: str, keys: tuple[str, ...]) -> float | None:
    try:
        lines = Path(file).read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) / 1024 for line in lines if line.startswith(keys)]
    return sum(found) if found else None


class MemoryWatch:
    """The most that a process has held since it began, looked at every 20 ms."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self.peak_mb: float | None = None  # None where the system does not say
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            if (held := held_mb(self._pid)) is not None:
                self.peak_mb = max(self.peak_mb or 0.0, held)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
