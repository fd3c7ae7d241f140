"""Verdicts on models whose figures are planted, the runs that are lacking, and the page of both."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from antiimit_jax.metrics.intervals import Estimate
from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.reporting.between_models import Comparison, compare
from antiimit_jax.reporting.compare_page import JSON, console_lines, write_comparison
from antiimit_jax.reporting.compared_models import Model
from antiimit_jax.reporting.judging import Verdict
from antiimit_jax.reporting.needed_runs import TEMPLATE, ask_command, not_asked, other_sizes
from tests.metrics.test_between_models import made
from tests.metrics.test_graded import blocks
from tests.reporting.test_report_page import _Page

SETS = 24
ITEMS = blocks(np.random.default_rng(5), SETS)
ASK = ask_command("aij-evaluate", Path("runs/a b/config.json"), "")
HOSTILE = '<script>alert("x")</script>\x1b[31m'


def model(
    name: str, gamma: float, mass: float, *, size: float = 1e9, pair="", post=False, style="base"
) -> Model:
    """Of the family before the first dash."""
    rng = np.random.default_rng(sum(map(ord, name + style)))
    return Model(
        name=name,
        run=f"runs/{name}",
        family=name.partition("-")[0],
        parameters=size,
        pair=pair,
        post_trained=post,
        format=style,
        answers=made(ITEMS, rng, gamma, mass, np.random.default_rng(0).normal(size=SETS)),
    )


def found(models: list[Model]) -> dict[str, Verdict]:
    return {v.id: v for v in compare(models, Bootstrap(n_boot=200), ASK).verdicts}


def sizes(per_doubling: float, mass: float, family: str = "a") -> list[Model]:
    """Three models that gain so much with each doubling."""
    return [
        model(f"{family}-{n}", 0.3 + n * per_doubling, 0.3 + n * mass, size=1e9 * 2**n)
        for n in (0, 1, 3)
    ]


def pair(name: str, gamma: float, mass: float, style: str = "base", base=(0.5, 0.5)) -> list[Model]:
    """A base and a release that has so much less of both."""
    how = dict(pair=f"{name}-b", style=style)
    post = model(f"{name}-c", base[0] - gamma, base[1] - mass, post=True, **how)
    return [model(f"{name}-b", *base, **how), post]


@pytest.mark.parametrize(
    "gamma, mass, verdict",
    [
        (0.1, 0.1, "supported"),
        (0.1, 0.0, "not supported"),
        (-0.05, 0.1, "not supported"),
        (0.015, 0.1, "undecided"),
        (-0.1, -0.05, "not supported"),
    ],
)
def test_larger_models_are_better_where_both_slopes_leave_the_region_of_no_difference(
    gamma, mass, verdict
):
    said = found(sizes(gamma, mass))["E1"]
    assert said.verdict == f"{verdict} (a-0, a-1 and a-3 alone)"
    assert said.found[0].startswith("γ per doubling ") and "mass per doubling" in said.found[1]


def test_families_that_agree_support_and_that_do_not_leave_it_open():
    agree = sum((sizes(0.1, 0.1, name) for name in "abc"), [])
    assert found(agree)["E1"].verdict == "supported"
    apart = sizes(0.3, 0.1, "a") + sizes(-0.1, 0.1, "b")
    assert found(apart)["E1"].verdict == "undecided"


def test_more_than_the_percentages_ask_for_is_not_better():
    steep = found([model("a-1", 0.9, 0.3, size=1), model("a-2", 2.0, 0.6, size=2)])["E1"]
    assert steep.verdict == "undecided (a-1 and a-2 alone)"
    assert steep.missing == ["γ of a-2 in base format is above 1, where more is not better"]


BOTH = ("base", "chat")


@pytest.mark.parametrize(
    "gamma, mass, styles, verdict",
    [
        (0.2, 0.2, BOTH, "supported (m-b and m-c alone)"),
        (0.2, 0.2, ("chat",), "undecided (m-b and m-c alone)"),
        (0.2, -0.3, BOTH, "not supported (m-b and m-c alone)"),
        (0.0, 0.0, BOTH, "undecided (m-b and m-c alone)"),
        (-0.2, -0.2, ("chat",), "not supported (m-b and m-c alone)"),
    ],
)
def test_base_models_are_better_where_all_figures_of_each_format_say_so(
    gamma, mass, styles, verdict
):
    said = found(sum((pair("m", gamma, mass, style) for style in styles), []))["E2"]
    assert said.verdict == verdict
    if styles == ("chat",):
        assert said.missing[0] == "a pair asked in base format"


def test_six_pairs_speak_for_pairs_and_five_for_themselves():
    six = sum((pair(name, 0.2, 0.2, style) for name in "abcdef" for style in BOTH), [])
    said = found(six)["E2"]
    assert said.verdict == "supported" and not said.missing
    assert said.found[0].endswith("(sign flip over 6 pairs: p 0.016)")
    five = found([m for m in six if m.pair != "f-b" and m.format == "chat"])["E2"]
    assert five.verdict.startswith("undecided (a-b, a-c, b-b")
    assert five.found[0].endswith("(sign flip over 5 pairs: p 0.031)")


@pytest.mark.parametrize(
    "gamma, mass, where",
    [
        (0.0, 0.2, "in mass alone"),
        (0.3, 0.0, "in the shares alone"),
        (0.3, 0.2, "both in mass"),
        (0.0, 0.0, "neither in mass"),
    ],
)
def test_a_difference_is_of_mass_or_of_shares(gamma, mass, where):
    models = pair("m", gamma, mass, "chat")
    (said,) = compare(models, Bootstrap(n_boot=200), ASK).readings
    assert said.startswith("in chat format") and where in said


def test_nothing_to_compare_says_what_to_run():
    said = found([model("qwen2-1.5b", 0.5, 0.5), model("llama-3-8b", 0.5, 0.5)])
    assert (said["E1"].verdict, said["E2"].verdict) == ("no data", "no data")
    assert said["E1"].missing == [
        "two sizes of one family, asked alike",
        "aij-evaluate '--config=runs/a b/config.json' --model=qwen2-7b --suites=control,residual "
        "--config.prompt_format=base --workdir=runs/qwen2-7b-base",
    ]


def test_the_next_size_of_a_series_is_asked_alike():
    ask = lambda name, style: f"{name} {style}"
    asked = [("qwen2-0.5b-instruct", "chat"), ("Qwen/Qwen2-7B", "base"), ("/my/model", "chat")]
    assert other_sizes(asked, ask) == ["qwen2-1.5b-instruct chat", "qwen2-1.5b base"]
    assert other_sizes([("mistral-7b", "base")], ask) == [
        "a run of another size of a model that is here"
    ]


def test_empty_cells_of_a_pair_are_named():
    ask = lambda name, style: f"{name} {style}"
    asked = {("qwen2-7b", False, "base"): "qwen2-7b", ("mine", True, "chat"): "/my/chat"}
    asked[("mine", True, "base")] = "/my/chat"
    assert not_asked(asked, ask) == [
        "the base model of mine, in base format",
        "the base model of mine, in chat format",
        f"qwen2-7b chat  # {TEMPLATE}",
        "qwen2-7b-instruct base",
        "qwen2-7b-instruct chat",
    ]
    assert not not_asked({("m", p, f): "x" for p in (False, True) for f in BOTH}, ask)


def test_a_revision_of_another_model_is_not_asked_for():
    ask = ask_command("aij-evaluate", Path("config.json"), "abc")
    command = ask("/my/a model", "chat")
    assert "'--model=/my/a model' --revision= --suites" in command
    assert "'--workdir=runs/a model-chat'" in command
    assert "--revision" not in ASK("/my/a model", "chat")


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    models = sizes(0.1, 0.1) + pair(HOSTILE, 0.2, 0.2)
    refusal = {"forms=strict,category=refusal": Estimate(value=0.4321, low=0.4, high=0.5)}
    models[-1] = dataclasses.replace(models[-1], beside=refusal)
    return compare(models, Bootstrap(n_boot=200), ASK)


def test_the_page_is_whole_and_shows_every_cell(comparison, tmp_path):
    page = write_comparison(tmp_path, comparison, "Each was asked.", ["They differ in dtype."])
    text = page.read_text(encoding="utf-8")
    parsed = _Page(text)
    assert len(set(parsed.ids)) == len(parsed.ids) and "script" not in parsed.tags
    assert "\x1b" not in text and all(r.startswith("#") for r in parsed.references)
    words = " ".join(" ".join(parsed.text).split())
    assert words.count("not asked") == 8  # in chat format, four figures of two models
    assert "0.432" in words and "They differ in dtype." in words
    assert "begins as refusals" in words and "mass, any case" not in words
    for verdict in comparison.verdicts:
        assert f"Verdict: {verdict.verdict}." in words


def test_the_file_holds_what_the_page_shows(comparison, tmp_path):
    write_comparison(tmp_path, comparison, "Each was asked.", [])
    data = json.loads((tmp_path / JSON).read_text())
    assert data["schema"] == 1 and len(data["models"]) == 5
    (slope,) = [
        row
        for row in data["rows"]
        if (row["hypothesis"], row["unit"], row["metric"]) == ("E1", "a", "gamma")
    ]
    assert slope["ci_low"] < 0.1 < slope["ci_high"] and slope["models"] == ["a-0", "a-1", "a-3"]
    assert [v["id"] for v in data["verdicts"]] == ["E1", "E2"]
    assert data["models"][-1]["residual"] == {
        "forms=strict,category=refusal": {"value": 0.4321, "ci_low": 0.4, "ci_high": 0.5}
    }


def test_the_console_tells_the_verdicts_in_plain_text(comparison):
    text = console_lines(comparison)
    assert re.search(r"^a-1 +a +2.00 B +base +base ", text, re.MULTILINE)
    assert "E1: larger models do better than smaller ones: supported (a-0" in text
    assert "\x1b" not in text and "−" not in text
