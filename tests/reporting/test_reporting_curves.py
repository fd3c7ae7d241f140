"""What figures draw, against plain Python; and how numbers and model text are printed."""

from __future__ import annotations

import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.metrics.intervals import clustered_mean
from antiimit_jax.reporting import plots, rows
from antiimit_jax.reporting.report import schemas
from antiimit_jax.reporting.run_files import read_run
from antiimit_jax.suites import SUITES
from antiimit_jax.suites.control.curves import calibration, slope_points
from antiimit_jax.tasks.templates import TEMPLATES

GAMMA = ("gamma", "gamma_step")


def test_calibration_uses_first_words_of_plain_two_word_items_with_mass(full_run):
    items = read_run(full_run, schemas(SUITES)).tables["items"]
    records = [
        r
        for r in pq.read_table(full_run / "items.parquet").to_pylist()
        if r["stage"] == "tuned"
        and r["k"] == 2
        and r["split"] == "heldout_words"
        and r["word_index"] == 0
        and r["n_shots"] == 0
        and not TEMPLATES[r["template"]].heldout
    ]
    data = calibration(items, "tuned", "heldout_words")
    assert data.asked.tolist() == [r["target"] for r in records]
    assert data.share == pytest.approx([r["q"] / (1 - r["residual"]) for r in records])
    assert data.counted.all() and data.grouped
    tenths = {}
    for r in records:
        tenth = math.floor(10 * r["target"] + 1e-9)
        tenths.setdefault(tenth, []).append(r["q"] / (1 - r["residual"]))
    assert data.mean == pytest.approx([sum(v) / len(v) for _, v in sorted(tenths.items())])
    assert calibration(items, "tuned", "nowhere") is None


def test_bands_hold_most_items_of_a_level_and_sets_are_counted(full_run):
    items = read_run(full_run, schemas(SUITES)).tables["items"]
    data = calibration(items, "tuned", "heldout_words")
    plain = ~np.isin(items["template"], [4, 9]) & (items["n_shots"] == 0)
    chosen = (items["stage"] == "tuned") & (items["split"] == "heldout_words") & plain
    chosen &= (items["k"] == 2) & (items["word_index"] == 0)
    tenth = np.floor(10 * data.asked + 1e-9)
    for level, low, high, sets in zip(np.unique(tenth), *data.band, data.sets):
        ordered = np.sort(data.share[tenth == level])
        place = np.linspace(0, 1, ordered.size)
        assert [low, high] == pytest.approx(np.interp([0.1, 0.9], place, ordered))
        assert sets == np.unique(items["cluster"][chosen][tenth == level]).size


def test_points_of_the_slope_picture_give_gamma(full_run):
    run = read_run(full_run, schemas(SUITES))
    for stage in ("base", "tuned"):
        slope, step = np.polyfit(*slope_points(run.tables["items"], stage, "heldout_words"), 1)
        rows_of = [run.rows.get(stage, "control", "heldout_words", "k=2", m) for m in GAMMA]
        assert [slope, step] == pytest.approx([row["value"] for row in rows_of])
    assert slope_points(run.tables["items"], "tuned", "nowhere") is None


def test_items_without_mass_do_not_count(full_run):
    items = read_run(full_run, schemas(SUITES)).tables["items"]
    data = calibration(items, "base", "train")
    assert data.counted.tolist() == (data.mass >= 0.05).tolist() and data.counted.mean() < 0.2


def test_interval_of_a_clustered_mean_is_close_to_the_t_interval_of_cluster_means():
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(60), 5)
    values = rng.normal(size=60)[cluster] + rng.normal(size=300)
    mean, low, high = clustered_mean(values, cluster)
    means = values.reshape(60, 5).mean(1)
    half = 2.0 * means.std(ddof=1) / math.sqrt(60)
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(mean - half, abs=0.15 * half)
    assert high == pytest.approx(mean + half, abs=0.15 * half)
    assert all(map(math.isnan, clustered_mean(values[:10], cluster[:10])[1:]))


def test_drift_by_category(full_run, monkeypatch):
    drawn = {}

    def draw(title, categories, series, log, xlabel):
        drawn[title] = {name: dict(zip(categories, points)) for name, points in series.items()}

    monkeypatch.setattr(plots, "drift_figure", draw)
    run = read_run(full_run, schemas(SUITES))
    section = SUITES["drift"].section(run.tables, run.rows)
    agreement, kl = drawn["top-1 agreement by category"], drawn["KL(base‖stage) by category"]
    assert agreement.keys() == kl.keys() == {*run.tables["drift"]["stage"]}
    records = pq.read_table(full_run / "drift.parquet").to_pylist()
    here = [r for r in records if r["stage"] == "tuned" and r["category"] == "code"]
    assert len(here) == 72 and len({r["prompt_id"] for r in here}) == 6
    value, low, high = agreement["tuned"]["code"]
    assert value == pytest.approx(sum(r["top1_base"] == r["top1_tuned"] for r in here) / len(here))
    assert 0 <= low <= value <= high <= 1
    value, low, high = kl["tuned"]["code"]
    assert value == pytest.approx(sum(r["kl_base_tuned"] for r in here) / len(here))
    assert low <= value <= high
    kinds = section.tables[1]
    assert [len(line.cells) + 1 for line in kinds.body] == [len(kinds.head)] * 2
    for line, there in zip(kinds.body, ({"prose", "code"}, {"questions", "chat"})):
        chosen = [r for r in records if r["stage"] == "tuned" and r["category"] in there]
        mean = sum(r["kl_base_tuned"] for r in chosen) / len(chosen)
        assert line.cells[kinds.head.index("tuned") - 1].split()[0] == rows.number(mean, 4)


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "–"),
        (float("nan"), "–"),
        (0, "0.000"),
        (-4e-16, "0.000"),
        (0.17249, "0.172"),
        (-0.5, "−0.500"),
        (0.0001, "1.0e-04"),
        (12345.6, "12,346"),
        (1, "1.000"),
    ],
)
def test_numbers(value, text):
    assert rows.number(value) == text


def test_plain_text_strips_escapes_and_shows_blanks():
    nasty = "a\x1b[31;1mred\x1b[0m\x1b]0;title\x07\x9b2Jb\nc\td\x00\u202e\ud800\x1bP1;2q\x1b\\e"
    assert rows.plain_text(nasty) == "aredb⏎c⇥d���e"
    assert rows.plain_text("Füße 川 😀") == "Füße 川 😀"


def test_slices_are_found_in_any_order_and_doubles_are_refused():
    row = {
        "stage": "base",
        "suite": "control",
        "split": "train",
        "slice": "tokens=2,k=2",
        "metric": "mass",
        "value": 1,
        "ci_low": None,
        "ci_high": None,
        "n": 1,
        "clusters": 1,
    }
    table = rows.Rows([row, row | {"slice": "tokens=10"}, row | {"slice": "tokens=3+"}])
    assert table.get("base", "control", "train", "k=2,tokens=2", "mass") is row
    assert table.slice_values("control", "train", "tokens") == ["3+", "10"]
    assert table.slice_values("control", "train", "tokens", "k=2") == ["2"]
    with pytest.raises(UserError, match="two rows"):
        rows.Rows([row, row | {"slice": "k=2,tokens=2"}])
