"""The benchmark's tables, for a terminal and for a README, and its plot."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Result = Mapping[str, Any]  # what benchmark.json holds, or one row of it
Lines = list[list[str]]  # head and lines of a table
COLOURS = {"ours": "#1b6ca8", "ours bfloat16": "#7fb3d5", "usual": "#b0413e", "strong": "#e09f3e"}

# Titles, what they show, and the columns, each a template that a row fills.
_TABLES = json.loads((Path(__file__).parent / "tables.json").read_text("utf-8"))


def _cell(template: str, row: Result) -> str:
    """A template filled; a dash where the row lacks its first value."""
    first = re.search(r"\w+", template)[0]
    return "-" if row.get(first) is None else template.format_map(row)


def plain(result: Result) -> str:
    """For a terminal; notes below."""

    def table(lines: Lines) -> list[str]:
        widths = [max(map(len, column)) for column in zip(*lines)]
        return ["  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in lines]

    return _page(result, "{}", table)


def markdown(result: Result) -> str:
    """For a README: the tables, their notes, and the machine in one sentence."""

    def table(lines: Lines) -> list[str]:
        words = sum(not cell[:1].isdigit() and cell != "-" for cell in lines[1])
        rule = ["---"] * words + ["---:"] * (len(lines[0]) - words)
        return ["| " + " | ".join(cells) + " |" for cells in [lines[0], rule, *lines[1:]]]

    return _page(result, "**{}**\n", table)


def _page(result: Result, heading: str, table: Callable[[Lines], list[str]]) -> str:
    parts: list[str] = []
    for shown in _TABLES:
        columns, rows = shown["columns"], result[shown["rows"]]
        if rows:
            lines = [[_cell(each, row) for each in columns.values()] for row in rows]
            parts += [heading.format(shown["title"]), *table([list(columns), *lines]), ""]
    parts += [
        f"{row['workload']}, {row['what']}, {row['peer']}: {row['note']}."
        for row in result["rows"]
        if row["note"]
    ]
    place = result["machine"]
    versions = place["versions"]
    names = ", ".join(f"{n} {versions[n]}" for n in ("jax", "torch", "transformers", "peft"))
    rate = place["matmul_gflops_float32"]["median"]
    cores = f"{place['cores']} cores of {place['cpu']}"
    parts.append(f"{cores}, float32 matmuls at {rate:.0f} GFLOP/s; {names}.")
    return "\n".join(parts) + "\n"


def plot(result: Result, file: Path) -> None:
    """Time per item and peak memory of each side, workload by workload, as a PNG."""
    from matplotlib.figure import Figure

    figures = result["figures"]
    cases = list(dict.fromkeys((one["workload"], one["what"]) for one in figures))
    sides = [side for side in COLOURS if any(one["side"] == side for one in figures)]
    figure = Figure(figsize=(2.0 + 1.6 * len(cases), 7.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    width = 0.8 / max(len(sides), 1)
    for number, side in enumerate(sides):
        shown = [one for one in figures if one["side"] == side and one["counted"]]
        at = [cases.index((one["workload"], one["what"])) + number * width for one in shown]
        each = [one["seconds"] / one["n_items"] for one in shown]
        ends = [[one["spread"][end] / one["n_items"] for one in shown] for end in (0, 1)]
        errors = np.abs(np.subtract(ends, each))  # below and above
        above.bar(at, each, width, color=COLOURS[side], label=side, yerr=errors, capsize=2)
        memory = [(one["peak_memory_mb"] or 0) / 1024 for one in shown]
        below.bar(at, memory, width, color=COLOURS[side])
    above.set_yscale("log")
    above.set_ylabel("seconds per item")
    figure.legend(loc="outside upper center", frameon=False, ncols=len(COLOURS))
    below.set_ylabel("peak memory, GiB")
    middle = (len(sides) - 1) * width / 2
    below.set_xticks([i + middle for i in range(len(cases))], [f"{w}\n{k}" for w, k in cases])
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)
