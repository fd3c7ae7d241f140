"""A plan, as `advice.as_dict` has it, as text for people."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.planning.hardware import GIB

_KINDS = {"tpu": "TPU device", "gpu": "GPU", "cpu": "CPU without accelerator"}


def as_text(plan: Mapping[str, Any]) -> str:
    """What it says; of a study those phases alone that its parts do not have."""
    config, machine, programs = plan["config"], plan["hardware"], plan["programs"]
    about = [plan["model"], config["family"], f"{plan['parameters'] / 1e9:.3f} B parameters"]
    if plan["hub_id"]:
        about += [plan["hub_id"], plan["prompt_format"], plan["licence"]]
        about.append(plan["gate"] or "nothing to accept")
    usual = {field.name: field.default for field in dataclasses.fields(ModelConfig)}
    unusual = [f"{key} {str(v)[:60]}" for key, v in config.items() if v != usual[key]]
    lines = [
        ", ".join(dict.fromkeys(about)),
        f"config: {', '.join(unusual)}",
        f"hardware {machine['name']}: {machine['devices']} x {_KINDS[machine['kind']]} of "
        f"{_gib(machine['device_bytes'])} GiB, {_gib(machine['usable_bytes'])} of them usable",
    ]
    shown: list[Mapping[str, Any]] = []
    width = max(len(phase["name"]) for program in programs for phase in program["phases"])
    for program in programs:
        new = [phase for phase in program["phases"] if phase not in shown]
        lines += ["", *_of_program(program, new, width)]
        shown += new
    fitting = ", ".join(one["program"] for one in programs if one["rescued"])
    variables = {f"{v} in the environment" for one in programs if (v := one["environment"])}
    given = " and ".join(filter(None, [" ".join(_quoted(plan["flags"])), *variables]))
    runs = f"{machine['name']} runs {fitting}{', with ' * bool(given)}{given}"
    lines += ["", runs if fitting else f"nothing fits {machine['name']}"]
    if plan["study_seconds"] is not None:
        lines.append(f"a study as configured takes about {plan['study_seconds'] / 60:.0f} minutes")
    return "\n".join(lines + [f"note: {note}" for note in plan["notes"]]) + "\n"


def _of_program(
    program: Mapping[str, Any], phases: Sequence[Mapping[str, Any]], width: int
) -> Iterator[str]:
    """Some phases, then a line a flag with what it saves, as they are added, and the end of it."""
    fits = "fits" if program["fits"] else "does not fit"
    as_above = "" if phases else " (phases as above)"
    yield f"{program['program']}: {_gib(program['peak'])} GiB on one device, {fits}{as_above}"
    for phase in phases:
        parts = " + ".join(f"{_gib(size)} {part}" for part, size in phase["parts"].items())
        yield f"  {phase['name']:<{width}}{_gib(phase['total']):>8} = {parts}"
    if program["fits"]:
        return
    for flag, size in zip(_quoted(program["flags"]), program["saved"]):
        yield f"  {flag} saves {_gib(size)} GiB"
    if variable := program["environment"]:
        yield f"  {variable} in the environment lets it have them"
    how = "with all of these it still takes" if program["flags"] else "no flag helps; it takes"
    how = "so it fits" if program["rescued"] else how
    yield f"  {how}: {_gib(program['peak_with_flags'])} GiB in `{program['phase_with_flags']}`"


def _quoted(flags: Sequence[str]) -> list[str]:
    return [re.sub(r"=(.*\(.*)", r'="\1"', flag) for flag in flags]  # for a shell


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
