"""report.html: one self-contained page made from a run's files alone."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
from markupsafe import Markup

from antiimit_jax.reporting import plots
from antiimit_jax.reporting.rows import page_text, plain_text
from antiimit_jax.reporting.run_files import Run, Schemas, read_run, write_text
from antiimit_jax.reporting.training_section import step_counts, training_section
from antiimit_jax.results import Picture, Section
from antiimit_jax.trees import flat

Suites = Mapping[str, ModuleType]
_TEMPLATES = Path(__file__).parent / "templates"


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
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found = sections(run, suites) | {"training": training_section(run)}
    return environment.get_template("report.html.j2").render(
        model=model_name(run),
        what=what_was_run(run),
        absent=missing_parts(run, suites),
        one_seed=one_seed(run),
        sections=found,
        drawn=_drawn,
        settings=settings(run, suites),
        date=datetime.date.today().isoformat(),
    )


def sections(run: Run, suites: Suites) -> dict[str, Section]:
    """The sections of the suites that were asked for, or have rows, in the suites' order."""
    return {name: suites[name].section(run.tables, run.rows) for name in asked(run, suites)}


def asked(run: Run, suites: Suites) -> list[str]:
    """The suites of the run's configuration and those with rows; all where it is not there."""
    wanted = run.config["config"].get("suites", ()) if run.config else suites
    measured = {row["suite"] for row in run.rows.all}
    return [name for name in suites if name in measured or name in wanted]


def model_name(run: Run) -> str:
    """The model's name; of a folder or file only the last part."""
    name = plain_text(str(run.info.get("model") or "unnamed model"))
    return Path(name).name if name.startswith(("/", ".", "~")) else name


def what_was_run(run: Run) -> str:
    """One sentence: which stages, how long trained, precision and seed."""
    told = {
        "base": "before tuning",
        "tuned": "tuned on exact target shares",
        "placebo": "as placebo (trained on percentages shuffled across items)",
    }
    text = "Words were asked for in stated percentages and their exact probabilities read off"
    if stages := run.rows.of_run:
        text += ": " + ", ".join(told.get(stage.name, stage.name) for stage in stages)
    if steps := ", ".join(f"{name}: {n:,} steps" for name, n in step_counts(run).items()):
        text += f"; training {steps}"
    for key, words in (("dtype", "precision"), ("seed", "seed")):
        if run.info.get(key) is not None:
            text += f"; {words} {plain_text(str(run.info[key]))}"
    return text + "."


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
    wanted = asked(run, suites)
    tables = [table for name in wanted for table in suites[name].TABLES if table not in run.tables]
    tables += ["training"] if run.training is None else []
    return (
        [f"stage {kind}" for kind in missing_stages(run)]
        + [
            f"split {split}"
            for name in wanted
            if (there := run.rows.splits(name))
            for split in getattr(suites[name], "SPLITS", ())
            if split not in there
        ]
        + [f"{table}.parquet" for table in tables]
        + ([] if run.config else ["config.json"])
    )


def settings(run: Run, suites: Suites) -> dict[str, Any]:
    """The run block, the resolved config, the files found, and a warning where hashes differ."""
    digest = run.config["config_sha256"] if run.config else None
    warning = ""
    if digest and run.info.get("config_sha256") not in (None, digest):
        warning = (
            "config.json and metrics.json name different config hashes: the settings below "
            "may not be those of the figures."
        )
    tables = [f"{name}.parquet" for name in (*schemas(suites), "training")]
    files = [
        (name, "yes" if (run.path / name).exists() else "absent")
        for name in ("metrics.json", "config.json", *tables)
    ]
    return {
        "info": _shown({key: value for key, value in run.info.items() if key != "stages"}),
        "config": _shown(run.config["config"]) if run.config else [],
        "digest": digest,
        "warning": warning,
        "files": files,
    }


def _shown(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested settings as (dotted key, text); what is null or empty reads "not set"."""
    pairs = []
    for key, value in flat(tree).items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        pairs.append((key, "not set" if value in (None, "", [], {}) else page_text(text)))
    return pairs


def _drawn(picture: Picture) -> Markup:
    return Markup(plots.svg(picture.drawing, picture.name, picture.label))
