"""A plan as plain data: what each program takes, which flags make it fit, what each flag saves.

Nothing is searched: the least painful change of the configuration comes first, each is added to
those before it, what saves nothing is left out, and the first sum that fits is the answer.
"""

import dataclasses
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from antiimit_jax.models.known import FACTS, KnownModel, n_params
from antiimit_jax.models.quantized import check_format
from antiimit_jax.models.sharding import bytes_of_one, sizes_of
from antiimit_jax.models.weights import abstract_params
from antiimit_jax.parallel import AUTO, mesh_name, mesh_sizes, splits
from antiimit_jax.planning.hardware import GIB, GPU_SHARE_AT_MOST, Hardware
from antiimit_jax.planning.memory import Estimator, peak
from antiimit_jax.run_config import RunConfig, from_dict, is_read, to_dict
from antiimit_jax.trees import flat, n_bytes, nested

PROGRAMS = {  # what of a run each does
    "evaluate": ("evaluation",),
    "finetune": ("training",),
    "study": ("evaluation", "training"),
}


def fitted(run: RunConfig, model: KnownModel, machine: Hardware) -> RunConfig:
    """The same with the mesh that a program makes of "auto" on such a machine.

    Raises:
      UserError: an adapter or a quantisation that does not fit the model; a mesh for other devices.
    """
    run.lora.check(model.cfg)
    check_format(model.cfg, run.quantize, model.name)
    params = abstract_params(model.cfg, run.dtype)
    sizes = sizes_of(run.mesh, model.cfg, params, machine.devices, machine.usable)
    return dataclasses.replace(run, mesh=mesh_name(*sizes))


def as_dict(
    run: RunConfig, estimator: Estimator, machine: Hardware, mesh: str, seconds: float | None
) -> dict[str, Any]:
    """The plan as plain data; bytes and seconds everywhere.

    Args:
      run: as `fitted` gives it; `mesh` is as it was asked for.
      seconds: of a study as configured, where the machine's speed is known.
    """
    model = estimator.model
    programs = [judge(program, run, estimator, machine) for program in PROGRAMS]
    told = notes(model, machine, run, mesh, any(one["rescued"] for one in programs))
    return {
        "model": model.name,
        **{fact: getattr(model.entry, fact, None) for fact in ("hub_id", "prompt_format", *FACTS)},
        "parameters": n_params(model.cfg),
        "config": dataclasses.asdict(model.cfg),
        "hardware": dataclasses.asdict(machine) | {"usable_bytes": machine.usable},
        "own_tokenizer": model.tokenizer is not None,
        "programs": programs,
        "flags": joint_flags(programs, run),
        "study_seconds": seconds,
        "notes": told + ["the time is by this machine's rate of matmuls"] * (seconds is not None),
    }


def judge(program: str, run: RunConfig, estimator: Estimator, machine: Hardware) -> dict[str, Any]:
    """What a program takes as configured, and with changes where that does not fit; in bytes."""
    estimate = getattr(estimator, program)
    phases = smallest = estimate(run)
    saved: dict[str, int] = {}
    narrow = dataclasses.replace(run, dtype="bfloat16", mesh=mesh_name(1, machine.devices))
    hopeless = estimator.weights(narrow) > machine.at_most
    for field, value in () if hopeless else _changes(program, run, machine):
        if peak(smallest) <= machine.at_most:
            break
        changed = from_dict(nested(flat(to_dict(run)) | {field: value}))
        smaller = estimate(changed)
        if (less := peak(smallest) - peak(smaller)) > 0:
            saved[f"--config.{field}={value}"] = less
            run, smallest = changed, smaller
    need, least = peak(phases), peak(smallest)
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
        "phase_with_flags": max(smallest, key=lambda name: sum(smallest[name].values())),
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


def notes(model: KnownModel, machine: Hardware, run: RunConfig, mesh: str, fits: bool) -> list[str]:
    """What a plan stands on, which parallel design it has and why, and what else costs memory.

    Args:
      mesh: as it was asked for.
      fits: whether any program does.
    """
    published, kind, n = model.entry, machine.kind, machine.devices
    params = abstract_params(model.cfg, "bfloat16", run.quantize)
    more = (bytes_of_one(model.cfg, params, n) - n_bytes(params) // n) / GIB
    held = "bfloat16" if run.quantize == "none" else f"{run.quantize}, else bfloat16"
    found = [
        published and published.note,
        published and "the shape is the published one; a loaded model's own config.json decides",
        published and published.unverified and f"not compared with it: {published.unverified}",
        not model.tokenizer and "lengths are by the embedded model's tokenizer, which stands in",
        kind != "cpu" and "temporaries are XLA's for CPUs; other compilers lay them out otherwise",
        kind == "gpu"
        and f"JAX takes {machine.share:.0%} of a GPU's memory unless "
        "XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise",
        not fits
        and run.quantize == "none"
        and "with --config.quantize=int8 the layers' matrices take half of bfloat16, with nf4 "
        "a third; unless drift.rulers is () the drift page says what that costs",
        not machine.bfloat16
        and f"{machine.name} has no bfloat16 units: such matmuls are slow there",
        n > 1 and fits and _design(mesh, *mesh_sizes(run.mesh, n), n),
        more > 0.01
        and f"{n} does not divide all sizes: of shared weights each device holds {more:.2f} GiB "
        f"more than its part, in {held}",
    ]
    return [note for note in found if note]


def _design(mesh: str, rows: int, shards: int, devices: int) -> str:
    """How several devices work together, and why."""
    why = "since it fills at most" if shards == 1 else "since copies would fill more than"
    why = f"{why} a sixth of each" if mesh == AUTO else f"as --mesh={mesh} says"
    if shards > 1:
        how = "split the weights and each batch's work (jax.jit on a mesh)"
        return f"{shards} of {devices} devices {how}, {why}"
    return (
        f"{rows} of {devices} devices hold a copy each, {why} (jax.pmap in evaluation); training "
        "takes as many devices as divide train.accumulate (jax.jit on a mesh)"
    )


def _changes(program: str, run: RunConfig, machine: Hardware) -> Iterator[tuple[str, Any]]:
    """What could be given up, the least painful first; only what is not given up already."""
    changes = {
        "dtype": "bfloat16",  # in evaluation; training has its own
        "mesh": mesh_name(1, machine.devices),
        "train.eval_every": 0,
        "train.dtype": "bfloat16",
        "train.remat": True,
        "drift.rulers": (),
        "precision.n_items": 0,
        "scoring.n_items": 0,
        "residual.n_items": 0,
        "suites": run.suites if run.against else run.suites[:1],  # which must ask the second model
        "train.groups": 1,
        "train.rows": 1,
        "train.anchor_tokens": min(run.train.anchor_tokens, 64),
        "lora.rank": min(run.lora.rank, 8),
    }
    for field, value in changes.items():
        given = operator.attrgetter(field)(run)
        if is_read(field, PROGRAMS[program]) and given != value:
            yield field, value
