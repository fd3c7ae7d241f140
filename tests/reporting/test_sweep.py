"""A sweep's table and picture from the metrics.json of its cells."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.reporting import run_files
from antiimit_jax.reporting.sweep import Place, Sweep, sweep_figure, write_sweep
from antiimit_jax.results import make_row

TVD = Place("control", "heldout_words", "k=2", "tvd_res", "TVD")
KL = Place("drift", "neutral", "all", "kl_base_tuned", "KL")
CURVE = Sweep(
    cells={"sets": {"10": {"train.mixture.word_sets": 10}, "all": {}}, "weight": {"0.5": {}}},
    figures=(TVD,),
)
VALUES = {("sets", "10"): (0.3, 0.02), ("sets", "all"): (0.2, 0.01)}  # TVD and KL when tuned


def write_cells(root: Path) -> None:
    for (series, cell), (tvd, kl) in VALUES.items():
        rows = [
            make_row(stage=stage, value=value, ci_low=value - 0.01, n=90, clusters=30, **place)
            for stage, value, place in (
                ("base", 0.9, dict(zip(Place._fields[:4], TVD))),
                ("tuned", tvd, dict(zip(Place._fields[:4], TVD))),
                ("tuned", kl, dict(zip(Place._fields[:4], KL))),
            )
        ]
        folder = root / series / cell
        folder.mkdir(parents=True)
        run_files.write_metrics(folder, {}, rows)


def test_the_table_holds_the_rows_of_the_cells_that_are_done(tmp_path):
    write_cells(tmp_path)
    write_sweep(tmp_path, CURVE)
    with open(tmp_path / "sweep.tsv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    told = {(line["series"], line["cell"], line["stage"]): line["value"] for line in lines}
    assert told == {
        ("sets", "10", "base"): "0.9",
        ("sets", "10", "tuned"): "0.3",
        ("sets", "all", "base"): "0.9",
        ("sets", "all", "tuned"): "0.2",
    }
    assert {(line["ci_high"], line["n"], line["metric"]) for line in lines} == {
        ("", "90", "tvd_res")
    }
    write_sweep(tmp_path, dataclasses.replace(CURVE, against=KL))
    assert (tmp_path / "sweep.tsv").read_text().count("kl_base_tuned\t0.0") == 2
    assert "weight" in (tmp_path / "sweep.svg").read_text()


def test_cells_stand_in_their_order_or_where_the_other_figure_is(tmp_path):
    write_cells(tmp_path)
    done = {at: run_files.read_run(tmp_path.joinpath(*at), {}).rows for at in VALUES}
    for sweep, places in (
        (CURVE, {(0, 0.3), (1, 0.2)}),
        (dataclasses.replace(CURVE, against=KL), {(0.02, 0.3), (0.01, 0.2)}),
    ):
        curve, empty = sweep_figure(done, sweep).axes
        drawn = {(*line.get_xdata(), *line.get_ydata()) for line in curve.lines}
        assert drawn == places and not empty.lines
        names = [text.get_text() for text in (curve.texts or curve.get_xticklabels())]
        assert names == ["10", "all"]


def test_a_name_that_no_folder_can_have_is_refused():
    with pytest.raises(UserError, match=r"names '\.\./up': name series and cells with letters"):
        Sweep(cells={"sets": {"../up": {}}}, figures=(TVD,))
