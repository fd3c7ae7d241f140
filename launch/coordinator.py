"""Where the processes of one program meet: a process of its own beside process 0.

It outlives process 0 by long enough to tell the others of its death, which they could not learn
where JAX's service ended with it: each would abort at once with a stack of the compiler's.
"""

import contextlib
import json
import signal
import sys
import time

import jax
from jaxlib import _jax

COMMAND = "import sys; from launch.coordinator import serve; serve(*sys.argv[1:])"  # python -c
JOINED, DONE = "joined;", "done;"  # what process 0 says on the standard input
ENDED, PARTED = "antiimit_jax/ended", "antiimit_jax/parted/"  # keys of the service's store
PART_S = 20  # in which the others part from the service, where the program ends
KILLED = "ended without a word: it was killed, or its host is gone"
_SOON = 2.0  # seconds for the others to take leave


def serve(address: str, processes: str, seconds: str) -> None:
    """Serves until process 0 says that all is done, or is dead.

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
    said = sys.stdin.read()
    if said == JOINED:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            _tell_of_death(address.rpartition(":")[2], int(processes))
    else:  # who never joined left others waiting for all to come
        time.sleep(_SOON if said.endswith(DONE) else _SOON + 1.5 * float(seconds))
    service.shutdown()


def _tell_of_death(port: str, processes: int) -> None:
    """Says in the place of process 0 that it is dead, and lets the others take leave."""
    client = _jax.get_distributed_runtime_client(
        f"127.0.0.1:{port}", 0, init_timeout=PART_S, shutdown_on_destruction=False
    )
    client.connect()
    client.key_value_set(ENDED, json.dumps({"process": 0, "code": 2, "why": KILLED}))
    limit = time.monotonic() + PART_S
    while len(client.key_value_dir_get(PARTED)) < processes - 1 and time.monotonic() < limit:
        time.sleep(0.1)
    time.sleep(_SOON)
