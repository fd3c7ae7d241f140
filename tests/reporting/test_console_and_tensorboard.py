"""The console table and the TensorBoard files, read back."""

from __future__ import annotations

import errno
import os
import re
import resource

import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from antiimit_jax.reporting import run_files
from antiimit_jax.reporting.report import headline_places, schemas, write_report
from antiimit_jax.reporting.rows import figure
from antiimit_jax.reporting.summary import console_table, text_table
from antiimit_jax.reporting.tensorboard import (
    add_step,
    close_writer,
    open_writer,
    sample_markdown,
    write_tensorboard,
)
from antiimit_jax.results import Cell, Line, Table, make_row
from antiimit_jax.suites import SUITES


def test_console_table_holds_stages_and_lazy_baselines_with_intervals(full_run):
    text = console_table(full_run, SUITES)
    rows = {
        r["stage"]: r
        for r in run_files.read_metrics(full_run)["rows"]
        if (r["split"], r["slice"], r["metric"]) == ("heldout_words", "k=2", "tvd_res")
    }
    lines = text.splitlines()
    title = " ".join(lines[:2])
    assert "heldout_words" in title and "one seed" in title and "too few for sound" in title
    for stage in ("base", "tuned", "placebo"):
        line = next(line for line in lines if line.startswith(stage + " "))
        assert figure(rows[stage]).replace("\u00a0", " ") in line
    for name, label in (("uniform", "ignores request"), ("two_level", "step function")):
        line = next(line for line in lines if line.startswith(label))
        assert figure(rows[f"baseline:{name}"]).replace("\u00a0", " ") in line
    assert max(map(len, lines[:-1])) <= 100 and lines[-1].startswith("e.g. ") and len(lines) <= 21


def test_columns_beyond_a_hundred_characters_follow_below_with_their_labels():
    cells = lambda letter: [
        letter * 40,
        Cell(text=letter, small=f"[{letter},\u00a0b]"),
        letter * 50,
    ]
    made = Table(head=["", "one", "two", "three"], body=[Line(label="x", cells=cells("a"))])
    wide, last = f"x  {'a' * 40}  a [a,\u00a0b]", f"x  {'a' * 50}"
    assert text_table(made, 100) == [f"   one{' ' * 39}two", wide, "   three", last]
    same = Line(label="x", cells=["a", Cell(text="1.00", small="[1.00,\u00a01.00]"), "a"])
    assert text_table(Table(head=made.head, body=[same]))[1] == "x  a    1.00  a"


def test_what_an_interval_around_zero_holds_is_zero_in_print():
    row = lambda value, low, high: {"value": value, "ci_low": low, "ci_high": high}
    assert figure(row(-4e-5, -2e-4, 6e-5)) == "0.000 [0.000,\u00a00.000]"
    assert figure(row(-4e-5, -2e-3, 6e-5)) == "0.000 [−0.002,\u00a00.000]"
    assert figure(row(4e-5, 0.0, 2e-4)) == "4.0e-05 [0.000,\u00a02.0e-04]"
    assert figure(row(4e-5, None, None)) == "4.0e-05"


def test_console_text_has_no_escapes_and_says_what_is_absent(hostile_run, bare_run, tmp_path):
    text = console_table(hostile_run, SUITES)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text) and "[31m" not in text
    assert "not in this run: placebo" in console_table(bare_run, SUITES)
    run_files.write_metrics(tmp_path, {"model": "m"}, [])
    assert console_table(tmp_path, SUITES) == "m: no headline figures in this run\n"


def test_a_run_without_headline_says_what_its_suites_answer(tmp_path):
    place = dict(stage="base", suite="rare_rates", split="rare", slice="all", n=20, clusters=20)
    rows = [
        make_row(metric=name, value=value, ci_low=value - 0.1, ci_high=value + 0.1, **place)
        for name, value in (("log10_error", 1.5), ("log10_bias", 1.0), ("rate_slope", 0.02))
    ]
    run_files.write_metrics(tmp_path, {"model": "m"}, rows)
    text = console_table(tmp_path, SUITES)
    assert text.startswith("m: Does control reach rare events? base errs by 1.500 [1.400, 1.600]")
    assert all(len(line) <= 100 for line in text.splitlines())


def test_intervals_are_promised_where_there_are_some(full_run, tmp_path):
    data = run_files.read_metrics(full_run)
    bare = [row | {"ci_low": None, "ci_high": None} for row in data["rows"]]
    run_files.write_metrics(tmp_path, data["run"], bare)
    for folder, console, page in (
        (full_run, "; 95% intervals", "; brackets hold 95% intervals over word sets"),
        (tmp_path, "; no intervals (the page says why)", "; without intervals"),
    ):
        assert console in " ".join(console_table(folder, SUITES).split())
        written = write_report(folder, SUITES).read_text(encoding="utf-8")
        assert page in written.partition('id="questions"')[0]


@pytest.fixture(scope="module")
def events(full_run):
    folder = write_tensorboard(full_run, SUITES)
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def test_headline_figures_alone_bear_the_contracted_tags_at_their_last_step(full_run, events):
    rows = run_files.read_metrics(full_run)["rows"]
    where = {"control": "k=2", "drift": "all"}
    wanted = {
        f"{r['stage']}/{r['suite']}/{r['split']}/{r['metric']}": r["value"]
        for r in rows
        if where.get(r["suite"]) == r["slice"]
        and ":" not in r["stage"]
        and r["metric"] in [figure.name for figure in SUITES[r["suite"]].HEADLINE]
    }
    tags = {tag for tag in events.Tags()["scalars"] if not re.match("(placebo_)?train/", tag)}
    assert "tuned/control/heldout_words/gamma" in wanted and tags == set(wanted)
    steps = {"base": 0, "tuned": 240, "placebo": 120}
    for tag, value in wanted.items():
        (event,) = events.Scalars(tag)
        assert event.value == pytest.approx(value, rel=1e-6, abs=1e-9)
        assert event.step == steps[tag.partition("/")[0]]


def test_training_is_curves_over_steps_and_settings_are_hparams(full_run, events):
    training = pq.read_table(full_run / "training.parquet").to_pylist()
    for adapter, prefix in (("tuned", "train"), ("placebo", "placebo_train")):
        loss = [(r["step"], r["loss"]) for r in training if r["adapter"] == adapter]
        read = [(event.step, event.value) for event in events.Scalars(f"{prefix}/loss")]
        assert [step for step, _ in read] == [step for step, _ in loss]
        assert [v for _, v in read] == pytest.approx([v for _, v in loss], rel=1e-6)
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["train.steps"].number_value == 240
    assert settings["model"].string_value == "smollm2-135m-instruct"


def test_console_page_and_tensorboard_show_one_headline(full_run, events):
    """The same figure under the same label, from the same slice."""
    page = write_report(full_run, SUITES).read_text(encoding="utf-8")
    (label,) = [name for (split, _), name in _places(full_run).items() if split == "heldout_words"]
    assert label in page and label in " ".join(console_table(full_run, SUITES).split())
    (event,) = events.Scalars("tuned/control/heldout_words/tvd_res")
    assert f"puts {event.value:.3f} [" in page
    lines = console_table(full_run, SUITES).splitlines()
    line = next(line for line in lines if line.startswith("tuned "))
    assert line.split()[1] == f"{event.value:.3f}"


def _places(folder):
    run = run_files.read_run(folder, schemas(SUITES))
    return headline_places("control", SUITES["control"], run.rows)


def test_writing_again_replaces_what_was_written(bare_run):
    (bare_run / "tensorboard").mkdir(exist_ok=True)
    other = bare_run / "tensorboard" / "events.out.tfevents.1.somebody"
    other.touch()
    old = bare_run / "tensorboard" / "events.out.tfevents.1.host.antiimit_jax"
    old.touch()
    names = {path.name for path in write_tensorboard(bare_run, SUITES).iterdir()}
    assert other.name in names and old.name not in names and len(names) == 2


def test_a_file_that_takes_no_more_is_an_error_and_not_awaited(tmp_path):
    writer, (soft, hard) = open_writer(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        with pytest.raises(OSError, match="tensorboard"):
            for step in range(100):
                add_step(writer, {"adapter": "tuned", "step": step, "loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    close_writer(writer)


def test_a_file_that_cannot_be_ended_is_named(tmp_path, monkeypatch):
    def fails(handle):
        raise OSError(errno.EIO, "Input/output error")  # as fsync does: without a name

    writer = open_writer(tmp_path)
    add_step(writer, {"adapter": "tuned", "step": 1, "loss": 1.0})
    with monkeypatch.context() as patch, pytest.raises(OSError) as caught:
        patch.setattr(os, "fsync", fails)
        close_writer(writer)
    assert caught.value.filename == str(tmp_path / "tensorboard")
    close_writer(writer)


def test_calibration_images_and_sample_texts(events):
    images = events.Tags()["images"]
    assert "tuned/control/heldout_words/calibration" in images and len(images) == 12
    assert events.Images(images[0])[0].encoded_image_string.startswith(b"\x89PNG")
    assert "tuned/samples/text_summary" in events.Tags()["tensors"]
    text = events.Tensors("tuned/samples/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "Say one word" in text and "most probable words" in text


def test_model_text_cannot_leave_its_code_fence():
    sample = {
        "stage": "base",
        "item": "i",
        "prompt": "```\n````\n# heading",
        "words": ["a`b"],
        "targets": [1.0],
        "q": [0.5],
        "top_text": ["```"],
        "top_p": [0.1],
    }
    text = sample_markdown(sample)
    assert text.count("\n`````") == 6 and "\n````\n" in text
