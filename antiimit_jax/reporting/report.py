"""report.html: one self-contained page made from a run's files alone."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import jinja2

from antiimit_jax.reporting import plots, sections_control, sections_run
from antiimit_jax.reporting.rows import CONTROL_COLUMNS, STAGES, Rows, ordered, plain_text
from antiimit_jax.reporting.run_files import Run, read_run, write_text

_TEMPLATES = Path(__file__).parent / "templates"


def write_report(workdir: str | Path) -> Path:
    """Writes report.html into a run's folder and returns its path.

    Raises UserError when metrics.json is missing or a file of the run is corrupt.
    """
    run = read_run(workdir)
    return write_text(run.path / "report.html", render(run))


def render(run: Run) -> str:
    """The page as HTML text; nothing in it is loaded from elsewhere."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.j2").render(**context(run))


def context(run: Run) -> dict[str, Any]:
    """What the template shows, section by section, in the page's order."""
    rows = Rows(run.rows)
    stages = ordered((*rows.stages("control"), *rows.stages("drift")), STAGES)
    return {
        "model": model_name(run),
        "what": what_was_run(run, rows),
        "absent": missing_parts(run, rows),
        "legend": [(s, plots.colour(s), plots.SIGNS.get(s, "◆")) for s in stages],
        "one_seed": sections_run.one_seed(run, rows),
        "headline": sections_control.headline(rows, sections_run.step_counts(run)),
        "calibration": sections_control.calibration_panels(run, rows),
        "tables": sections_control.control_tables(rows),
        "explained": sections_control.explained(CONTROL_COLUMNS),
        "gap": sections_control.gap(rows),
        "slices": sections_control.slice_panels(rows),
        "unlike": sections_control.compared(
            rows, sections_control.UNLIKE_TRAINING, "tvd_res", ("baseline:uniform",)
        ),
        "scoring": sections_control.scoring(rows),
        "residual": sections_run.residual(run),
        "drift": sections_run.drift(run, rows),
        "training": sections_run.training(run),
        "examples": sections_run.examples(run),
        "others": sections_run.other_suites(rows),
        "settings": sections_run.settings(run),
        "date": datetime.date.today().isoformat(),
    }


def model_name(run: Run) -> str:
    """The model's name; of a folder or file only the last part."""
    name = plain_text(str(run.info.get("model") or "unnamed model"))
    return Path(name).name if name.startswith(("/", ".", "~")) else name


def what_was_run(run: Run, rows: Rows) -> str:
    """One sentence: which stages, how many items, how long trained, precision and seed."""
    stages, info = rows.stages("control"), run.info
    told = {
        "base": "before tuning",
        "tuned": "tuned on exact target shares",
        "placebo": "as placebo (trained on percentages shuffled across items)",
    }
    text = "Words were asked for in stated percentages and their exact probabilities read off"
    if stages:
        text += ": " + ", ".join(told.get(stage, stage) for stage in stages)
    text += f"; {sections_run.count_items(rows):,} items a stage"
    if steps := sections_run.steps_sentence(run):
        text += f"; training {steps}"
    for key, words in (("dtype", "precision"), ("seed", "seed")):
        if info.get(key) is not None:
            text += f"; {words} {plain_text(str(info[key]))}"
    return text + "."


def missing_parts(run: Run, rows: Rows) -> list[str]:
    """Stages, splits and files that this run does not have."""
    stages, splits = rows.stages("control"), rows.splits("control")
    names = ["items", "drift", "training", "residual", "samples", "config"]
    files = [n for n in names if getattr(run, n) is None]
    return (
        [f"stage {s}" for s in STAGES if s not in stages]
        + [f"split {s}" for s in sections_control.SPLIT_MEANING if s not in splits]
        + [f"{n}.json" if n in ("samples", "config") else f"{n}.parquet" for n in files]
    )
