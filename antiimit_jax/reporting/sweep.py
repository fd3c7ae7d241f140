"""Runs that differ in a few fields, side by side: a table of some figures and one picture."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from antiimit_jax.errors import UserError
from antiimit_jax.reporting import plots, run_files
from antiimit_jax.reporting.rows import Rows
from antiimit_jax.results import ROW_KEYS

_NAME = re.compile(r"\w[\w.-]*")
_PANEL = (2.9, 2.4)  # inches


class Place(NamedTuple):
    """Where a figure stands in metrics.json, and its name for people."""

    suite: str
    split: str
    slice: str
    metric: str
    label: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Cells, each a run of its own, in series; and which of their figures are told and drawn.

    Raises:
      UserError: a series or cell whose name cannot be a folder's.
    """

    cells: Mapping[str, Mapping[str, Mapping[str, Any]]]  # series -> cell -> dotted field -> value
    figures: Sequence[Place]  # a column of panels each, a line of them for each series
    against: Place | None = None  # the other axis; None: the cells in their order

    def __post_init__(self) -> None:
        names = [name for series, cells in self.cells.items() for name in (series, *cells)]
        if wrong := [name for name in names if not _NAME.fullmatch(name)]:
            raise UserError(
                f"the sweep names {wrong[0]!r}: name series and cells with letters, digits, '_', "
                "'-' and '.', since each has a folder"
            )

    def folders(self, root: Path) -> dict[Path, Mapping[str, Any]]:
        """The folder of every cell, and the fields that it sets."""
        return {
            root / series / cell: fields
            for series, cells in self.cells.items()
            for cell, fields in cells.items()
        }

    @property
    def places(self) -> tuple[Place, ...]:
        """All that is told of a cell."""
        return (*self.figures, *filter(None, (self.against,)))


def write_sweep(root: Path, sweep: Sweep) -> None:
    """Writes sweep.tsv and sweep.svg of the cells that are done.

    sweep.tsv holds the rows of metrics.json at the sweep's places, behind their series and cell.

    Raises:
      UserError: the metrics.json of a cell cannot be read.
    """
    done = {
        folder: run_files.rows_of(run_files.read_metrics(folder))
        for folder in sweep.folders(root)
        if (folder / run_files.METRICS).is_file()
    }
    lines = ["\t".join(("series", "cell", *ROW_KEYS))]
    for folder, rows in done.items():
        for place in sweep.places:
            found = (rows.get(stage, *place[:4]) for stage in rows.stages(place.suite))
            for row in filter(None, found):
                values = ["" if row[key] is None else str(row[key]) for key in ROW_KEYS]
                lines.append("\t".join((folder.parent.name, folder.name, *values)))
    run_files.write_text(root / "sweep.tsv", "\n".join(lines) + "\n")
    named = {(folder.parent.name, folder.name): rows for folder, rows in done.items()}
    label = " and ".join(place.label for place in sweep.figures)
    picture = plots.svg(sweep_figure(named, sweep), "sweep", f"{label} of each cell")
    run_files.write_text(root / "sweep.svg", picture)


def sweep_figure(done: Mapping[tuple[str, str], Rows], sweep: Sweep) -> Figure:
    """A panel for each series and figure: a point for each cell's tuned model, or for each seed's.

    Args:
      done: (series, cell) -> the rows of its run.
    """
    with style.context(plots.STYLE):
        wide, high = len(sweep.figures), len(sweep.cells)
        size = (wide * _PANEL[0], high * _PANEL[1])
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(high, wide, squeeze=False)
        for line, (series, cells) in zip(panels, sweep.cells.items()):
            there = {cell: done.get((series, cell)) for cell in cells}
            for axes, place in zip(line, sweep.figures):
                _panel(axes, there, place, sweep.against)
                x = sweep.against.label if sweep.against else series.replace("_", " ")
                axes.set(xlabel=x, ylabel=place.label, title=series.replace("_", " "))
        return figure


def _panel(
    axes: Axes, cells: Mapping[str, Rows | None], place: Place, against: Place | None
) -> None:
    for number, (cell, rows) in enumerate(cells.items()):
        stages = rows.stages(place.suite) if rows else ()
        for stage in [name for name in stages if rows.kind(name) != "base"]:
            row = rows.get(stage, *place[:4])
            other = rows.get(stage, *against[:4]) if against else {"value": number}
            if not row or not other or None in (row["value"], other["value"]):
                continue
            x, ends = other["value"], [row["value"], row["ci_low"], row["ci_high"]]
            plots.mark(axes, x, ends, plots.look(stage))
            if against and None not in (other["ci_low"], other["ci_high"]):
                axes.plot(
                    [other["ci_low"], other["ci_high"]], [ends[0]] * 2, color=plots.INK, lw=0.6
                )
            if against:
                axes.annotate(cell, (x, ends[0]), xytext=(4, 3), textcoords="offset points", size=7)
    if not against:
        axes.set_xticks(range(len(cells)), list(cells))
        axes.set_xlim(-0.5, len(cells) - 0.5)
