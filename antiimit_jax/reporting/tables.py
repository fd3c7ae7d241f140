"""Tables of figures for a page: a line a stage or baseline, a column a metric, notes said once."""

from collections.abc import Mapping, Sequence

from antiimit_jax.metrics.intervals import NOT_COMPUTED
from antiimit_jax.reporting.rows import Rows, figure, interval, value_of, value_text
from antiimit_jax.results import Cell, Figure, Line, Row, Table

Place = tuple[str, str, str]  # suite, split, slice
Labels = Mapping[str, str]  # the name of a stage or slice -> its label


def figure_table(
    rows: Rows, place: Place, figures: Sequence[Figure], lines: Labels, title: str = "", fold=""
) -> Table:
    """A line a stage or baseline that has rows, a column a figure that any of them has.

    Cells that are empty all the same are explained; `fold` as in `Table`.
    """
    had = lambda f: any(value_of(rows.get(line, *place, f.name)) is not None for line in lines)
    missing = [f"{f.label} needs {f.needs}" for f in figures if f.needs and not had(f)]
    figures = [f for f in figures if had(f)]
    found = {stage: [rows.get(stage, *place, f.name) for f in figures] for stage in lines}
    present = {stage: list(filter(None, line)) for stage, line in found.items() if any(line)}
    general = _shared([row for line in present.values() for row in line])
    marks: dict[str, str] = {}
    body = []
    for stage, there in present.items():
        first, kind = there[0], "baseline" if ":" in stage else "stage"
        own = [note for note in _shared(there) if note not in general]
        known, pairs = {*general, *own}, zip(found[stage], figures)
        cells = [_cell(row, f.decimals, first["n"], marks, known) for row, f in pairs]
        cells += [str(first["n"]), str(first["clusters"])]
        body.append(Line(label=lines[stage], mark=_marks(own, marks), cells=cells, kind=kind))
    notes = [f"All rows: {'; '.join(general)}."] if general else []
    notes += ["; ".join(f"{mark}: {note}" for note, mark in marks.items()) + "."] if marks else []
    notes += [f"Not computed in this run: {'; '.join(missing)}."] if missing else []
    head = ["", *(f.label for f in figures), "n", "clusters"]
    return Table(title=title, head=head, body=body, notes=notes, fold=fold)


def slice_table(
    rows: Rows, where: tuple[str, str], metric: Figure, slices: Labels, stages: Labels, **shown: str
) -> Table:
    """One figure at a suite and split: a line a slice, a column a stage; `shown`: title or fold."""
    body = []
    for name, label in slices.items():
        found = [rows.get(stage, *where, name, metric.name) for stage in stages]
        if first := next(filter(None, found), None):
            figures = [figure(row, metric.decimals) for row in found]
            cells = [*figures, str(first["n"]), str(first["clusters"])]
            body.append(Line(label=label, cells=cells))
    return Table(head=[metric.label, *stages.values(), "n", "clusters"], body=body, **shown)


def _cell(row: Row | None, digits: int, n: int, marks: dict[str, str], known: set[str]) -> Cell:
    small = [interval(row, digits)] if interval(row, digits) else []
    if value_of(row) is not None and row["n"] != n:
        small.append(f"n {row['n']}")
    own = [note for note in _notes(row) if note not in known]
    return Cell(text=value_text(row, digits), small=", ".join(small), mark=_marks(own, marks))


def _notes(row: Row | None) -> list[str]:
    """A row's notes, less the one that the absence of an interval already tells."""
    parts = ((row or {}).get("note") or "").split("; ")
    return [part for part in parts if part and part != NOT_COMPUTED]


def _shared(found: list[Row]) -> list[str]:
    """Notes that all these rows have, to be said once."""
    first = _notes(found[0]) if found else []
    return [note for note in first if all(note in _notes(row) for row in found)]


def _marks(notes: list[str], marks: dict[str, str]) -> str:
    """Footnote letters of these notes, new ones added to `marks`."""
    return ",".join(marks.setdefault(note, chr(ord("a") + len(marks) % 26)) for note in notes)
