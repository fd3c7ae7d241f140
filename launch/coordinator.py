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
ENDS = "antiimit_jax/end/"  # keys of the service's store that tell of an end
ENDED, OVER = f"{ENDS}ended", f"{ENDS}over"  # what a process ended with; that all is over
PARTED = "antiimit_jax/parted/"  # the processes that need the service no more
PART_S = 20  # in which they part, where the program ends
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
    if said.endswith(DONE):
        time.sleep(_SOON)
    elif said != JOINED or not _told_of_death(address, int(processes)):
        time.sleep(_SOON + 1.5 * float(seconds))  # till the others have ended by themselves
    service.shutdown()


def _told_of_death(address: str, processes: int) -> bool:
    """Says in the place of process 0 that it is dead, and lets the others take leave."""
    how = {"shutdown_on_destruction": False, "missed_heartbeat_callback": lambda *why: None}
    client = _jax.get_distributed_runtime_client(
        address.replace("[::]", "127.0.0.1"), 0, init_timeout=PART_S, **how
    )
    try:
        client.connect()
    except jax.errors.JaxRuntimeError:
        return False
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # it is known what another ended with
        client.key_value_set(ENDED, json.dumps({"process": 0, "code": 2, "why": KILLED}))
    limit = time.monotonic() + PART_S
    while len(client.key_value_dir_get(PARTED)) < processes - 1 and time.monotonic() < limit:
        time.sleep(0.1)
    time.sleep(_SOON)
    return True
