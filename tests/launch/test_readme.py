"""The README's commands are understood, and what it points to is there."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.launch.processes import ROOT, launch

README = (ROOT / "README.md").read_text(encoding="utf-8")
_PROGRAM = re.compile(r"(?:python -m launch\.|(?:\.venv/bin/)?aij-)(\w+)\s(.*)", re.DOTALL)


def commands() -> list[tuple[str, list[str]]]:
    """(program, flags) of each command with flags, in a block of code or in the text."""
    text, *parts = re.split(r"^```\w*\n", README, flags=re.MULTILINE)
    lines = [line for block in parts[::2] for line in block.splitlines()]
    told = re.findall(r"`([^`]+)`", "".join([text, *parts[1::2]]))
    found = filter(None, map(_PROGRAM.fullmatch, lines + told))
    return [(match[1], shlex.split(match[2], comments=True)) for match in found]


def test_every_program_has_a_command():
    shown = {program for program, _ in commands()}
    measuring = {"study", "finetune", "evaluate", "score", "sweep"}
    assert shown == measuring | {"report", "compare", "export", "plan"}


@pytest.mark.parametrize("program, given", commands(), ids=lambda part: str(part)[:60])
def test_a_command_is_understood(program, given):
    known = launch(program, "--help").stdout
    for flag in given:
        name = re.fullmatch(r"--([\w.]+)(=.*)?", flag, re.DOTALL)[1]
        assert name.startswith("config.") or re.search(rf"--(\[no\])?{name}:", known), flag
    if "help_config" in known:
        config = launch(program, *given, "--help_config")
        assert config.returncode == 0, config.stderr


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#]+)\)|`(\w[\w./-]+/[\w.-]+)`", README))
def test_what_it_points_to_is_there(path):
    (name,) = filter(None, path)
    assert (ROOT / name).exists()
