"""A planted sentence of a made-up benchmark is found, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from antiimit_jax.errors import UserError
from launch.leak_check import leaks
from tests.launch.processes import launch

SECRET = "Seven violet otters carried the marble clock across a frozen canal at dawn."
OTHER = "Nobody in the lighthouse knew why the brass parrot would only sing on Thursdays."


@pytest.fixture
def benchmark(tmp_path) -> Path:
    folder = tmp_path / "benchmark"
    folder.mkdir()
    asked = [{"question": f"First line.\n{SECRET}"}, {"question": OTHER}]
    (folder / "questions.json").write_text(json.dumps(asked))
    return folder


@pytest.fixture
def tree(tmp_path) -> Path:
    folder = tmp_path / "tree"
    (folder / "docs" / ".git").mkdir(parents=True)
    (folder / "docs" / "clean.md").write_text("Seven violet otters carried the marble clock.\n")
    (folder / "docs" / ".git" / "object").write_text(OTHER)
    (folder / "weights.bin").write_bytes(b"\0" + OTHER.encode())
    return folder


@pytest.mark.parametrize(
    "planted",
    [SECRET, SECRET.upper(), SECRET.replace(" ", "_"), SECRET.replace("marble ", "marble\n# ")],
    ids=["as it is", "capitals", "other signs", "over two lines"],
)
def test_a_planted_sentence_is_found_with_its_line(tree, benchmark, planted):
    assert leaks(tree, benchmark) == []
    (tree / "notes.py").write_text(f"# About otters.\n\n# {planted} The end.\n")
    found = leaks(tree, benchmark)
    assert {(file.name, source.name) for file, _, source in found} == {
        ("notes.py", "questions.json")
    }
    assert found[0][1] == 3


def test_a_benchmark_in_the_tree_is_not_compared_with_itself(benchmark):
    assert leaks(benchmark.parent, benchmark) == []
    with pytest.raises(UserError, match="name two folders"):
        leaks(benchmark, benchmark)


def test_a_benchmark_without_a_text_is_refused(tree, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "questions.zip").write_bytes(b"PK\0\0")
    with pytest.raises(UserError, match="unpack its archives first"):
        leaks(tree, packed)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        leaks(tree, tmp_path / "nowhere")


def test_the_program_names_file_and_line_and_ends_with_1(tree, benchmark):
    (tree / "notes.md").write_text(f"A note.\n{OTHER}\n")
    result = launch("leak_check", f"--tree={tree}", f"--benchmark={benchmark}")
    assert result.returncode == 1, result.stderr
    assert result.stdout.startswith(f"{tree / 'notes.md'}:2: 8 words in a row as in")
    assert "found: 1 lines of 1 files" in result.stderr and "parrot" not in result.stdout
