"""report.html: one self-contained page made from a run's files alone."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2

from antiimit_jax.files import json_text
from antiimit_jax.reporting import plots
from antiimit_jax.reporting.questions import open_questions
from antiimit_jax.reporting.rows import Rows, page_text, plain_text
from antiimit_jax.reporting.run_files import Run, Schemas, read_run, write_text
from antiimit_jax.reporting.training_section import step_counts, training_section
from antiimit_jax.reporting.verdicts import VERDICTS, as_dict, verdict_section, verdicts
from antiimit_jax.results import Question
from antiimit_jax.trees import flat

PAGE = "report.html"
Suites = Mapping[str, ModuleType]


def schemas(suites: Suites) -> Schemas:
    """The tables of all suites."""
    return {name: schema for suite in suites.values() for name, schema in suite.TABLES.items()}


def write_report(workdir: str | Path, suites: Suites) -> Path:
    """Writes report.html, and verdicts.json of a run with adapters; returns the page's path.

    Raises UserError when metrics.json is missing or a file of the run is corrupt.
    """
    run = read_run(workdir, schemas(suites))
    if run.rows.n_seeds:
        write_text(run.path / VERDICTS, json_text(as_dict(verdicts(run.rows)), indent=1) + "\n")
    return write_text(run.path / PAGE, render(run, suites))


def template(name: str) -> jinja2.Template:
    """A page's template; what it is given is escaped."""
    how = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, **how)
    environment.filters["plain"] = plain_text
    return environment.get_template(name)


def render(run: Run, suites: Suites) -> str:
    """The page as HTML text; nothing in it is loaded from elsewhere."""
    sections = {name: suites[name].section(run.tables, run.rows) for name in measured(run, suites)}
    if run.training is not None or run.rows.n_seeds:
        sections["training"] = training_section(run)
    if run.rows.n_seeds:
        sections["verdicts"] = verdict_section(run.rows)
    return template("report.html.j2").render(
        model=model_name(run),
        run=run,
        steps=step_counts(run),
        absent=missing_parts(run, suites),
        questions=questions(run, suites),
        one_seed=run.rows.n_seeds == 1,
        base_alone=not adapters(run),
        sections=sections,
        svg=plots.svg,
        settings=settings(run, suites),
        date=datetime.date.today().isoformat(),
    )


def measured(run: Run, suites: Suites) -> list[str]:
    """The suites with rows."""
    there = {row["suite"] for row in run.rows.all}
    return [name for name in suites if name in there]


def headline_places(name: str, suite: ModuleType, rows: Rows) -> dict[tuple[str, str], str]:
    """(split, slice) of a suite's headline on each split -> that in words.

    Page, console, model card and TensorBoard show a headline figure from here alone.
    """
    if hasattr(suite, "places"):
        return suite.places(rows)
    return {(split, "all"): split for split in rows.splits(name, getattr(suite, "SPLITS", ()))}


def questions(run: Run, suites: Suites) -> list[Question]:
    """What the run answers of the study's questions, and what it does not."""
    able = [suite for suite in suites.values() if hasattr(suite, "questions")]
    return [q for suite in able for q in suite.questions(run.rows)] + open_questions(run)


def model_name(run: Run) -> str:
    """The model's name; of a folder or file only the last part."""
    name = plain_text(str(run.info.get("model") or "unnamed model"))
    return Path(name).name if name.startswith(("/", ".", "~")) else name


def adapters(run: Run) -> list[str]:
    """The stages that are not the base."""
    return [stage.name for stage in run.rows.of_run if stage.kind != "base"]


def missing_stages(run: Run) -> list[str]:
    """Kinds of stage that a run with adapters of its own should have and this one does not."""
    there = {stage.kind for stage in run.rows.of_run}
    wanted = ("base", "tuned", "placebo") if run.rows.n_seeds else ()
    return [kind for kind in wanted if kind not in there]


def missing_parts(run: Run, suites: Suites) -> list[str]:
    """Suites, stages and splits that were asked for, and files, that this run does not have."""
    config = run.config["config"] if run.config else {}
    there = measured(run, suites)
    parts = [f"stage {kind}" for kind in missing_stages(run)] if there else ["any figure"]
    parts += [f"suite {name}" for name in config.get("suites", ()) if name not in there]
    for name in there:
        group, found = config.get(name, {}), run.rows.splits(name)
        wanted = () if group.get("items_file") else group.get("splits", ())
        parts += [f"split {split}" for split in wanted if split not in found]
    files = [*run.info.get("tables", ()), *(["training.parquet"] if run.rows.n_seeds else [])]
    parts += [name for name in files if not (run.path / name).exists()]
    return parts + ([] if run.config else ["config.json"])


def settings(run: Run, suites: Suites) -> dict[str, Any]:
    """The run block, the resolved config, the files found, and whether the hashes differ."""
    digest = run.config["config_sha256"] if run.config else None
    tables = [f"{name}.parquet" for name in (*schemas(suites), "training")]
    files = {name: (run.path / name).exists() for name in ("metrics.json", "config.json", *tables)}
    return {
        "info": _shown({key: value for key, value in run.info.items() if key != "stages"}),
        "config": _shown(run.config["config"]) if run.config else [],
        "digest": digest,
        "differs": digest and run.info.get("config_sha256") not in (None, digest),
        "files": files,
    }


def _shown(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested settings as (dotted key, text); what is null or empty reads "not set"."""
    pairs = []
    for key, value in flat(tree).items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        pairs.append((key, "not set" if value in (None, "", [], {}) else page_text(text)))
    return pairs
