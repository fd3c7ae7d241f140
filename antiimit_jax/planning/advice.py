"""Whether each program fits, which flags make it fit, and what each flag saves.

Nothing is searched: the least painful change of the configuration comes first, each is added to
those before it, what saves nothing is left out, and the first sum that fits is the answer.
"""

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.sharding import sizes_of
from antiimit_jax.models.weights import abstract_params
from antiimit_jax.parallel import mesh_name, splits
from antiimit_jax.planning.hardware import GPU_SHARE_AT_MOST, Hardware
from antiimit_jax.planning.memory import Estimator, peak
from antiimit_jax.run_config import RunConfig, from_dict, to_dict
from antiimit_jax.trees import flat, nested

PROGRAMS = ("evaluate", "finetune", "study")


def with_mesh(run: RunConfig, cfg: ModelConfig, machine: Hardware) -> RunConfig:
    """The same with the mesh that a program makes of "auto" on such a machine.

    Raises:
      UserError: a mesh for other devices.
    """
    params, room = abstract_params(cfg, run.dtype), machine.usable if machine.devices > 1 else None
    rows, shards = sizes_of(run.mesh, cfg, params, machine.devices, room)
    return dataclasses.replace(run, mesh=mesh_name(rows, shards))


def judge(program: str, run: RunConfig, estimator: Estimator, machine: Hardware) -> dict[str, Any]:
    """What a program takes as configured, and with changes where that does not fit; in bytes."""
    estimate = getattr(estimator, program)
    phases = fewest = estimate(run)
    need, saved = peak(phases), {}
    least = need
    hopeless = estimator.weights("bfloat16", machine.devices, run.quantize) > machine.at_most
    for field, value in [] if hopeless else _changes(program, run, machine):
        if least <= machine.at_most:
            break
        changed = from_dict(nested(flat(to_dict(run)) | {field: value}))
        smaller = estimate(changed)
        if (now := peak(smaller)) < least:
            saved[f"--config.{field}={value}"] = least - now
            run, least, fewest = changed, now, smaller
    variable = f"XLA_PYTHON_CLIENT_MEM_FRACTION={GPU_SHARE_AT_MOST}"
    return {
        "program": program,
        "phases": [
            {"name": name, "parts": parts, "total": sum(parts.values())}
            for name, parts in phases.items()
        ],
        "peak": need,
        "fits": need <= machine.usable,
        "rescued": least <= machine.at_most,
        "flags": list(saved),
        "saved": list(saved.values()),
        "peak_with_flags": least,
        "phase_with_flags": max(fewest, key=lambda name: sum(fewest[name].values())),
        "environment": variable if machine.usable < least <= machine.at_most else "",
    }


def joint_flags(programs: Sequence[Mapping[str, Any]], run: RunConfig) -> list[str]:
    """Flags with which all programs fit that can, since those of one run have one configuration.

    No change makes a program larger. A mesh that was found for the run is named as well, where they
    leave it as it is: with other flags "auto" might find another.
    """
    flags = dict.fromkeys(flag for one in programs if one["rescued"] for flag in one["flags"])
    if flags and splits(run.mesh) and not any("config.mesh=" in flag for flag in flags):
        flags[f"--config.mesh={run.mesh}"] = None
    return list(flags)


def _changes(program: str, run: RunConfig, machine: Hardware) -> list[tuple[str, Any]]:
    """What could be given up, the least painful first; only what is not given up already."""
    changes = {
        "dtype": "bfloat16",  # in evaluation; training has its own
        "mesh": mesh_name(1, machine.devices) if machine.devices > 1 else run.mesh,
        "train.eval_every": 0 if machine.kind != "cpu" else run.train.eval_every,  # shared there
        "train.dtype": "bfloat16",
        "train.remat": True,
        "drift.rulers": (),
        **{f"{suite}.n_items": 0 for suite in ("precision", "scoring", "residual")},
        "suites": run.suites[:1],
        "train.groups": 1,
        "train.rows": 1,
        "train.anchor_tokens": min(run.train.anchor_tokens, 64),
        "lora.rank": min(run.lora.rank, 8),
    }
    others = {
        "evaluate": ("train.", "lora."),
        "finetune": ("drift.", "suites", "precision.", "scoring.", "residual."),
    }.get(program, ())
    return [
        (field, value)
        for field, value in changes.items()
        if not field.startswith(others) and operator.attrgetter(field)(run) != value
    ]
