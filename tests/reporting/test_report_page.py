"""The page: complete, self-contained, escaped, and honest about what is not there."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from antiimit_jax.reporting import plots, run_files
from antiimit_jax.reporting.report import write_report
from antiimit_jax.reporting.rows import figure, number
from antiimit_jax.suites import SUITES
from tests.reporting.synthetic_run import write_synthetic_run

VOID = {"meta", "br", "img", "link", "input", "hr"}


class _Page(HTMLParser):
    """Text, ids, links and whether tags nest."""

    def __init__(self, text):
        super().__init__()
        self.text, self.ids, self.open, self.tags, self.references = [], [], [], set(), []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                self.references.append(value)
            assert not name.startswith("on")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


@pytest.fixture(scope="module")
def page(full_run):
    path = write_report(full_run, SUITES)
    assert path == full_run / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def words(page):
    return re.sub(r"\s+", " ", " ".join(_Page(page).text))


def test_page_is_well_formed_self_contained_and_without_scripts(page):
    parsed = _Page(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert not parsed.tags & {"script", "link", "img", "iframe", "object", "base", "form"}
    assert all(ref.startswith("#") and ref[1:] in parsed.ids for ref in parsed.references)
    assert set(re.findall(r"https?://[^\s\"'<]*", page)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    assert page.count("<svg") == 2 + 3 + 4 + 1 + 2 + 2 + 6


def test_nothing_missing_is_printed_as_a_value(page, words):
    words = words.replace("quantize none", "")  # a value of the configuration
    assert not re.search(r"\b(nan|None|inf|null)\b", words, re.IGNORECASE)
    assert "NaN" not in page and "mathdefault" not in page


def test_headline_and_tables_repeat_the_rows(full_run, words):
    rows = {
        (r["stage"], r["metric"]): r
        for r in run_files.read_metrics(full_run)["rows"]
        if r["split"] == "heldout_words" and r["slice"] == "k=2"
    }
    for stage in ("base", "tuned", "placebo"):
        assert figure(rows[stage, "tvd_res"]).replace("\u00a0", " ") in words
    for baseline in ("uniform", "two_level"):
        assert number(rows[f"baseline:{baseline}", "tvd_res"]["value"]) in words
    assert f"{rows['tuned', 'tvd_res']['value']:.3f}" in words
    assert "fewer steps than the tuned adapter" in words
    assert words.count("One seed") == 1  # elsewhere only where it keeps a verdict back
    assert words.count("one seed") == words.count("one seed: no verdict") > 0


def test_sections_stand_in_order(page):
    found = re.findall(r'<section id="([a-z]+(?:-\d)?)"', page)
    assert found == [
        "questions",
        "control",
        "control-1",
        "control-2",
        "control-3",
        "control-4",
        "scoring",
        "precision",
        "residual",
        "residual-1",
        "drift",
        "training",
        "verdicts",
        "settings",
    ]
    titles = re.findall(r"<h([2-4])>([^<]*)</h", page)
    for wanted in (
        ("3", "Share given against share asked"),
        ("3", "Figures, with the lazy baselines"),
        ("3", "What new words and new percentages cost"),
        ("3", "TVD by kind of request"),
        ("3", "Examples"),
        ("2", "Where the probability goes"),
        ("2", "Does the model still behave normally elsewhere?"),
    ):
        assert wanted in titles
    levels = [1, *(int(level) for level, _ in titles)]
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))


def test_what_words_and_places_do_has_a_table_of_its_own(page):
    table = page.partition("what words and places do to the answers")[2].partition("</table>")[0]
    head, *lines = table.split("</tr>")
    assert all(label in head for label in ("first place", "preference", "likeness"))
    assert len(lines) > 3 and "word prior needs word sets in two blocks" in page


def test_gap_is_split_exactly(full_run, words):
    value = {
        (r["split"], r["metric"]): r["value"]
        for r in run_files.read_metrics(full_run)["rows"]
        if r["stage"] == "tuned" and r["slice"] == "k=2"
    }
    lost = value["heldout_both", "residual"] - value["heldout_words", "residual"]
    assert f"{number(lost)} from probability outside the words" in words


def test_markup_and_control_characters_stay_text(hostile_run):
    page = write_report(hostile_run, SUITES).read_text(encoding="utf-8")
    assert "<script" not in page and html.escape("<script>alert(")[:20] in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)
    _Page(page)


def test_absent_parts_are_named(bare_run):
    text = " ".join(_Page(write_report(bare_run, SUITES).read_text(encoding="utf-8")).text)
    for name in (
        "stage placebo",
        "items.parquet",
        "training.parquet",
        "residual.parquet",
        "residual_samples.parquet",
        "scoring.parquet",
        "config.json",
    ):
        assert name in text
    assert "settings are not known" in text
    assert "placebo adapter's" not in text
    assert not re.search(r"\b(NaN|None)\b", text)


def test_a_run_with_a_split_and_a_table_missing(full_run, tmp_path):
    data = run_files.read_metrics(full_run)
    kept = [
        r
        for r in data["rows"]
        if r["split"] == "train" and r["slice"] == "all" and r["stage"] != "tuned"
    ]
    stages = [stage for stage in data["run"]["stages"] if stage["kind"] != "tuned"]
    info = data["run"] | {"config_sha256": "another", "device": None, "stages": stages}
    run_files.write_metrics(tmp_path, info, kept)
    config = {"x": None, "suites": ["control", "drift"], "control": {"splits": ["heldout_words"]}}
    run_files.write_config(tmp_path, config)
    text = " ".join(_Page(write_report(tmp_path, SUITES).read_text(encoding="utf-8")).text)
    assert "suite drift" in text
    assert "stage tuned" in text and "different config hashes" in text and "not set" in text
    assert "split heldout_words" in text


def test_no_control_rows_at_all(tmp_path):
    run_files.write_metrics(tmp_path, {"model": "m"}, [])
    text = " ".join(_Page(write_report(tmp_path, SUITES).read_text(encoding="utf-8")).text)
    assert "Not in this run: any figure" in text


def test_several_adapter_seeds_lift_the_note(bare_run, tmp_path):
    data = run_files.read_metrics(bare_run)
    second = {"name": "tuned@1", "kind": "tuned", "adapter_seed": 1, "folder": "adapter@1"}
    stages = [*data["run"]["stages"], second]
    run_files.write_metrics(tmp_path, data["run"] | {"stages": stages}, data["rows"])
    page = write_report(tmp_path, SUITES).read_text(encoding="utf-8")
    assert "one seed" not in page and "One seed" not in page


def test_figures_are_reproducible():
    def draw():
        series = {"tuned": (np.arange(200), np.linspace(5, 0.1, 200))}
        return plots.svg(plots.training_figure("loss <&>", series, log=True), "a b", "loss <&>")

    assert draw() == draw() and "<&>" not in draw()


def test_a_run_of_the_base_alone_has_a_page_of_its_own_shape(tmp_path):
    write_synthetic_run(tmp_path, items_per_split=48, stages=("base",))
    page = write_report(tmp_path, SUITES).read_text(encoding="utf-8")
    text = " ".join(_Page(page).text)
    shown = text.partition("Resolved config")[0]
    assert "the model as it is puts" in shown and "worse than a model that ignores" in shown
    for word in ("tuned", "placebo", "One seed", "Not in this run", "trained on"):
        assert word not in shown.replace("never trained on", ""), word
    assert 'id="training"' not in page
    for table in re.findall(r"<table>.*?</table>", page, re.DOTALL):
        lines = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("</tr>")[1:-1]]
        assert all(any(cell != "–" for cell in column) for column in zip(*lines))


def test_the_questions_say_what_came_out_and_what_is_not_answered(full_run, page):
    text = re.sub(r"\s+", " ", page.partition('id="questions"')[2].partition("</section>")[0])
    rows = {
        (r["stage"], r["metric"]): r
        for r in run_files.read_metrics(full_run)["rows"]
        if (r["suite"], r["split"], r["slice"]) == ("control", "heldout_words", "k=2")
    }
    for stage in ("base", "tuned"):
        for metric, digits in (("tvd_res", 3), ("gamma", 2)):
            assert figure(rows[stage, metric], digits).replace("\u00a0", " ") in text
    gain = figure(rows["diff:tuned-placebo", "request_gain"])
    assert gain.replace("\u00a0", " ") in text
    assert "Drift above the ruler" in text and text.count("Not answered by this run") == 2


def test_the_first_screen_says_what_is_worse_than_lazy(full_run, tmp_path):
    data = run_files.read_metrics(full_run)
    for row in data["rows"]:
        if row["stage"].startswith("diff:tuned-baseline") and row["metric"] == "tvd_res":
            row.update(value=0.2, ci_low=0.1, ci_high=0.3)
    run_files.write_metrics(tmp_path, data["run"], data["rows"])
    page = write_report(tmp_path, SUITES).read_text(encoding="utf-8")
    first = page.partition('<p class="lead">')[2].partition("</p>")[0]
    assert "That is worse than a model that ignores the request" in first
    assert "and worse than a step function" in first


def test_phrasings_are_shown_by_their_text_with_a_mark_where_held_out(words):
    assert "phrasing: “Spin the wheel" in words and "(never trained on)" in words
    assert not re.search(r"template: \d", words)


def test_what_the_narrow_rule_costs_is_said_in_words(full_run, words):
    mass = {
        r["slice"]: r["value"]
        for r in run_files.read_metrics(full_run)["rows"]
        if (r["suite"], r["stage"], r["metric"]) == ("scoring", "tuned", "mass")
    }
    before, after = (mass[f"scoring={rule}"] for rule in ("standard", "terminators_narrow"))
    assert f"would go from {number(before)} to {number(after)}" in words


def test_a_users_own_items_are_shown_by_their_facets(full_run, tmp_path):
    data = run_files.read_metrics(full_run)
    changed = {"split": "items", "slice": "tone=warm"}
    rows = [r | {"split": "items"} for r in data["rows"] if r["split"] == "heldout_words"]
    rows += [r | changed for r in rows if r["slice"] == "k=2,tokens=1"]
    run_files.write_metrics(tmp_path, data["run"], rows)
    page = write_report(tmp_path, SUITES).read_text(encoding="utf-8")
    assert "Measured on your own items, two words" in page
    assert "by tone" in page and "tone: warm" in page and "New percentages" not in page
