"""A plan as text for people and as plain data for machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from antiimit_jax.models.catalog import CATALOG
from antiimit_jax.models.families import parse_config
from antiimit_jax.planning.advice import Verdict, flag
from antiimit_jax.planning.hardware import GIB, Hardware
from antiimit_jax.planning.memory import n_params, peak
from antiimit_jax.planning.model import PlannedModel


def listing() -> list[dict[str, Any]]:
    """All named models, one dict each."""
    counted: dict[str, int] = {}
    rows = []
    for alias, entry in CATALOG.items():
        shape = str(entry.config)
        if shape not in counted:
            counted[shape] = n_params(parse_config(entry.config, alias))
        rows.append(
            {
                "alias": alias,
                "hub_id": entry.hub_id,
                "family": entry.family,
                "parameters": counted[shape],
                "format": entry.prompt_format,
                "licence": entry.licence,
                "gate": entry.gate,
                "counterpart": entry.counterpart,
                "note": entry.note,
                "unverified": entry.unverified,
            }
        )
    return rows


def listing_text(rows: Sequence[dict[str, Any]]) -> str:
    """The table of all named models."""
    head = ("alias", "hub id", "family", "params", "format", "licence", "gate")
    cells = [
        (
            row["alias"],
            row["hub_id"],
            row["family"],
            f"{row['parameters'] / 1e9:.3f} B",
            row["format"],
            row["licence"],
            row["gate"] or "open",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in (head, *cells)) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
        for line in (head, *cells)
    ]
    notes = [
        row["note"] if row["alias"] in row["note"] else f"{row['alias']}: {row['note']}"
        for row in rows
        if row["note"]
    ]
    policy = "revision: the newest commit of the hub's default branch unless --revision names one"
    return "\n".join([*lines, "", *notes, policy]) + "\n"


def as_dict(model: PlannedModel, machine: Hardware, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The plan as plain data; bytes everywhere."""
    entry = model.entry
    facts = ("hub_id", "prompt_format", "licence", "gate", "counterpart", "note", "unverified")
    return {
        "model": model.name,
        **{name: getattr(entry, name) if entry else None for name in facts},
        "parameters": n_params(model.cfg),
        "config": dataclasses.asdict(model.cfg),
        "config_from": model.config_from,
        "own_tokenizer": model.tokenizer_path is not None,
        "hardware": dataclasses.asdict(machine) | {"usable_bytes": machine.usable},
        "programs": [
            {
                "program": verdict.program,
                "phases": [
                    {"name": phase.name, "parts": phase.parts, "total": phase.total}
                    for phase in verdict.phases
                ],
                "peak": peak(verdict.phases).total,
                "fits": verdict.fits,
                "rescued": verdict.rescued,
                "flags": [flag(change) for change in verdict.changes],
                "environment": verdict.environment,
                "peak_with_flags": verdict.least.total,
            }
            for verdict in verdicts
        ],
        "notes": _notes(model, machine, verdicts),
    }


def as_text(model: PlannedModel, machine: Hardware, verdicts: Sequence[Verdict]) -> str:
    """The plan for people."""
    entry, cfg = model.entry, model.cfg
    about = [cfg.family, f"{n_params(cfg) / 1e9:.3f} B parameters"]
    if entry:
        about += [entry.prompt_format, entry.licence, entry.gate or "nothing to accept"]
    name = f"{model.name} ({entry.hub_id})" if entry and entry.hub_id != model.name else model.name
    fields = dataclasses.asdict(cfg)
    defaults = {f.name: f.default for f in dataclasses.fields(cfg)}
    shown = {k: v for k, v in fields.items() if v != defaults[k] and k != "family"}
    kind = {"tpu": "TPU device", "gpu": "GPU", "cpu": "CPU without accelerator"}[machine.kind]
    lines = [
        f"{name}: {', '.join(about)}",
        "config: " + ", ".join(f"{key} {_brief(value)}" for key, value in shown.items()),
        f"        from {model.config_from}",
        f"hardware {machine.name}: {machine.devices} x {kind} of {_gib(machine.device_bytes)} GiB, "
        f"{_gib(machine.usable)} of them usable",
        "",
    ]
    for verdict in verdicts:
        most = peak(verdict.phases)
        word = "fits" if verdict.fits else "does not fit"
        lines.append(f"{verdict.program}: {_gib(most.total)} GiB on one device, {word}")
        for phase in verdict.phases:
            parts = " + ".join(f"{_gib(size)} {part}" for part, size in phase.parts.items())
            lines.append(f"  {phase.name:<14}{_gib(phase.total):>7} = {parts}")
        if not verdict.fits:
            lines.append("  " + _way_out(verdict))
        lines.append("")
    notes = [f"note: {note}" for note in _notes(model, machine, verdicts)]
    return "\n".join([*lines, *notes]) + "\n"


def _way_out(verdict: Verdict) -> str:
    flags = " ".join(_quoted(flag(change)) for change in verdict.changes)
    least = f"{_gib(verdict.least.total)} GiB in `{verdict.least.name}`"
    if verdict.rescued:
        env = f"with {verdict.environment} in the environment" if verdict.environment else ""
        given = " and ".join(part for part in (f"with {flags}" if flags else "", env) if part)
        return f"fits {given}: {least}"
    why = f"even with {flags} it takes" if flags else "the weights alone fill it:"
    return f"no flag makes it fit: {why} {least}"


def _quoted(argument: str) -> str:
    """For a shell: what holds brackets in double quotes."""
    name, _, value = argument.partition("=")
    return f'{name}="{value}"' if "(" in value else argument


def _notes(model: PlannedModel, machine: Hardware, verdicts: Sequence[Verdict]) -> list[str]:
    notes = []
    if model.entry and model.entry.note:
        notes.append(model.entry.note)
    if model.entry and model.entry.unverified:
        notes.append(f"not compared with the published file: {model.entry.unverified}")
    if model.tokenizer_path is None:
        notes.append("lengths are those of the embedded model's tokenizer, which stands in")
    if machine.devices > 1:
        notes.append(
            f"of the {machine.devices} devices each holds the whole model, or with "
            "--config.weights=sharded its share; training uses as many as divide "
            "train.accumulate, with shared weights all"
        )
    if machine.kind != "cpu":
        notes.append("temporaries are XLA's for CPUs; other compilers lay them out differently")
    if machine.kind == "gpu":
        notes.append(
            f"JAX takes {machine.share:.0%} of a GPU's memory unless "
            "XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise"
        )
    bfloat16 = any("bfloat16" in part for v in verdicts for p in v.phases for part in p.parts)
    if not machine.bfloat16 and (bfloat16 or any(v.changes for v in verdicts)):
        notes.append(f"{machine.name} has no bfloat16 units: such products are slow there")
    return notes


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
