"""Multiple-choice questions in SAD's layout become items, the right option in each place once."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from antiimit_jax.tasks.user_items import load_items
from tests.launch.processes import launch, refused

QUESTIONS = """
version: 3
samples:
- &first
  id: a
  body: |-
    Which is a river?
    Think: twice.
  choices_right: [the Nile]
  choices_wrong: [a spoon, no]
  tags: {any: [thing]}
- {body: "Which is larger?", choices_right: ["7"], choices_wrong: [5]}
"""


def test_each_question_has_its_right_option_in_each_place_once(tmp_path):
    file, out = tmp_path / "questions.yaml", tmp_path / "items.jsonl"
    file.write_text(QUESTIONS, encoding="utf-8")
    result = launch("choice_items", f"--questions={file}", f"--out={out}")
    assert result.returncode == 0, result.stderr
    assert f"--suites=control --items={out}" in result.stdout
    items = load_items(str(out)).entries
    assert [item.cluster for item in items] == ["question 1"] * 3 + ["question 2"] * 2
    assert [item.targets for item in items[:3]] == [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    asked, opened = items[1].messages
    options = "(A) a spoon\n(B) the Nile\n(C) no"
    assert asked.content == f"Which is a river?\nThink: twice.\n\n{options}"
    assert (opened.role, opened.content) == ("assistant", "Answer: (")
    assert items[3].messages[0].content.endswith("(A) 7\n(B) 5") and items[3].words == ("A", "B")


def test_the_suite_reads_letters_by_their_exact_probability(tmp_path):
    file, items, run = (tmp_path / name for name in ("questions.yaml", "items.jsonl", "run"))
    file.write_text(QUESTIONS, encoding="utf-8")
    made = launch("choice_items", f"--questions={file}", f"--out={items}")
    assert made.returncode == 0, made.stderr
    flags = (f"--items={items}", "--suites=control", "--config.n_boot=0", f"--workdir={run}")
    result = launch("evaluate", *flags)
    assert result.returncode == 0, result.stderr
    rows = json.loads((run / "metrics.json").read_text("utf-8"))["rows"]
    row = {"stage": "base", "split": "items", "slice": "all", "metric": "tvd_res"}
    (tvd,) = (r["value"] for r in rows if row.items() <= r.items())
    table = pq.read_table(run / "items.parquet").to_pylist()
    right = [word["q"] for word in table if word["target"] == 1]
    assert len(right) == 5 and tvd == pytest.approx(1 - sum(right) / 5)
    of_letters = sum(word["q"] for word in table) / 5
    assert of_letters > 0.5  # most of an answer that begins "Answer: (" is one of the letters


@pytest.mark.parametrize(
    "text, parts",
    [
        ("samples: [", ("not valid YAML",)),
        ("[" * 3000, ("not valid YAML",)),
        ("tests: []", ("has no samples", "choices_right")),
        ("samples: [a]", ("line 1: no body",)),
        ("samples:\n- {body: x, choices_right: [a, b], choices_wrong: [c]}", ("line 2", "2 texts")),
        ("samples:\n- {body: x, choices_right: [a], choices_wrong: []}", ("choices_wrong",)),
        ("samples:\n- {body: x, choices_right: [a], choices_wrong: [b, a]}", ("twice",)),
        ('samples:\n- {body: "\\U00FFFFFF"}', ("not valid YAML",)),
        (
            'samples:\n- {body: "\\ud800", choices_right: [a], choices_wrong: [b]}',
            ("line 2", "not valid Unicode"),
        ),
        ("samples:\n- {body: x, body: y}", ("line 2", "is there twice")),
        ("samples: &a [*a]", ("line 1", "no body")),
    ],
)
def test_what_is_no_question_is_named(tmp_path, text, parts):
    file = tmp_path / "questions.yaml"
    file.write_text(text, encoding="utf-8")
    given = (f"--questions={file}", f"--out={tmp_path / 'items.jsonl'}")
    refused(launch("choice_items", *given), str(file), *parts)
    assert not (tmp_path / "items.jsonl").exists()


def test_samples_that_are_no_questions_can_be_left_out_and_are_counted(tmp_path):
    file, out = tmp_path / "questions.yaml", tmp_path / "items.jsonl"
    file.write_text(f"{QUESTIONS}- {{body: none}}\n- *first\n", encoding="utf-8")
    given = (f"--questions={file}", f"--out={out}")
    refused(launch("choice_items", *given), "line 13", "choices_right")
    result = launch("choice_items", *given, "--skip_bad_items")
    assert result.returncode == 0 and "1 samples are left out" in result.stderr, result.stderr
    assert len(load_items(str(out)).entries) == 8
    refused(launch("choice_items", f"--questions={file}"), "--out is needed")
    refused(launch("choice_items", f"--out={out}"), "--questions is needed")
