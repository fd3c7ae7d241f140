"""How the processes of one program find each other: by flags, or as TPU pods, Slurm or MPI tell."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
from absl import flags, logging
from jax._src import distributed  # the store of JAX's service, of which nothing is public
from jax._src.clusters import ClusterEnv  # nor of JAX's own look-ups

from antiimit_jax.errors import UserError, first_line
from launch import coordinator

FLAGS = flags.FLAGS
WHERE = ("coordinator", "processes", "process_id")  # flags
CLUSTERS = ("gcetpu", "gketpu", "slurm", "ompi")  # as JAX calls those that it may look up
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
MEET_S = 60  # in which all processes must come
SILENT_S = 60  # after which a silent process counts as dead


class Place(NamedTuple):
    """Where a process stands among those of its program."""

    address: str  # HOST:PORT, where they meet
    processes: int
    number: int
    devices: list[int] | None = None  # of its host, those that it may use; None for all

    def check(self) -> None:
        """Raises UserError where there can be no such place."""
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise UserError(f"--coordinator={self.address}: give HOST:PORT of process 0")
        if not 0 <= self.number < self.processes:
            raise UserError(
                f"--process_id={self.number} of --processes={self.processes}: they count from 0"
            )


def define_where() -> None:
    """--coordinator, --processes and --process_id."""
    said = "HOST:PORT of process 0, where several hosts run this; TPU pods, Slurm and MPI tell."
    flags.DEFINE_string("coordinator", None, said)
    flags.DEFINE_integer(
        "processes", None, "How many processes run this program; 1: it is alone.", lower_bound=1
    )
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", lower_bound=0)


def own_place() -> Place | None:
    """Where this process stands; None where it is alone.

    Raises:
      UserError: a part of it was not given, or cannot be.
    """
    given = [FLAGS[name].value for name in WHERE if name in FLAGS]
    if given == [None, 1, None]:  # alone, whatever a cluster tells
        return None
    if any(value is not None for value in given):
        if None in given:
            raise UserError(f"give --{', --'.join(WHERE)} together, or none of them")
        Place(*given).check()
        return Place(*given)
    for cluster in ClusterEnv._cluster_types if given else ():
        if cluster.name in CLUSTERS and _started_several(cluster):
            return _place_in(cluster)
    return None


def _started_several(cluster: type[ClusterEnv]) -> bool:
    try:
        return cluster.is_env_present() and cluster.get_process_count() > 1
    except Exception as error:  # of any type: a TPU outside of Google's cloud has nobody to ask
        logging.warning("%s tells of no other hosts (%s)", cluster.name, first_line(error))
        return False


def _place_in(cluster: type[ClusterEnv]) -> Place:
    port, local = os.environ.get("JAX_COORDINATOR_PORT"), cluster.get_local_process_id()
    address = cluster.get_coordinator_address(MEET_S, port)
    devices = None if local is None else [local]
    return Place(address, cluster.get_process_count(), cluster.get_process_id(), devices)


def meet_others(place: Place, late: Callable[[str], None]) -> subprocess.Popen | None:
    """Joins this process's JAX to that of the others; the service where it is the first.

    Args:
      late: called with a line in another thread, and ends the process, where they do not all come.

    Raises:
      UserError: the first cannot open the place where they meet.
    """
    jax.config.update("jax_enable_recoverability", True)  # we say who died, and end by ourselves
    with _limited(place, late):
        service = _open(place) if place.number == 0 else None
        while not _joined(place):
            try:
                jax.distributed.shutdown()
            except jax.errors.JaxRuntimeError:  # the service is gone
                distributed.global_state.client = None
            while _answers(place.address):
                time.sleep(0.1)
    if service:
        service.stdin.write(coordinator.JOINED)
        service.stdin.flush()
    return service


def _joined(place: Place) -> bool:
    """Joins the service; whether it is not that of a program before, which tells of its end."""
    while not _answers(place.address):
        time.sleep(0.1)
    jax.distributed.initialize(
        place.address,
        place.processes,
        place.number,
        local_device_ids=place.devices,
        cluster_detection_method="deactivate",
        coordinator_bind_address="127.0.0.1:0",  # a second service, which nobody calls
        initialization_timeout=10 * MEET_S,  # it would abort; `late` comes before
        heartbeat_timeout_seconds=SILENT_S,
        shutdown_timeout_seconds=SILENT_S,
    )
    try:
        return not distributed.global_state.client.key_value_dir_get(coordinator.ENDS)
    except jax.errors.JaxRuntimeError:  # it just went
        return False


def _open(place: Place) -> subprocess.Popen:
    host, _, port = place.address.rpartition(":")
    listens = host if host in _LOOPBACK else "[::]"
    limit = time.monotonic() + MEET_S / 2  # that of a program before may be ending
    while (taken := _answers(f"127.0.0.1:{port}")) and time.monotonic() < limit:
        time.sleep(0.1)
    if taken:
        raise UserError(f"--coordinator={place.address}: the port is in use; name another")
    argv = [sys.executable, "-c", coordinator.COMMAND]
    argv += [f"{listens}:{port}", str(place.processes), str(SILENT_S)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    service = subprocess.Popen(argv, text=True, start_new_session=True, **pipes)
    if service.stdout.readline() != "ready\n":
        raise UserError(f"--coordinator={place.address}: cannot be opened here; name another port")
    return service


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _limited(place: Place, late: Callable[[str], None]) -> Iterator[None]:
    """Ends the process with a line where what runs inside, which nothing stops, takes too long."""

    def tell() -> None:
        came = f"not all of {place.processes} processes came"
        what = came if _answers(place.address) else "cannot be reached"
        late(f"--coordinator={place.address}: {what} within {MEET_S} s; start all of them")

    timer = threading.Timer(MEET_S, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
