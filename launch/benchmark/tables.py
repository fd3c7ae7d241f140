"""The benchmark's tables, for a terminal and for a README, and its plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Result = Mapping[str, Any]  # what benchmark.json holds
Lines = list[Sequence[str]]  # head and lines of a table
COLOURS = {"ours": "#1b6ca8", "ours bfloat16": "#7fb3d5", "usual": "#b0413e", "strong": "#e09f3e"}
_FIGURES = {  # head: key and format
    "items/s": ("items_per_s", ".2f"),
    "tokens/s": ("tokens_per_s", ".0f"),
    "of matmul rate": ("matmul_share", ".0%"),
    "padded": ("padded_share", ".1%"),
    "peak MiB": ("peak_memory_mb", ".0f"),
    "loaded MiB": ("loaded_memory_mb", ".0f"),
    "compile s": ("compile_s", ".1f"),
    "first s": ("first_s", ".1f"),
    "batch": ("batch", "d"),
}
_GROWTH = ("time_exponent", "time_expected", "memory_exponent", "memory_expected")


def _tables(result: Result) -> dict[str, Lines]:
    """Ratios, figures and growth, by title; what was not measured is left out."""
    ratios = [
        (
            *(row[key] for key in ("workload", "what", "peer")),
            _spread(row["ours_s"], row["spread"]["ours"]),
            _spread(row["peer_s"], row["spread"]["peer"]),
            _number(row["ratio"], ".2f"),
        )
        for row in result["rows"]
    ]
    figures = [
        (
            *(one[key] for key in ("workload", "what", "side")),
            *(_number(one.get(key), form) for key, form in _FIGURES.values()),
        )
        for one in result["figures"]
    ]
    behind = [
        (row["axis"], *(f"{x:.2f}" for x in (*row["seconds"], row["ratio"], row["limit"])))
        + (f"{row['needed']:.2f}",)
        for row in result["behind_one_prompt"]
    ]
    growth = [
        (
            row["what"],
            row["axis"],
            f"{row['factor']:.2f}",
            *(_number(row[k], ".2f") for k in _GROWTH),
        )
        for row in result["growth"]
    ]
    made = {
        "Against the peers, in seconds: median (least-most)": [
            ("workload", "what", "peer", "ours", "peer's", "ratio"),
            *ratios,
        ],
        "Figures": [("workload", "what", "side", *_FIGURES), *figures],
        "Behind one prompt": [
            ("from, to", "before s", "after s", "ratio", "at most", "by operations"),
            *behind,
        ],
        "Growth: exponents, measured against expected": [
            ("what", "axis", "factor", "time", "expected", "memory", "expected"),
            *growth,
        ],
    }
    return {title: lines for title, lines in made.items() if len(lines) > 1}


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _spread(median: float | None, ends: Sequence[float] | None) -> str:
    return "-" if median is None else f"{median:.2f} ({ends[0]:.2f}-{ends[1]:.2f})"


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
    for title, lines in _tables(result).items():
        parts += [heading.format(title), *table(lines), ""]
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
        ends = [[end / one["n_items"] for end in one["spread"]] for one in shown]
        errors = [
            [s - least for s, (least, _) in zip(each, ends)],
            [most - s for s, (_, most) in zip(each, ends)],
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
