"""Sweeps: the cells that our config files name, and a small one as a user runs it."""

from __future__ import annotations

import re
import runpy

import numpy as np
import pytest

from antiimit_jax.reporting import run_files
from antiimit_jax.run_config import RunConfig, from_dict
from antiimit_jax.suites import control
from antiimit_jax.tasks.templates import TRAIN_TEMPLATES
from antiimit_jax.trees import flat, nested
from tests.launch.processes import ROOT, SMALL, launch, refused
from tests.tiny_model import write_tiny_model

TWO = """
import ml_collections
from antiimit_jax.reporting.sweep import Place, Sweep
from antiimit_jax.run_config import RunConfig, to_dict


def get_config():
    return ml_collections.ConfigDict(to_dict(RunConfig()))


def get_sweep():
    figure = Place("control", "heldout_words", "k=2", "tvd_res", "TVD")
    cells = {"2": {"train.mixture.word_sets": 2}, "all": {}}
    return Sweep(cells={"word_sets": cells}, figures=(figure,))
"""


def runs_of(name: str) -> dict[str, RunConfig]:
    """Series and cell -> its run."""
    made = runpy.run_path(str(ROOT / "configs" / name))
    fields = flat(made["get_config"]().to_dict())
    cells = made["get_sweep"]().folders(ROOT)
    return {
        str(folder.relative_to(ROOT)): from_dict(nested(fields | changed))
        for folder, changed in cells.items()
    }


@pytest.mark.parametrize("name", ["curves.py", "frontier.py"])
def test_every_cell_is_a_run_that_measures_what_is_drawn(name):
    runs, sweep = runs_of(name), runpy.run_path(str(ROOT / "configs" / name))["get_sweep"]()
    assert len({str(run) for run in runs.values()}) >= 6
    (cfg,) = {run.control for run in runs.values()}  # all are asked the same
    items = control.items_of(cfg, 0)
    heldout = np.array([item.facets["template_heldout"] for item in items])
    sets = lambda mask: len({item.cluster for item, there in zip(items, mask) if there})
    counts = {"k=2": sets(~heldout), "k=2,templates=heldout": sets(heldout)}
    drawn = {place.slice for place in sweep.figures if place.suite == "control"}
    assert min(counts[where] for where in drawn) >= 20
    (suites,) = {run.suites for run in runs.values()}
    assert {place.suite for place in sweep.places} <= set(suites)


def test_curves_limit_word_sets_or_phrasings_and_not_both():
    runs = runs_of("curves.py")
    trained = {n: run.train.mixture for n, run in runs.items()}
    limits = {(m.word_sets, len(m.templates)) for m in trained.values()}
    most = len(TRAIN_TEMPLATES)
    assert len(runs) == 11 and runs["word_sets/all"] == runs["phrasings/all"]
    by_sets = {(n, most) for n in (0, 10, 30, 100, 300, 1000)}
    assert limits == by_sets | {(0, n) for n in (1, 2, 4, 8)}


def test_a_sweep_runs_its_cells_and_goes_on_where_it_stood(tmp_path):
    model, config = write_tiny_model(tmp_path / "tiny"), tmp_path / "two.py"
    config.write_text(TWO)
    flags = (f"--config={config}", f"--model={model}", f"--workdir={tmp_path / 'w'}", *SMALL)
    flags += ("--suites=control", "--config.train.steps=2")
    first = launch("sweep", *flags)
    assert first.returncode == 0, first.stderr
    assert len(re.findall(r"about \d+ (?:seconds|minutes) for this cell\n", first.stderr)) == 2
    table = (tmp_path / "w" / "sweep.tsv").read_text()
    assert [line.split("\t")[1:3] for line in table.splitlines()[1:]] == [
        ["2", "base"],
        ["2", "tuned"],
        ["all", "base"],
        ["all", "tuned"],
    ]
    config_of = lambda cell: run_files.read_config(tmp_path / "w" / "word_sets" / cell)["config"]
    assert [config_of(cell)["train"]["mixture"]["word_sets"] for cell in ("2", "all")] == [2, 0]
    weights = tmp_path / "w" / "word_sets" / "all" / "adapter" / "adapter_model.safetensors"
    before = weights.stat().st_mtime_ns
    again = launch("sweep", *flags)
    assert again.returncode == 0 and (tmp_path / "w" / "sweep.tsv").read_text() == table
    assert weights.stat().st_mtime_ns == before
    assert "training" not in again.stderr and "for this cell" not in again.stderr


def test_a_config_without_cells_is_refused(tmp_path):
    refused(launch("sweep", f"--workdir={tmp_path}"), "quickstart.py: has no get_sweep")
