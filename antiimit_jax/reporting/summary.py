"""The short console table of a run: stages and lazy baselines with intervals, plain text."""

from __future__ import annotations

from pathlib import Path

from antiimit_jax.reporting.report import model_name
from antiimit_jax.reporting.rows import LABELS, STAGES, Rows, figure, number, plain_text
from antiimit_jax.reporting.run_files import Run, read_run
from antiimit_jax.reporting.sections_control import place, subject
from antiimit_jax.reporting.sections_run import one_seed, visible

METRICS = ("tvd_res", "mass", "corr_within", "skill_over_rank")
LAZY = {
    "baseline:uniform": "ignores the request",
    "baseline:argmax": "all on the larger",
    "baseline:two_level": "step function",
    "baseline:rank_only": "rank only",
    "baseline:perfect": "perfect",
}


def console_table(workdir: str | Path) -> str:
    """The table as text lines without escape sequences, a final newline included.

    Raises UserError when metrics.json is missing or a file of the run is corrupt.
    """
    run = read_run(workdir)
    rows = Rows(run.rows)
    here = place(rows)
    name = model_name(run)
    if here is None:
        return f"{name}: no result of the control suite in this run\n"
    lines = [
        f"{name}: {here[0]}, {here[1]}; 95% intervals"
        + (", one seed" if one_seed(run, rows) else "")
    ]
    lines += _table(rows, here)
    missing = [stage for stage in STAGES if stage not in rows.stages("control")]
    if missing:
        lines.append(f"not in this run: {', '.join(missing)}")
    lines += _sample(run, subject(rows))
    return "\n".join(lines).replace("\u00a0", " ").replace("−", "-").replace("–", "-") + "\n"


def _table(rows: Rows, here: tuple[str, str]) -> list[str]:
    split, where = here
    cells = [["", *(LABELS[metric] for metric in METRICS), "n", "clusters"]]
    for stage, label in ({s: s for s in rows.stages("control")} | LAZY).items():
        found = [rows.get(stage, "control", split, where, metric) for metric in METRICS]
        if any(found):
            first = next(row for row in found if row)
            counts = (str(first["n"]), str(first["clusters"]))
            cells.append([plain_text(label), *map(figure, found), *counts])
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in cells
    ]


def _sample(run: Run, stage: str | None) -> list[str]:
    sample = next((s for s in run.samples or [] if s["stage"] == stage), None)
    if sample is None:
        return []
    pairs = zip(sample["words"], sample["targets"])
    asked = ", ".join(f"{visible(word)} {number(target)}" for word, target in pairs)
    given = ", ".join(f"{visible(word['text'])} {number(word['p'])}" for word in sample["top"][:4])
    return [f"e.g. asked {asked}; {plain_text(str(stage))} gives {given}"]
