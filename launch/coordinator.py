"""Where the processes of one program meet: a process of its own beside process 0.

It outlives process 0 by long enough for the others to learn who died, which they could not where
JAX's service ended with it: each would abort at once with a stack of the compiler's.
"""

import signal
import sys
import time

from jaxlib import _jax

COMMAND = "import sys; from launch.coordinator import serve; serve(*sys.argv[1:])"  # python -c
_SOON = 2.0  # seconds for the others to take leave


def serve(address: str, processes: str, seconds: str) -> None:
    """Serves until process 0 says on the standard input that all is done, or is dead for a while.

    Args:
      address: HOST:PORT to listen on.
      seconds: in which a silent process counts as dead.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # process 0 says when
    limits = {"heartbeat_timeout": int(seconds), "shutdown_timeout": int(seconds)}
    service = _jax.get_distributed_runtime_service(
        address, int(processes), recoverable=True, **limits
    )
    print("ready", flush=True)
    time.sleep(_SOON if sys.stdin.read() else _SOON + 1.5 * float(seconds))
    service.shutdown()
