"""Runs of several models: what `launch.compare` reads and refuses, and the program itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.reporting import run_files
from launch.compared_runs import compared_models, read_about, read_runs, what_else_differs
from tests.launch.compared import write_run
from tests.launch.processes import launch, refused

SMALL, LARGE, CHAT, OWN = "qwen2-1.5b", "Qwen/Qwen2-7B", "qwen2-1.5b-instruct", "/my/own-1b"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Of two sizes and a pair of a family that the catalog knows, and of one that it does not."""
    root = tmp_path_factory.mktemp("compared")
    write_run(root / "small", SMALL, 0.3, 0.3)
    write_run(root / "large", LARGE, 0.6, 0.5)
    write_run(root / "chat", CHAT, 0.2, 0.2)
    write_run(root / "chat-base", CHAT, 0.1, 0.1, style="base")
    write_run(root / "own", OWN, 0.1, 0.1)
    return root


def about(file: Path, **values: object) -> Path:
    """A file of --models with one line."""
    line = {"model": "own-1b", "family": "own", "post_trained": False, "parameters": 1e9}
    file.write_text(json.dumps(line | values) + "\n")
    return file


def test_the_program_writes_its_page_and_tells_the_verdicts(runs, tmp_path):
    given = [f"--runs={runs / name}" for name in ("small", "large", "chat", "chat-base")]
    result = launch("compare", *given, f"--workdir={tmp_path / 'out'}")
    assert result.returncode == 0, result.stderr
    assert "better than smaller ones: supported (qwen2-1.5b and qwen2-7b alone)" in result.stdout
    assert "ones: undecided (qwen2-1.5b and qwen2-1.5b-instruct alone)" in result.stdout
    assert result.stdout.endswith(f"report: {tmp_path / 'out' / 'compare.html'}\n")
    data = json.loads((tmp_path / "out" / "compare.json").read_text())
    (slope,) = [r for r in data["rows"] if (r["unit"], r["metric"]) == ("qwen2", "gamma")]
    assert slope["value"] == pytest.approx(0.3 / 2.306, abs=0.02)  # log2 of 7.616 by 1.544
    assert "qwen2-7b-instruct" in data["verdicts"][1]["missing"][-1]
    first = (tmp_path / "out" / "compare.json").read_bytes()
    assert launch("compare", *given, f"--workdir={tmp_path / 'out'}").returncode == 0
    assert (tmp_path / "out" / "compare.json").read_bytes() == first


def test_the_program_refuses_in_one_line(runs):
    small = f"--runs={runs / 'small'}"
    refused(launch("compare", small, "--workdir=x"), "name two runs or more")
    into = f"--workdir={runs / 'small' / 'metrics.json'}"
    refused(launch("compare", small, f"--runs={runs / 'large'}", into), "name another folder")


def test_models_of_the_catalog_are_known(runs):
    names = ("small", "large", "chat", "chat-base")
    models = compared_models(read_runs([str(runs / name) for name in names]), {})
    assert [(m.name, m.family, m.pair, m.kind, m.format) for m in models] == [
        ("qwen2-1.5b", "qwen2", "qwen2-1.5b", "base", "base"),
        ("qwen2-7b", "qwen2", "qwen2-7b", "base", "base"),
        ("qwen2-1.5b-instruct", "qwen2", "qwen2-1.5b", "post-trained", "chat"),
        ("qwen2-1.5b-instruct", "qwen2", "qwen2-1.5b", "post-trained", "base"),
    ]
    assert [round(m.parameters / 1e9, 2) for m in models] == [1.54, 7.62, 1.54, 1.54]
    assert len(set(models[0].answers.cluster)) >= 20


def test_a_line_tells_of_a_model_that_the_catalog_does_not_know(runs, tmp_path):
    read = read_runs([str(runs / name) for name in ("small", "own")])
    with pytest.raises(UserError, match="does not know /my/own-1b; give a line such as"):
        compared_models(read, {})
    how = {"pair": "own-1b", "post_trained": True}
    with pytest.raises(UserError, match='was auto; add "format": "base" or "chat"'):
        compared_models(read, read_about(str(about(tmp_path / "a.jsonl", **how))))
    told = read_about(str(about(tmp_path / "a.jsonl", **how, format="chat")))
    _, own = compared_models(read, told)
    assert (own.name, own.family, own.pair, own.kind) == (OWN, "own", "own-1b", "post-trained")
    assert (own.parameters, own.format) == (1e9, "chat")
    of_another = read_about(str(about(tmp_path / "b.jsonl", model="other")))
    with pytest.raises(UserError, match="does not know"):
        compared_models(read, of_another)
    with pytest.raises(UserError, match="no run is of other"):
        compared_models(read[:1], of_another)


@pytest.mark.parametrize(
    "text, part",
    [
        ('{"model": "a", "family": "b"}', "lacks keys post_trained; give a line such as"),
        ('{"model": "a", "family": "b", "post_trained": true, "parameters": 0}', "above 0"),
        ('{"model": "a", "family": "b", "post_trained": true}\n' * 2, "a is there twice"),
        ("", "is empty"),
    ],
)
def test_lines_that_are_none_are_refused(tmp_path, text, part):
    (tmp_path / "m.jsonl").write_text(text)
    with pytest.raises(UserError, match=part):
        read_about(str(tmp_path / "m.jsonl"))


def test_runs_that_cannot_be_compared_are_refused(runs, tmp_path):
    def said(*names: object) -> str:
        with pytest.raises(UserError) as error:
            compared_models(read_runs([str(runs / "small"), *map(str, names)]), {})
        return str(error.value)

    assert "no such folder" in said(tmp_path / "nothing")
    assert "named twice" in said(runs / "large" / ".." / "small")
    unfinished = Path(shutil.copytree(runs / "large", tmp_path / "unfinished"))
    (unfinished / run_files.METRICS).unlink()
    assert "not finished (no metrics.json)" in said(unfinished)
    edited = Path(shutil.copytree(runs / "large", tmp_path / "edited"))
    (edited / "items.parquet").write_bytes((runs / "small" / "items.parquet").read_bytes())
    assert "items.parquet: not as the run wrote it" in said(edited)
    bare = Path(shutil.copytree(runs / "large", tmp_path / "bare"))
    (bare / "items.parquet").unlink()
    assert "holds no answers of the model as it is" in said(bare)
    again = write_run(tmp_path / "again", SMALL, 0.3, 0.4)
    assert "holds qwen2-1.5b in base format, as" in said(again)


def test_runs_of_other_items_are_refused_with_what_differs(runs, tmp_path):
    other = {
        "eval_seed (0 and 1)": {"eval_seed": 1},
        "control.n_items (192 and 96)": {"control__n_items": 96},
        "terminators (standard and wide)": {"terminators": "wide"},
    }
    for number, (part, changes) in enumerate(other.items()):
        folder = write_run(tmp_path / str(number), LARGE, 0.5, 0.5, **changes)
        with pytest.raises(UserError) as error:
            read_runs([str(runs / "small"), str(folder)])
        assert f"they differ in {part}; evaluate one of them with --config=" in str(error.value)


def test_settings_that_are_not_of_the_items_are_told(runs, tmp_path):
    other = write_run(tmp_path / "other", LARGE, 0.5, 0.5, dtype="bfloat16", control__n_other=4)
    (said,) = what_else_differs(read_runs([str(runs / "small"), str(other)]))
    assert said.startswith("The runs differ in dtype: auto in ") and "bfloat16 in" in said
