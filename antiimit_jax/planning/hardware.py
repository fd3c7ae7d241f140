"""The machines a run may be planned for: devices, the memory of each, and what a program may fill.

Sizes are what the devices report, from the makers' pages and drivers; they were not measured here.
The named machines are lines of `data/machines.jsonl`.
"""

import dataclasses
import importlib.resources
import json
import re

from antiimit_jax.errors import UserError, near_misses

GIB = 2**30
GPU_SHARE_AT_MOST = 0.95
# What a program may fill: JAX takes this share of a GPU's memory unless
# XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise; a TPU's runtime and a CPU's system keep the rest.
_SHARES = {"tpu": 0.97, "gpu": 0.75, "cpu": 0.95}
_CPU = re.compile(r"cpu-(\d+)g")


@dataclasses.dataclass(frozen=True)
class Hardware:
    """One kind of machine, as JAX sees it."""

    name: str
    kind: str  # "tpu", "gpu" or "cpu"
    devices: int
    device_bytes: int  # memory of one device; on a CPU the machine's
    share: float  # of it that a program may fill
    bfloat16: bool = True  # multiplied in hardware

    @property
    def usable(self) -> int:
        """Bytes of one device that a program may fill."""
        return int(self.device_bytes * self.share)

    @property
    def at_most(self) -> int:
        """The same where a GPU's share is raised in the environment."""
        return int(self.device_bytes * GPU_SHARE_AT_MOST) if self.kind == "gpu" else self.usable


def _machine(name: str, kind: str, devices: int, gib: float, bfloat16: bool = True) -> Hardware:
    return Hardware(name, kind, devices, int(gib * GIB), _SHARES[kind], bfloat16)


_FILE = importlib.resources.files("antiimit_jax.planning") / "data" / "machines.jsonl"
_NAMED = [_machine(**json.loads(line)) for line in _FILE.read_text("utf-8").splitlines()]
HARDWARE = {machine.name: machine for machine in _NAMED}


def find_hardware(name: str) -> Hardware:
    """A machine by its name; `cpu-24g` is a machine of 24 GiB without accelerator.

    Raises:
      UserError: nothing of that name, with near misses.
    """
    if name in HARDWARE:
        return HARDWARE[name]
    if (match := _CPU.fullmatch(name)) and int(match[1]):
        return _machine(name, "cpu", 1, int(match[1]))
    known = [*HARDWARE, "cpu-16g", "cpu-24g", "cpu-32g", "cpu-64g"]
    hint = near_misses(name, [one for one in known if one.startswith(name)] or known)
    names = f"{', '.join(HARDWARE)}, and cpu-<GiB>g such as cpu-24g"
    raise UserError(f"--hardware={name}: unknown{hint or f'; known: {names}'}")
