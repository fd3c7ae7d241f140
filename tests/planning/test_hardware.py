"""Machines are found by name; what is not known is answered with what is near."""

from __future__ import annotations

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.planning.hardware import GIB, HARDWARE, find_hardware


def test_the_machines_the_docs_name_are_there_with_their_devices():
    devices = {name: (m.devices, round(m.device_bytes / GIB)) for name, m in HARDWARE.items()}
    for name, expected in {
        "v2-8": (8, 8),
        "v3-8": (8, 16),
        "v4-8": (4, 32),
        "v5e-1": (1, 16),
        "v5e-4": (4, 16),
        "v5e-8": (8, 16),
        "v5p-8": (4, 95),
        "v6e-1": (1, 32),
        "v6e-8": (8, 32),
        "a100-40": (1, 40),
        "a100-80": (1, 80),
        "rtx4090": (1, 24),
    }.items():
        assert devices[name] == expected
    assert not HARDWARE["t4"].bfloat16 and not HARDWARE["v100"].bfloat16


def test_a_cpu_is_named_by_its_memory():
    machine = find_hardware("cpu-24g")
    assert (machine.kind, machine.devices, machine.device_bytes) == ("cpu", 1, 24 * GIB)
    assert machine.usable < machine.device_bytes
    assert find_hardware("cpu-7g").device_bytes == 7 * GIB


@pytest.mark.parametrize(
    "typo, meant", [("v4-9", "v4-8"), ("a100", "a100-40"), ("cpu24g", "cpu-24g")]
)
def test_a_typo_names_near_misses(typo, meant):
    with pytest.raises(UserError, match=f"--hardware={typo}.*{meant}"):
        find_hardware(typo)


@pytest.mark.parametrize("nothing", ["zzzzzz", "cpu-0g"])
def test_anything_else_is_refused(nothing):
    with pytest.raises(UserError, match=f"--hardware={nothing}"):
        find_hardware(nothing)
