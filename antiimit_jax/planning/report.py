"""A plan as plain data, and that as text for people."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.known import FACTS, KnownModel, n_params
from antiimit_jax.models.sharding import bytes_of_one
from antiimit_jax.models.weights import abstract_params
from antiimit_jax.parallel import AUTO, mesh_sizes
from antiimit_jax.planning.advice import joint_flags
from antiimit_jax.planning.hardware import GIB, Hardware
from antiimit_jax.run_config import RunConfig
from antiimit_jax.trees import n_bytes

_KINDS = {"tpu": "TPU device", "gpu": "GPU", "cpu": "CPU without accelerator"}
Judged = Sequence[Mapping[str, Any]]  # of `advice.judge`, a program each


def as_dict(
    model: KnownModel,
    machine: Hardware,
    run: RunConfig,
    programs: Judged,
    *,
    mesh: str = AUTO,
    seconds: float | None = None,
) -> dict[str, Any]:
    """The plan as plain data; bytes and seconds everywhere.

    Args:
      run: with the mesh that is planned for; `mesh` is as it was asked for.
      seconds: of a study as configured, where the machine's speed is known.
    """
    fits = any(program["rescued"] for program in programs)
    return {
        "model": model.name,
        **{fact: getattr(model.entry, fact, None) for fact in ("hub_id", "prompt_format", *FACTS)},
        "parameters": n_params(model.cfg),
        "config": dataclasses.asdict(model.cfg),
        "hardware": dataclasses.asdict(machine) | {"usable_bytes": machine.usable},
        "own_tokenizer": model.tokenizer is not None,
        "programs": list(programs),
        "flags": joint_flags(programs, run),
        "study_seconds": seconds,
        "notes": [
            *_notes(model, machine, run, programs, fits),
            *_mesh_notes(model, machine, run, mesh, fits),
            *(["the time is by this machine's rate of matmuls"] if seconds is not None else []),
        ],
    }


def as_text(plan: Mapping[str, Any]) -> str:
    """The same for people; of a study those phases alone that its parts do not have."""
    config, machine, programs = plan["config"], plan["hardware"], plan["programs"]
    about = [plan["model"], config["family"], f"{plan['parameters'] / 1e9:.3f} B parameters"]
    if plan["hub_id"]:
        about += [plan["hub_id"], plan["prompt_format"], plan["licence"]]
        about.append(plan["gate"] or "nothing to accept")
    usual = {field.name: field.default for field in dataclasses.fields(ModelConfig)}
    told = [f"{key} {str(v)[:60]}" for key, v in config.items() if v != usual[key]]
    lines = [
        ", ".join(dict.fromkeys(about)),
        f"config: {', '.join(told)}",
        f"hardware {machine['name']}: {machine['devices']} x {_KINDS[machine['kind']]} of "
        f"{_gib(machine['device_bytes'])} GiB, {_gib(machine['usable_bytes'])} of them usable",
    ]
    width = max(len(phase["name"]) for program in programs for phase in program["phases"])
    shown: list[Mapping[str, Any]] = []
    for program in programs:
        fits = "fits" if program["fits"] else "does not fit"
        new = [phase for phase in program["phases"] if phase not in shown]
        most = f"{_gib(program['peak'])} GiB on one device, {fits}"
        lines += ["", f"{program['program']}: {most}{'' if new else ' (phases as above)'}"]
        for phase in new:
            parts = " + ".join(f"{_gib(size)} {part}" for part, size in phase["parts"].items())
            lines.append(f"  {phase['name']:<{width}}{_gib(phase['total']):>8} = {parts}")
        lines += [] if program["fits"] else _way_out(program)
        shown += new
    fitting = ", ".join(one["program"] for one in programs if one["rescued"])
    variable = next((one["environment"] for one in programs if one["environment"]), "")
    given = [" ".join(_quoted(plan["flags"])), variable and f"{variable} in the environment"]
    how = ", with ".join(filter(None, [fitting, " and ".join(filter(None, given))]))
    name = machine["name"]
    lines += ["", f"{name} runs {how}" if fitting else f"nothing fits {name}"]
    if plan["study_seconds"] is not None:
        lines.append(f"a study as configured takes about {plan['study_seconds'] / 60:.0f} minutes")
    return "\n".join(lines + [f"note: {note}" for note in plan["notes"]]) + "\n"


def _way_out(program: Mapping[str, Any]) -> list[str]:
    """A line a flag with what it saves, in the order in which they are added, and the end of it."""
    flags = zip(_quoted(program["flags"]), program["saved"])
    lines = [f"  {flag} saves {_gib(size)} GiB" for flag, size in flags]
    if variable := program["environment"]:
        lines.append(f"  {variable} in the environment lets it have them")
    how = "so it fits" if program["rescued"] else "with all of these it still takes"
    how = how if lines else "no flag helps; it takes"
    left = f"{_gib(program['peak_with_flags'])} GiB in `{program['phase_with_flags']}`"
    return [*lines, f"  {how}: {left}"]


def _quoted(flags: Sequence[str]) -> list[str]:
    return [re.sub(r"=(.*\(.*)", r'="\1"', flag) for flag in flags]  # for a shell


def _notes(
    model: KnownModel, machine: Hardware, run: RunConfig, programs: Judged, fits: bool
) -> list[str]:
    published, kind = model.entry, machine.kind
    slow = not machine.bfloat16 and "bfloat16" in str(programs)
    wide = run.quantize == "none" and not fits
    notes = [
        published and published.note,
        published and "the shape is the published one; a loaded model's own config.json decides",
        published and published.unverified and f"not compared with it: {published.unverified}",
        not model.tokenizer and "lengths are by the embedded model's tokenizer, which stands in",
        kind != "cpu" and "temporaries are XLA's for CPUs; other compilers lay them out otherwise",
        kind == "gpu"
        and f"JAX takes {machine.share:.0%} of a GPU's memory unless "
        "XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise",
        wide
        and "with --config.quantize=int8 the layers' matrices take half of bfloat16, with nf4 "
        "a third; unless drift.rulers is () the drift page says what that costs",
        slow and f"{machine.name} has no bfloat16 units: such matmuls are slow there",
    ]
    return [note for note in notes if note]


def _mesh_notes(
    model: KnownModel, machine: Hardware, run: RunConfig, mesh: str, fits: bool
) -> list[str]:
    """Which parallel design a run uses and why, and what it costs that sizes do not divide."""
    if (n := machine.devices) == 1:
        return []
    rows, shards = mesh_sizes(run.mesh, n)
    why = "" if mesh == AUTO else f", as --mesh={mesh} says"
    if shards == 1:
        why = why or ", since it fills at most a sixth of each"
        design = f"{rows} of {n} devices hold a copy each{why} (jax.pmap in evaluation); training "
        design += "takes as many devices as divide train.accumulate (jax.jit on a mesh)"
    else:
        why = why or ", since copies would fill more than a sixth of each"
        how = "split the weights and each batch's work (jax.jit on a mesh)"
        design = f"{shards} of {n} devices {how}{why}"
    params = abstract_params(model.cfg, "bfloat16", run.quantize)
    more = bytes_of_one(model.cfg, params, n) - n_bytes(params) // n
    held = "bfloat16" if run.quantize == "none" else f"{run.quantize}, else bfloat16"
    undivided = (
        f"{n} does not divide all sizes: of shared weights each device holds {_gib(more)} GiB "
        f"more than its part, in {held}"
    )
    return [design] * fits + [undivided] * (more > GIB / 100)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
