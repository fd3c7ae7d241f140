"""The machines a run may be planned for: devices, the memory of each, and what a program may fill.

Sizes are what the devices report, from the makers' pages and drivers; they were not measured here.
"""

import dataclasses
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


_TPUS = {  # devices, GiB of each
    "v2-8": (8, 8),
    "v3-8": (8, 16),
    "v4-8": (4, 32),
    "v5e-1": (1, 16),
    "v5e-4": (4, 16),
    "v5e-8": (8, 16),
    "v5p-8": (4, 95),
    "v6e-1": (1, 32),
    "v6e-4": (4, 32),
    "v6e-8": (8, 32),
}
_GPUS = {  # GiB
    "a100-40": 40,
    "a100-80": 80,
    "h100": 79.6,
    "h200": 140.4,
    "rtx4090": 24,
    "rtx3090": 24,
    "l4": 22.5,
    "a10": 22.5,
}
_OLDER_GPUS = {"t4": 15, "v100": 15.8, "v100-32": 31.7}  # without bfloat16
HARDWARE: dict[str, Hardware] = {
    **{name: _machine(name, "tpu", *size) for name, size in _TPUS.items()},
    **{name: _machine(name, "gpu", 1, gib) for name, gib in _GPUS.items()},
    **{name: _machine(name, "gpu", 1, gib, bfloat16=False) for name, gib in _OLDER_GPUS.items()},
}


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
