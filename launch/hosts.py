"""One program on several hosts, a process on each: how they agree and end together.

All processes run the same program on the same data and so take the same decisions. Process 0 alone
keeps and tells what is found (`parallel.keeps`); the others work in private copies of its run's
folder and say only why they end. What one process ends with, all end with: it tells the others. Of
one that dies without a word they learn by its heartbeat, of process 0 by the service beside it.
"""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO

import jax
from absl import flags
from jax._src import distributed  # the store of JAX's service, of which nothing is public

from antiimit_jax import parallel
from antiimit_jax.errors import UserError, first_line
from antiimit_jax.reporting.identity import differing
from antiimit_jax.trees import flat
from launch import interrupt, meeting
from launch.coordinator import DONE, ENDED, KILLED, OVER, PART_S, PARTED

FLAGS = flags.FLAGS
_MAY_DIFFER = (*meeting.WHERE, "workdir", "config")  # flags; of the configuration its fields count
_FOREVER_MS = 10 * 24 * 3600 * 1000  # who waits is ended by what is heard of the others

Heard = Callable[[int, int, str], None]  # (process, exit code, why): what another ended with


class _Joined:
    """What this process knows of the others, once it has joined them."""

    place: meeting.Place | None = None
    service: subprocess.Popen | None = None  # of the first
    stderr: TextIO = sys.stderr  # for the line that this process ends with
    private: Path | None = None  # the copy of a run's folder
    turn = itertools.count()
    dead = 0  # processes
    agreed = False  # that all end now, each by itself
    ending = threading.Lock()
    left = threading.Event()  # this process needs to hear no more
    listeners: list[threading.Thread] = []


_joined = _Joined()


def several() -> bool:
    """Whether this process has joined others."""
    return _joined.place is not None


@contextlib.contextmanager
def among_others(heard: Heard) -> Iterator[None]:
    """A block in which this process has joined the others, where there are any.

    Args:
      heard: called in another thread when one of the others has ended: says so by `end_with`.

    Raises:
      UserError: the flags name no such place, or the others run another program.
    """
    if (place := meeting.own_place()) is not None:
        _join(place, heard)
    try:
        yield
    except SystemExit:  # with a code of its own, on all of them
        leave()
        raise
    leave()


def _join(place: meeting.Place, heard: Heard) -> None:
    _joined.stderr = _only_ours(2)
    late = lambda line: _gone(f"error: {line}", 2)
    try:
        _joined.service = meeting.meet_others(place, late)
    finally:
        os.dup2(_joined.stderr.fileno(), 2)
    _joined.place, sys.stdout = place, _only_ours(1)
    if not parallel.keeps():
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # until the process ends
    for listen in (_hear_ended, _hear_dead):
        thread = threading.Thread(target=listen, args=(heard,), daemon=True)
        thread.start()
        _joined.listeners.append(thread)
    given = FLAGS.get_key_flags_for_module(sys.argv[0])
    same = {flag.name: flag.value for flag in given if flag.name not in _MAY_DIFFER}
    agree({"program": Path(sys.argv[0]).stem, "flag": same})


def _only_ours(number: int) -> TextIO:
    """A stream that goes where that descriptor went; what libraries write there goes nowhere.

    They tell of each connection that they make, on the standard output too.
    """
    ours = os.fdopen(os.dup(number), "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, number)
    os.close(nothing)
    return ours


def _hear_ended(heard: Heard) -> None:
    own = _joined.place.number
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # cancelled when this one takes leave
        told = json.loads(_client().blocking_key_value_get(ENDED, _FOREVER_MS))
        if told["process"] != own:
            heard(told["process"], told["code"], told["why"])


def _hear_dead(heard: Heard) -> None:
    client, everyone = _client(), set(range(_joined.place.processes))
    try:
        while several() and not (dead := everyone - client.get_live_nodes(list(everyone)).keys()):
            _joined.left.wait(1)
    except jax.errors.JaxRuntimeError:
        dead = {0}  # whose host holds the service
    if several():
        _joined.dead = len(dead)
        heard(min(dead), 2, KILLED)


def _client() -> Any:
    return distributed.global_state.client


def exchange(said: str, limit_ms: int = _FOREVER_MS) -> list[str]:
    """What each process says here, in their order; all come here equally often."""
    if not several():
        return [said]
    client, number = _client(), next(_joined.turn)
    turn = f"antiimit_jax/{number}"
    client.key_value_set(f"{turn}/{_joined.place.number:06}", said)
    client.wait_at_barrier(turn, limit_ms)
    if number and parallel.keeps():
        client.key_value_delete(f"antiimit_jax/{number - 1}/")  # all have read it
    return [text for _, text in sorted(client.key_value_dir_get(f"{turn}/"))]


def agree(what: Mapping[str, Any]) -> None:
    """Raises UserError on all processes where what they hold differs, with what does."""
    held = [json.loads(text) for text in exchange(json.dumps(what, sort_keys=True, default=str))]
    for number, other in enumerate(held):
        if names := differing(held[0], other):
            first, this = flat(held[0]), flat(other)
            shown = [
                f"{name} (process 0: {str(first.get(name))[:40]}, "
                f"process {number}: {str(this.get(name))[:40]})"
                for name in names[:4]
            ]
            _end_each()
            raise UserError(f"the processes differ: {', '.join(shown)}; start the same everywhere")


@contextlib.contextmanager
def held() -> Iterator[Callable[[], bool]]:
    """`interrupt.held` of all processes: when one was told to stop, all leave at the same step."""
    left = False

    def leaving() -> bool:
        nonlocal left
        left = "stop" in exchange("stop" if told() else "go on")
        return left

    with interrupt.held() as told:
        yield leaving
        if left:
            exchange("saved")
            _end_each()
    if left:
        raise interrupt.Stopped(signal.SIGTERM)


def use_copy(folder: Path | None) -> None:
    """Names the copy of a run's folder that goes when this process does."""
    _joined.private = folder


def leave() -> None:
    """Takes leave of the others, when all of them are done."""
    if not several():
        return
    exchange("done")
    _end_each()
    _part()
    _joined.place = None
    _joined.left.set()
    jax.distributed.shutdown()
    for listener in _joined.listeners:  # one that still waits in JAX would abort the interpreter
        listener.join(PART_S)
    _let_go()


def end(code: int, why: str, said: str) -> None:
    """Says a process's last line; where there are others it ends this one, and tells them why."""
    if not several():
        print(said, file=sys.stderr, flush=True)
        return
    if not _joined.ending.acquire(blocking=False):
        signal.pause()  # what another ended with is being said
    told = {"process": _joined.place.number, "code": code, "why": why}
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another was first
        _client().key_value_set(ENDED, json.dumps(told))
    _gone(said, code)


def end_with(code: int, said: str) -> None:
    """Ends this process because another has ended, unless it is ending by itself."""
    if not _joined.agreed and _joined.ending.acquire(blocking=False):
        _gone(said, code)


def _gone(said: str, code: int) -> NoReturn:
    try:
        with contextlib.suppress(OSError, ValueError):  # who read it may be gone
            print(said, file=_joined.stderr, flush=True)
            sys.stdout.flush()
        if _joined.private:
            shutil.rmtree(_joined.private, ignore_errors=True)
        if several():  # else the others still wait at the service for those who do not come
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                _part()
            _let_go()
    finally:
        os._exit(code)


def _part() -> None:
    """Tells the first process that this one needs the service no more.

    The first waits for all; then who comes to the service is of another program.
    """
    client, limit = _client(), time.monotonic() + PART_S
    client.key_value_set(f"{PARTED}{_joined.place.number}", "")
    parted = lambda: len(client.key_value_dir_get(PARTED)) + _joined.dead
    while _joined.service and parted() < _joined.place.processes and time.monotonic() < limit:
        time.sleep(0.1)
    if _joined.service:
        client.key_value_set(OVER, "")


def _let_go() -> None:
    if _joined.service:
        with contextlib.suppress(OSError):  # it has ended
            _joined.service.stdin.write(DONE)
            _joined.service.stdin.close()


def _end_each() -> None:
    """Each process ends by itself now, and what it hears of the others' ends is no news."""
    _joined.agreed = True
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # one of them ended before it came here
        exchange("agreed", 1000 * PART_S)


def what_stays(kept: Callable[[], str]) -> str:
    """What a stopped program leaves behind, which the first process knows."""
    return "process 0 says what is kept" if several() and not parallel.keeps() else kept()


def why(error: Exception) -> str:
    """What ended this process, in a line, if no other process's end comes to explain it.

    A connection breaks before it is known whose end broke it.
    """
    if isinstance(error, jax.errors.JaxRuntimeError):
        time.sleep(2 * meeting.SILENT_S)
    return first_line(error)
