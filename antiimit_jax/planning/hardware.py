"""The machines a run may be planned for: devices, the memory of each, and what a program may fill.

Sizes are what the devices report, from the makers' pages and drivers; they were not measured here.
"""

from __future__ import annotations

import dataclasses
import re

from antiimit_jax.errors import UserError, near_misses

GIB = 2**30
# JAX takes this share of a GPU's memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
GPU_SHARE, GPU_SHARE_AT_MOST = 0.75, 0.95
_TPU_SHARE = 0.97  # the runtime keeps the rest
_CPU_SHARE = 0.95  # the operating system's rest
_CPU = re.compile(r"cpu-(\d+)g")


@dataclasses.dataclass(frozen=True, kw_only=True)
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


def _tpu(name: str, devices: int, gib: float) -> Hardware:
    return Hardware(
        name=name, kind="tpu", devices=devices, device_bytes=int(gib * GIB), share=_TPU_SHARE
    )


def _gpu(name: str, gib: float, bfloat16: bool = True) -> Hardware:
    return Hardware(
        name=name,
        kind="gpu",
        devices=1,
        device_bytes=int(gib * GIB),
        share=GPU_SHARE,
        bfloat16=bfloat16,
    )


HARDWARE: dict[str, Hardware] = {
    machine.name: machine
    for machine in (
        _tpu("v2-8", 8, 8),
        _tpu("v3-8", 8, 16),
        _tpu("v4-8", 4, 32),
        _tpu("v5e-1", 1, 16),
        _tpu("v5e-4", 4, 16),
        _tpu("v5e-8", 8, 16),
        _tpu("v5p-8", 4, 95),
        _tpu("v6e-1", 1, 32),
        _tpu("v6e-4", 4, 32),
        _tpu("v6e-8", 8, 32),
        _gpu("a100-40", 40),
        _gpu("a100-80", 80),
        _gpu("h100", 79.6),
        _gpu("h200", 140.4),
        _gpu("rtx4090", 24),
        _gpu("rtx3090", 24),
        _gpu("l4", 22.5),
        _gpu("a10", 22.5),
        _gpu("t4", 15, bfloat16=False),
        _gpu("v100", 15.8, bfloat16=False),
        _gpu("v100-32", 31.7, bfloat16=False),
    )
}


def find_hardware(name: str) -> Hardware:
    """A machine by its name; `cpu-24g` is a machine of 24 GiB without accelerator.

    Raises:
      UserError: nothing of that name, with near misses.
    """
    if name in HARDWARE:
        return HARDWARE[name]
    if (match := _CPU.fullmatch(name)) and int(match[1]):
        memory = int(match[1]) * GIB
        return Hardware(name=name, kind="cpu", devices=1, device_bytes=memory, share=_CPU_SHARE)
    known = [*HARDWARE, "cpu-16g", "cpu-24g", "cpu-32g", "cpu-64g"]
    hint = near_misses(name, [one for one in known if one.startswith(name)] or known)
    names = f"{', '.join(HARDWARE)}, and cpu-<GiB>g such as cpu-24g"
    raise UserError(f"--hardware={name}: unknown{hint or f'; known: {names}'}")
