"""Reading the runs of several models, each as it is, which must have answered the same items."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.fields import own_files
from antiimit_jax.json_files import read_json_lines
from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.intervals import Estimate
from antiimit_jax.models.catalog import alias_of, entry_of, pair_of, series_of
from antiimit_jax.models.known import find_known, n_params
from antiimit_jax.reporting import run_files
from antiimit_jax.reporting.compared_models import BESIDE, Model
from antiimit_jax.reporting.identity import differing
from antiimit_jax.reporting.rows import Rows, plain_text
from antiimit_jax.results import BASE, Columns, taken
from antiimit_jax.run_config import RunConfig, to_dict
from antiimit_jax.suites.control import ITEMS, results_of
from antiimit_jax.tasks.templates import plain_requests
from antiimit_jax.trees import flat
from launch.saved_config import read_saved

ABOUT = {
    "model": str,
    "family": str,
    "post_trained": bool,
    "pair?": str,
    "parameters?": float,
    "format?": frozenset(("base", "chat")),
}  # a line of --models
_HINT = (
    'give a line such as {"model": "my-1b-chat", "family": "my", "post_trained": true, '
    '"pair": "my-1b", "parameters": 1.1e9} for each model that is not in the catalog'
)
_FIRST = ("heldout_words", "items")  # splits that are compared where they are there
_SAME = (  # what makes two items one
    *("split", "item", "cluster", "k", "template", "n_shots", "shot_set", "order"),
    *("template_heldout", "word", "target", "scoring"),
)
_SETTINGS = (  # of the items, in a configuration
    *("eval_seed", "forms", "terminators", "words_file", "templates_file", "control"),
)
_NOTED = ("dtype", "quantize", "prompt_date")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadRun:
    """A finished run: its base's answers to two-word plain requests."""

    folder: Path
    info: Mapping[str, Any]
    config: RunConfig
    rows: Rows
    split: str
    table: Columns  # of items, a row an item and word
    answers: ControlResults


def read_runs(folders: Sequence[str]) -> list[ReadRun]:
    """The runs in folders.

    Raises:
      UserError: no such folder, one that is named twice, a run that is not finished or holds no
        answers to compare, or runs of different items.
    """
    runs: list[ReadRun] = []
    for name in folders:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise UserError(f"--runs={name}: no such folder; name the folder of a finished run")
        if any(folder.samefile(run.folder) for run in runs):
            raise UserError(f"--runs={name}: named twice; leave one out")
        runs.append(_read(folder))
    for run in runs[1:]:
        _check_same(runs[0], run)
    return runs


def _read(folder: Path) -> ReadRun:
    if not (folder / run_files.METRICS).is_file():
        hint = "the command that began it goes on with it"
        raise UserError(f"--runs={folder}: not finished (no {run_files.METRICS}); {hint}")
    metrics, config = run_files.read_metrics(folder), read_saved(folder)
    info = metrics["run"]
    run_files.check_tables(folder, info)
    table = run_files.read_tables(folder, {"items": ITEMS}).get(
        "items", {"stage": np.array([], str)}
    )
    table = taken(table, table["stage"] == BASE.name)
    hint = "evaluate it with --suites=control"
    if not len(table["stage"]):
        raise UserError(f"--runs={folder}: holds no answers of the model as it is; {hint}")
    splits = list(dict.fromkeys(table["split"]))
    split = next((name for name in _FIRST if name in splits), splits[0])
    table = taken(table, (table["split"] == split) & (table["k"] == 2))
    table = taken(table, plain_requests(table["template_heldout"], table["n_shots"]))
    if not len(table["stage"]):
        raise UserError(f"--runs={folder}: holds no plain requests for two words; {hint}")
    return ReadRun(
        folder=folder,
        info=info,
        config=config,
        rows=run_files.rows_of(metrics),
        split=split,
        table=table,
        answers=results_of(table),
    )


def _check_same(one: ReadRun, other: ReadRun) -> None:
    """Raises UserError where two runs did not answer the same items, by the same rule."""
    files = differing(one.info.get("own_files", {}), other.info.get("own_files", {}))
    files = [name for name in files if name.partition(".")[0] in _SETTINGS]
    items = [name for name in _SAME if not np.array_equal(one.table[name], other.table[name])]
    if not files and not items:
        return
    ours, theirs = (_settings(run.config) for run in (one, other))
    differ = [f"{name} ({ours[name]} and {theirs[name]})" for name in differing(ours, theirs)]
    differ += [f"the file of {name}" for name in files]
    why = ", ".join(differ[:4]) or f"{', '.join(items)} (made by other versions of the code)"
    raise UserError(
        f"--runs={other.folder}: did not answer the same items as {one.folder}: they differ in "
        f"{why}; evaluate one of them with --config={one.folder / run_files.CONFIG}"
    )


def _settings(config: RunConfig) -> dict[str, Any]:
    """What decides which items are asked and how they are scored; files count by their hashes."""
    own = own_files(config)
    return {
        name: value
        for name, value in flat(to_dict(config)).items()
        if name.partition(".")[0] in _SETTINGS and name not in own
    }


def read_about(file: str | None) -> dict[str, dict[str, Any]]:
    """What the user's file tells of models, by name.

    Raises:
      UserError: a line is not of the shape, or names a model that an earlier one does.
    """
    about: dict[str, dict[str, Any]] = {}
    if file is None:
        return about
    for number, line in enumerate(
        read_json_lines(Path(file).expanduser(), ABOUT, hint=_HINT).entries, 1
    ):
        where = f"--models={file}: line {number}"
        if line["model"] in about:
            raise UserError(f"{where}: {line['model']} is there twice; leave one out")
        if not line.get("parameters", 1) > 0:
            raise UserError(f"{where}: parameters must be above 0; give their number")
        about[line["model"]] = line
    return about


def compared_models(runs: Sequence[ReadRun], about: Mapping[str, dict[str, Any]]) -> list[Model]:
    """Runs as models of families and pairs.

    Args:
      about: of `read_about`: by the name that --model had, or the last part of its path.

    Raises:
      UserError: neither `about` nor the catalog knows a model, or two runs are of the same model
        and format, or of two models that would be the same of a pair.
    """
    models: list[Model] = []
    for run in runs:
        model = _model(run, about)
        for earlier in models:
            place = (model.pair or model.name, model.post_trained, model.format)
            if place == (earlier.pair or earlier.name, earlier.post_trained, earlier.format):
                what = f"holds {model.name} in {model.format} format, as {earlier.run} does"
                raise UserError(f"--runs={run.folder}: {what}; leave one out")
        models.append(model)
    used = {name for run in runs for name in _names(run)}
    if unused := [name for name in about if name not in used]:
        raise UserError(f"--models: no run is of {unused[0]}; its name is what --model was")
    return models


def _names(run: ReadRun) -> tuple[str, str]:
    return run.config.model, Path(run.config.model).name


def _model(run: ReadRun, about: Mapping[str, dict[str, Any]]) -> Model:
    model, entry = run.config.model, entry_of(run.config.model)
    told = next((about[name] for name in _names(run) if name in about), None)
    if told is None and entry is None:
        raise UserError(
            f"--runs={run.folder}: the catalog does not know {model}; {_HINT} (--models)"
        )
    if told is None:
        told = {
            "family": series_of(entry),
            "post_trained": entry.prompt_format == "chat",
            "pair": pair_of(entry),
        }
    return Model(
        name=alias_of(entry) if entry else model,
        run=str(run.folder),
        family=told["family"],
        parameters=told.get("parameters") or _parameters(run),
        pair=told.get("pair", ""),
        post_trained=told["post_trained"],
        format=_format(run, told),
        answers=run.answers,
        beside=_beside(run),
    )


def _beside(run: ReadRun) -> dict[str, Estimate]:
    """What the suite residual found, in runs that hold it."""
    place = (BASE.name, "residual", run.split)
    found = {name: run.rows.get(*place, name, "share") for name in BESIDE}
    return {
        name: Estimate(value=row["value"], low=row["ci_low"], high=row["ci_high"])
        for name, row in found.items()
        if row
    }


def _parameters(run: ReadRun) -> int:
    """Of the model's config.json or the catalog's shape.

    Raises:
      UserError: neither is there.
    """
    try:
        return n_params(find_known(run.config.model).cfg)
    except UserError as error:
        hint = 'tell its "parameters" in a line of --models'
        raise UserError(f"--runs={run.folder}: size unknown ({error}); {hint}") from error


def _format(run: ReadRun, told: Mapping[str, Any]) -> str:
    """ "base" or "chat", as configured, else as told or as the catalog says.

    Raises:
      UserError: it was found from the model's files, so that nothing here tells.
    """
    if run.config.prompt_format != "auto":
        return run.config.prompt_format
    entry = entry_of(run.config.model)
    style = told.get("format") or (entry.prompt_format if entry else "")
    if not style:
        hint = 'add "format": "base" or "chat" to the line of --models'
        raise UserError(f"--runs={run.folder}: its prompt_format was auto; {hint}")
    return style


def what_else_differs(runs: Sequence[ReadRun]) -> list[str]:
    """Settings besides the model that are not the same in all runs, in sentences."""
    said = []
    for name in _NOTED:
        values = {str(run.folder): getattr(run.config, name) for run in runs}
        if len(set(values.values())) > 1:
            shown = ", ".join(f"{value} in {folder}" for folder, value in values.items())
            said.append(plain_text(f"The runs differ in {name}: {shown}."))
    return said
