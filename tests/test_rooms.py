"""Imports go only down the list of rooms in WORKSPACE.md, and torch stays outside the package."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = (
    "launch",
    "from_python",
    "study",
    "configured",
    "planning",
    "run_config",
    "suites",
    "export",
    "reporting",
    "evaluation",
    "training",
    "metrics",
    "language_model",
    "processor",
    "gguf_cache",
    "scoring",
    "tasks",
    "text",
    "models",
    "parallel",
    "trees",
    "versions",
    "files",
    "results",
    "fields",
    "json_files",
    "errors",
)
STRANGERS = {("evaluation", "training"), ("training", "evaluation")}
TORCH = {"torch", "peft"}


def imports(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(name: str) -> str | None:
    parts = name.split(".")
    if parts[0] == "launch":
        return "launch"
    return parts[1] if parts[0] == "antiimit_jax" and len(parts) > 1 else None


def package_files() -> list[tuple[str, Path]]:
    files = [("launch", file) for file in (ROOT / "launch").rglob("*.py")]
    package = ROOT / "antiimit_jax"
    for file in package.rglob("*.py"):
        inside = file.relative_to(package).parts
        if inside != ("__init__.py",):
            files.append((inside[0].removesuffix(".py"), file))
    return files


def test_imports_go_only_down():
    wrong = []
    for room, file in package_files():
        for name in imports(file):
            other = room_of(name)
            if other is None or other == room:
                continue
            if ROOMS.index(other) < ROOMS.index(room) or (room, other) in STRANGERS:
                wrong.append(f"{file.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_every_room_is_on_the_map():
    text = (ROOT / "WORKSPACE.md").read_text(encoding="utf-8")
    table = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = {
        part for line in table for part in re.findall(r"`(?:antiimit_jax/)?(\w+)(?:/|\.py)`", line)
    }
    for room, _ in package_files():
        assert room in ROOMS
    assert not set(ROOMS) - named


def test_torch_and_peft_stay_in_the_benchmark_and_the_tests():
    for _, file in package_files():
        if ROOT / "launch" / "benchmark" not in file.parents:
            found = {name.split(".")[0] for name in imports(file)} & TORCH
            assert not found, f"{file} imports {found}"


def test_metrics_know_neither_jax_nor_a_model():
    for room, file in package_files():
        if room == "metrics":
            roots = {name.split(".")[0] for name in imports(file)}
            assert not roots & {"jax", "flax", "optax", "transformers"}, file


def test_no_file_is_called_utils():
    assert not [file for _, file in package_files() if "util" in file.stem]
