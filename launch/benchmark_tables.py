"""The benchmark's tables, for a terminal and for a README, and its plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Result = Mapping[str, Any]  # what benchmark.json holds
Table = tuple[str, list[list[str]]]  # a title; head and lines
COLOURS = {"ours": "#1b6ca8", "ours bfloat16": "#7fb3d5", "usual": "#b0413e", "strong": "#e09f3e"}


def tables(result: Result) -> list[Table]:
    """Ratios, figures and growth; what was not measured is left out."""
    made = [
        ("Against the peers, in seconds: median (least-most)", _ratios(result["rows"])),
        ("Figures", _figures(result["figures"])),
        ("Behind one prompt", _behind(result["behind_one_prompt"])),
        ("Growth: exponents, measured against expected", _growth(result["growth"])),
    ]
    return [(title, lines) for title, lines in made if len(lines) > 1]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _spread(median: float | None, ends: Sequence[float] | None) -> str:
    return "-" if median is None else f"{median:.2f} ({ends[0]:.2f}-{ends[1]:.2f})"


def _ratios(rows: Sequence[Result]) -> list[list[str]]:
    lines = [["workload", "what", "peer", "ours", "peer's", "ratio"]]
    for row in rows:
        lines.append(
            [
                row["workload"],
                row["what"],
                row["peer"],
                _spread(row["ours_s"], row["spread"]["ours"]),
                _spread(row["peer_s"], row["spread"]["peer"]),
                _number(row["ratio"], ".2f"),
            ]
        )
    return lines


def _figures(figures: Sequence[Result]) -> list[list[str]]:
    lines = [
        [
            "workload",
            "what",
            "side",
            "items/s",
            "tokens/s",
            "of matmul rate",
            "padded",
            "peak MiB",
            "loaded MiB",
            "compile s",
            "first s",
            "batch",
        ]
    ]
    for one in figures:
        lines.append(
            [
                one["workload"],
                one["what"],
                one["side"],
                _number(one["items_per_s"], ".2f"),
                _number(one["tokens_per_s"], ".0f"),
                _number(one["matmul_share"], ".0%"),
                _number(one["padded_share"], ".1%"),
                _number(one["peak_memory_mb"], ".0f"),
                _number(one["loaded_memory_mb"], ".0f"),
                _number(one.get("compile_s"), ".1f"),
                _number(one["first_s"], ".1f"),
                _number(one.get("batch"), "d"),
            ]
        )
    return lines


def _behind(rows: Sequence[Result]) -> list[list[str]]:
    lines = [["from, to", "before s", "after s", "ratio", "at most", "by operations"]]
    for row in rows:
        lines.append(
            [
                row["axis"],
                *(f"{s:.2f}" for s in row["seconds"]),
                f"{row['ratio']:.2f}",
                f"{row['limit']:.2f}",
                f"{row['needed']:.2f}",
            ]
        )
    return lines


def _growth(rows: Sequence[Result]) -> list[list[str]]:
    lines = [["what", "axis", "factor", "time", "expected", "memory", "expected"]]
    keys = ("time_exponent", "time_expected", "memory_exponent", "memory_expected")
    for row in rows:
        exponents = [_number(row[key], ".2f") for key in keys]
        lines.append([row["what"], row["axis"], f"{row['factor']:.2f}", *exponents])
    return lines


def plain(result: Result) -> str:
    """For a terminal; notes below."""

    def table(lines: list[list[str]]) -> list[str]:
        widths = [max(map(len, column)) for column in zip(*lines)]
        return ["  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in lines]

    return _page(result, lambda title: title, table)


def markdown(result: Result) -> str:
    """For a README: the tables, their notes, and the machine in one sentence."""

    def table(lines: list[list[str]]) -> list[str]:
        words = sum(not cell[:1].isdigit() and cell != "-" for cell in lines[1])
        rule = ["---"] * words + ["---:"] * (len(lines[0]) - words)
        return ["| " + " | ".join(cells) + " |" for cells in [lines[0], rule, *lines[1:]]]

    return _page(result, lambda title: f"**{title}**\n", table)


def _page(result: Result, heading: Callable[[str], str], table: Callable) -> str:
    parts: list[str] = []
    for title, lines in tables(result):
        parts += [heading(title), *table(lines), ""]
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
    parts.append(f"{cores}, float32 products at {rate:.0f} GFLOP/s; {names}.")
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
        each = [1 / one["items_per_s"] for one in shown]
        least, most = ([one["spread"][end] / one["seconds"] for one in shown] for end in (0, 1))
        errors = [
            [s * (1 - low) for s, low in zip(each, least)],
            [s * (high - 1) for s, high in zip(each, most)],
        ]
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
