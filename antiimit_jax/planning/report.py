"""A plan as text for people and as plain data for machines."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from antiimit_jax.models.catalog import CATALOG
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.quantized import FORMATS
from antiimit_jax.models.sharding import bytes_of_one
from antiimit_jax.models.weights import abstract_params
from antiimit_jax.parallel import AUTO, mesh_sizes
from antiimit_jax.planning.advice import Verdict, Way, environment, flag
from antiimit_jax.planning.hardware import GIB, Hardware
from antiimit_jax.planning.memory import n_bytes, n_params, peak
from antiimit_jax.planning.model import PlannedModel

_FACTS = ("licence", "gate", "counterpart", "note", "unverified")  # of a catalog's entry
_COLUMNS = ("alias", "hub_id", "family", "parameters", "format", "licence", "gate")
_KINDS = {"tpu": "TPU device", "gpu": "GPU", "cpu": "CPU without accelerator"}


def listing() -> list[dict[str, Any]]:
    """All named models, one dict each."""
    return [
        {
            "alias": alias,
            "hub_id": entry.hub_id,
            "family": entry.family,
            "parameters": n_params(parse_config(entry.config, alias)),
            "format": entry.prompt_format,
            **{fact: getattr(entry, fact) for fact in _FACTS},
        }
        for alias, entry in CATALOG.items()
    ]


def listing_text(rows: Sequence[dict[str, Any]]) -> str:
    """The table of all named models."""
    lines = [("alias", "hub id", "family", "params", "format", "licence", "gate")]
    for row in rows:
        size = f"{row['parameters'] / 1e9:.3f} B"
        shown = row | {"parameters": size, "gate": row["gate"] or "open"}
        lines.append(tuple(shown[column] for column in _COLUMNS))
    widths = [max(map(len, column)) for column in zip(*lines)]
    table = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    notes = [
        row["note"] if row["alias"] in row["note"] else f"{row['alias']}: {row['note']}"
        for row in rows
        if row["note"]
    ]
    policy = "revision: the newest commit of the hub's default branch unless --revision names one"
    return "\n".join([*table, "", *notes, policy]) + "\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a plan says."""

    model: PlannedModel
    machine: Hardware
    verdicts: Sequence[Verdict]
    way: Way
    seconds: float | None  # of a study as configured, where the machine's speed is known
    mesh: str = AUTO  # as the run's configuration names it
    quantize: str = "none"  # the same


def as_dict(plan: Plan) -> dict[str, Any]:
    """The plan as plain data; bytes and seconds everywhere."""
    model, machine, verdicts, way = plan.model, plan.machine, plan.verdicts, plan.way
    return {
        "model": model.name,
        **{fact: getattr(model.entry, fact, None) for fact in ("hub_id", "prompt_format", *_FACTS)},
        "parameters": n_params(model.cfg),
        "config": dataclasses.asdict(model.cfg),
        "config_from": model.config_from,
        "own_tokenizer": model.tokenizer_path is not None,
        "hardware": dataclasses.asdict(machine) | {"usable_bytes": machine.usable},
        "programs": [
            {
                "program": verdict.program,
                "phases": [dataclasses.asdict(p) | {"total": p.total} for p in verdict.phases],
                "peak": peak(verdict.phases).total,
                "fits": verdict.fits,
                "rescued": verdict.rescued,
                "flags": [flag(change) for change in verdict.changes],
                "saved": [size for _, size in verdict.saved],
                "environment": environment(verdict.least.total, machine),
                "peak_with_flags": verdict.least.total,
            }
            for verdict in verdicts
        ],
        "way": {
            "programs": list(way.programs),
            "flags": [flag(change) for change in way.changes],
            "environment": way.environment,
        },
        "study_seconds": plan.seconds,
        "notes": _notes(plan),
    }


def as_text(plan: Plan) -> str:
    """The plan for people."""
    model, machine, verdicts, way = plan.model, plan.machine, plan.verdicts, plan.way
    entry, cfg = model.entry, model.cfg
    about = [cfg.family, f"{n_params(cfg) / 1e9:.3f} B parameters"]
    if entry:
        about += [entry.prompt_format, entry.licence, entry.gate or "nothing to accept"]
    name = f"{model.name} ({entry.hub_id})" if entry and entry.hub_id != model.name else model.name
    values = dataclasses.asdict(cfg)
    unusual = [f for f in dataclasses.fields(cfg) if values[f.name] != f.default]
    shown = [f"{f.name} {_brief(values[f.name])}" for f in unusual if f.name != "family"]
    lines = [
        f"{name}: {', '.join(about)}",
        "config: " + ", ".join(shown),
        f"        from {model.config_from}",
        f"hardware {machine.name}: {machine.devices} x {_KINDS[machine.kind]} of "
        f"{_gib(machine.device_bytes)} GiB, {_gib(machine.usable)} of them usable",
        "",
    ]
    width = max(len(phase.name) for verdict in verdicts for phase in verdict.phases)
    for verdict in verdicts:
        most = _gib(peak(verdict.phases).total)
        word = "fits" if verdict.fits else "does not fit"
        lines.append(f"{verdict.program}: {most} GiB on one device, {word}")
        for phase in verdict.phases:
            parts = " + ".join(f"{_gib(size)} {part}" for part, size in phase.parts.items())
            lines.append(f"  {phase.name:<{width}}{_gib(phase.total):>8} = {parts}")
        lines += ["", *([] if verdict.fits else [*_way_out(verdict, machine), ""])]
    lines.append(_says(way, machine))
    if plan.seconds is not None:
        lines.append(f"a study as configured takes about {plan.seconds / 60:.0f} minutes")
    return "\n".join(lines + [f"note: {n}" for n in _notes(plan)]) + "\n"


def _says(way: Way, machine: Hardware) -> str:
    if not way.programs:
        return f"nothing fits {machine.name}"
    arguments = [flag(change) for change in way.changes]
    quoted = [re.sub(r"=(.*\(.*)", r'="\1"', one) for one in arguments]  # brackets, for a shell
    flags = " ".join(quoted) and "with " + " ".join(quoted)
    env = way.environment and f"with {way.environment} in the environment"
    how = " and ".join(filter(None, (flags, env)))
    if len(way.programs) == 1:
        return f"{way.programs[0]} fits {how or 'as it is'}"
    return f"{' and '.join(way.programs)} fit one after the other {how or 'as they are'}"


def _way_out(verdict: Verdict, machine: Hardware) -> list[str]:
    """A line a flag with what it saves, in the order in which they are added, and the end of it."""
    lines = [f"  {flag(change)} saves {_gib(size)} GiB" for change, size in verdict.saved]
    left = f"{_gib(verdict.least.total)} GiB in `{verdict.least.name}`"
    if not verdict.rescued:
        why = "with all of these it still takes" if lines else "no flag helps: it takes"
        return [*lines, f"  {why} {left}"]
    variable = environment(verdict.least.total, machine)
    lines += [f"  {variable} in the environment lets it have them"] * bool(variable)
    return [*lines, f"  so it fits: {left}"]


def _notes(plan: Plan) -> list[str]:
    model, machine, verdicts = plan.model, plan.machine, plan.verdicts
    note, unverified = (getattr(model.entry, fact, None) for fact in ("note", "unverified"))
    stands_in, kind = model.tokenizer_path is None, machine.kind
    parts = [part for verdict in verdicts for phase in verdict.phases for part in phase.parts]
    halves = any("bfloat16" in part for part in parts) or any(v.changes for v in verdicts)
    slow = halves and not machine.bfloat16
    quantised = any(how in part for part in parts for how in FORMATS if how != "none")
    notes = {
        note: note,
        f"not compared with the published file: {unverified}": unverified,
        "lengths are those of the embedded model's tokenizer, which stands in": stands_in,
        _devices_note(plan): machine.devices > 1 and bool(plan.way.programs),
        _undivided_note(plan): machine.devices > 1,
        "temporaries are XLA's for CPUs; other compilers lay them out differently": kind != "cpu",
        f"JAX takes {machine.share:.0%} of a GPU's memory unless "
        "XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise": kind == "gpu",
        "with --config.quantize=int8 the layers' matrices take half of bfloat16, with nf4 a "
        "third; unless drift.rulers is () the drift page says what that costs": not (
            plan.way.programs or quantised
        ),
        f"{machine.name} has no bfloat16 units: such matmuls are slow there": slow,
        "the time is by this machine's rate of matmuls": plan.seconds is not None,
    }
    return [text for text, holds in notes.items() if text and holds]


def _devices_note(plan: Plan) -> str:
    """Which parallel design a run uses, and why."""
    n, phases = plan.machine.devices, [p for v in plan.verdicts for p in v.phases]
    parts = " ".join(part for phase in phases for part in phase.parts)
    shared = re.search(r"shared by (\d+)", parts)
    shared = int(shared[1]) if shared else n if "mesh" in dict(plan.way.changes) else 1
    auto = plan.mesh == AUTO
    if shared > 1:
        why = "since copies would fill more than a sixth of each"
        how = "split the weights and each batch's work (jax.jit on a mesh)"
        return f"{shared} of {n} devices {how}, {why if auto else f'as --mesh={plan.mesh} says'}"
    holders = n if auto else mesh_sizes(plan.mesh, n)[0]
    why = "since it fills at most a sixth of each" if auto else f"as --mesh={plan.mesh} says"
    rows = "training takes as many devices as divide train.accumulate (jax.jit on a mesh)"
    return f"{holders} of {n} devices hold a copy each, {why} (jax.pmap in evaluation); {rows}"


def _undivided_note(plan: Plan) -> str:
    """What it costs that the devices do not divide some sizes; nothing below a hundredth GiB."""
    n, how = plan.machine.devices, plan.quantize
    params = abstract_params(plan.model.cfg, "bfloat16", how)
    more = bytes_of_one(plan.model.cfg, params, n) - n_bytes(params) // n
    what = f"{n} does not divide all sizes: of shared weights each device holds {_gib(more)} GiB"
    held = "bfloat16" if how == "none" else f"{how}, else bfloat16"
    return f"{what} more than its part, in {held}" if more > GIB / 100 else ""


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
