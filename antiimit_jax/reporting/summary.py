"""The short console table of a run: stages and lazy baselines with intervals, plain text."""

import itertools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from antiimit_jax.reporting.report import Suites, missing_stages, model_name, schemas
from antiimit_jax.reporting.rows import Rows, number, plain_text, visible
from antiimit_jax.reporting.run_files import read_run
from antiimit_jax.results import Cell, Table

WIDTH = 100  # of a line, in characters


def console_table(workdir: str | Path, suites: Suites) -> str:
    """The suites' headlines and an example as text, no escape sequences, a final newline included.

    Where no suite has a headline, what their figures answer.


    Raises UserError when metrics.json is missing or a file of the run is corrupt.
    """
    run = read_run(workdir, schemas(suites))
    name, seeds = model_name(run), ", one seed" if run.rows.n_seeds == 1 else ""
    tables = [suite.headline(run.rows) for suite in suites.values() if hasattr(suite, "headline")]
    lines = []
    for table in filter(None, tables):
        title = f"{name}: {table.title}; {_brackets(table)}{seeds}"
        lines += [*textwrap.wrap(title, WIDTH, break_on_hyphens=False), *text_table(table, WIDTH)]
    if lines and (missing := missing_stages(run)):
        lines.append(f"not in this run: {', '.join(missing)}")
    for suite in suites.values():
        found = suite.samples(run.tables) if hasattr(suite, "samples") else []
        wanted = run.rows.subject("control")
        lines += [_sample(sample) for sample in found if sample["stage"] == wanted][:1]
    return ascii_signs(lines or _answers(name, run.rows, suites))


def _answers(name: str, rows: Rows, suites: Suites) -> list[str]:
    """What a run without headline figures answers, a paragraph a question."""
    able = [suite for suite in suites.values() if hasattr(suite, "questions")]
    answered = [question for suite in able for question in suite.questions(rows) if question.found]
    told = [f"{name}: {q.asked} {'; '.join(map(plain_text, q.found))}" for q in answered]
    wrapped = [textwrap.wrap(text, WIDTH, break_on_hyphens=False) for text in told]
    return list(itertools.chain(*wrapped)) or [f"{name}: no headline figures in this run"]


def ascii_signs(lines: Sequence[str]) -> str:
    """Lines for a console: blanks, minus signs and dashes as any terminal has them."""
    return "\n".join(lines).replace("\u00a0", " ").replace("−", "-").replace("–", "-") + "\n"


def text_table(table: Table, width: float = math.inf) -> list[str]:
    """A table as lines of aligned text; columns beyond the width follow below, labelled again."""
    cells = [[plain_text(line.label), *map(_text, line.cells)] for line in table.body]
    cells = [table.head, *cells]
    widths = [max(map(len, column)) for column in zip(*cells)]
    blocks: list[list[int]] = []
    for column in range(1, len(widths)):
        if not blocks or sum(widths[i] + 2 for i in (*blocks[-1], column)) - 2 > width:
            blocks.append([0])
        blocks[-1].append(column)
    return [
        "  ".join(row[i].ljust(widths[i]) for i in block).rstrip()
        for block in blocks
        for row in cells
    ]


def _brackets(table: Table) -> str:
    """What a table's brackets hold, if it has any."""
    cells = itertools.chain.from_iterable(line.cells for line in table.body)
    there = any(isinstance(cell, Cell) and cell.small.startswith("[") for cell in cells)
    return "95% intervals" if there else "no intervals (the page says why)"


def _text(cell: Cell | str) -> str:
    """A cell as text, without an interval that would only repeat the figure."""
    if isinstance(cell, str):
        return cell
    if cell.small in ("", f"[{cell.text},\u00a0{cell.text}]"):
        return cell.text
    return cell.text + (" " if cell.small.startswith("[") else ", ") + cell.small


def _sample(sample: dict) -> str:
    pairs = zip(sample["words"], sample["targets"])
    asked = ", ".join(f"{visible(word)} {number(target)}" for word, target in pairs)
    top = list(zip(sample["top_text"], sample["top_p"]))[:4]
    given = ", ".join(f"{visible(text)} {number(p)}" for text, p in top)
    return f"e.g. asked {asked}; {plain_text(sample['stage'])} gives {given}"
