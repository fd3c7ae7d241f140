"""report.html: one self-contained page made from a run's files alone."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2

from antiimit_jax.reporting import plots
from antiimit_jax.reporting.rows import page_text, plain_text
from antiimit_jax.reporting.run_files import Run, Schemas, read_run, write_text
from antiimit_jax.reporting.training_section import step_counts, training_section
from antiimit_jax.trees import flat

Suites = Mapping[str, ModuleType]


def schemas(suites: Suites) -> Schemas:
    """The tables of all suites."""
    return {name: schema for suite in suites.values() for name, schema in suite.TABLES.items()}


def write_report(workdir: str | Path, suites: Suites) -> Path:
    """Writes report.html into a run's folder and returns its path.

    Raises UserError when metrics.json is missing or a file of the run is corrupt.
    """
    run = read_run(workdir, schemas(suites))
    return write_text(run.path / "report.html", render(run, suites))


def render(run: Run, suites: Suites) -> str:
    """The page as HTML text; nothing in it is loaded from elsewhere."""
    how = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, **how)
    environment.filters["plain"] = plain_text
    sections = {name: suites[name].section(run.tables, run.rows) for name in asked(run, suites)}
    return environment.get_template("report.html.j2").render(
        model=model_name(run),
        run=run,
        steps=step_counts(run),
        absent=missing_parts(run, suites),
        one_seed=one_seed(run),
        sections=sections | {"training": training_section(run)},
        svg=plots.svg,
        settings=settings(run, suites),
        date=datetime.date.today().isoformat(),
    )


def asked(run: Run, suites: Suites) -> list[str]:
    """The suites of the run's configuration and those with rows; all where it is not there."""
    wanted = run.config["config"].get("suites", ()) if run.config else suites
    measured = {row["suite"] for row in run.rows.all}
    return [name for name in suites if name in measured or name in wanted]


def model_name(run: Run) -> str:
    """The model's name; of a folder or file only the last part."""
    name = plain_text(str(run.info.get("model") or "unnamed model"))
    return Path(name).name if name.startswith(("/", ".", "~")) else name


def one_seed(run: Run) -> bool:
    """Whether the run has adapters, and none was trained from a second seed."""
    seeds = {stage.adapter_seed for stage in run.rows.of_run if stage.kind != "base"}
    return len(seeds) == 1


def missing_stages(run: Run) -> list[str]:
    """Kinds of stage that a study has and this run does not."""
    there = {stage.kind for stage in run.rows.of_run}
    return [kind for kind in ("base", "tuned", "placebo") if kind not in there]


def missing_parts(run: Run, suites: Suites) -> list[str]:
    """Stages, splits and files that this run does not have."""
    splits, files = [], []
    for name in asked(run, suites):
        suite, there = suites[name], run.rows.splits(name)
        splits += [s for s in getattr(suite, "SPLITS", ()) if there and s not in there]
        files += [f"{table}.parquet" for table in suite.TABLES if table not in run.tables]
    files += ["training.parquet"] if run.training is None else []
    files += [] if run.config else ["config.json"]
    stages = [f"stage {kind}" for kind in missing_stages(run)]
    return [*stages, *(f"split {split}" for split in splits), *files]


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
