"""Programs as installed commands, how they name each other, and configurations that runs wrote."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.reporting import run_files
from antiimit_jax.run_config import from_dict, to_dict
from launch.allocator import program_name, settings
from launch.commands import installed
from launch.saved_config import as_config_file, get_config
from tests.launch.processes import ROOT

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
COMMANDS = SETUP["options.entry_points"]["console_scripts"].split("\n")[1:]


def command(folder: Path, name: str) -> Path:
    """A command as pip installs it."""
    (target,) = {line.split(" = ")[1] for line in COMMANDS if line.startswith(f"{name} ")}
    module, function = target.split(":")
    file = folder / name
    file.write_text(f"#!{sys.executable}\nfrom {module} import {function}\n{function}()\n")
    file.chmod(0o755)
    return file


def test_every_program_is_a_command():
    sources = [*ROOT.glob("launch/*.py"), *ROOT.glob("launch/*/__main__.py")]
    programs = [
        path.parent.name if path.stem == "__main__" else path.stem
        for path in sources
        if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
    ]
    named = [line.split(" ")[0].removeprefix("aij-").replace("-", "_") for line in COMMANDS]
    assert sorted(named) == sorted(programs)


def test_a_command_is_the_program_of_its_name():
    assert program_name(["python", "-X", "dev", "-m", "launch.study", "--seed=1"]) == "study"
    assert program_name(["python", "/v/bin/aij-study", "--workdir=aij-score"]) == "study"
    assert program_name(["python", "/v/bin/aij-leak-check", "--tree=."]) == "leak_check"
    assert program_name(["python", "-m", "pytest", "launch.study"]) == ""
    assert program_name(["python", "script.py", "-m"]) == program_name(["python"]) == ""


def test_a_long_command_starts_again_with_the_allocators_settings(tmp_path):
    plain = {k: v for k, v in os.environ.items() if k not in settings()}
    plain |= {"PYTHONPATH": str(ROOT), "PYTHONPROFILEIMPORTTIME": "1"}
    asked = [str(command(tmp_path, "aij-evaluate")), "--help"]
    result = subprocess.run(asked, env=plain, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0 and "--adapter" in result.stdout, result.stderr
    assert result.stdout.startswith("Evaluation alone") and "--workdir" in result.stdout
    starts = [line for line in result.stderr.splitlines() if line.endswith("launch.allocator")]
    assert len(starts) == 2


def test_a_run_s_own_config_is_read_again(tmp_path):
    config = from_dict({"seed": 3, "drift": {"rulers": ()}, "lora": {"rank": 3}})
    run_files.write_config(tmp_path, to_dict(config))
    file = tmp_path / run_files.CONFIG
    for given in ([f"--config={file}"], ["--config", str(file)]):
        argv = as_config_file(["program", *given, "--config.seed=4"])
        name, _, workdir = argv[-2].removeprefix("--config=").partition(":")
        assert argv[-1] == "--config.seed=4" and Path(name).name == "saved_config.py"
        assert from_dict(get_config(workdir).to_dict()) == config
    kept = ["program", "--config=configs/quickstart.py", "--words=a.json"]
    assert as_config_file(kept) == kept


def test_a_config_that_no_run_wrote_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        as_config_file(["program", f"--config={tmp_path / 'config.json'}"])
    with pytest.raises(UserError, match="mine.json: name a Python file or a run's config.json"):
        as_config_file(["program", "--config=mine.json"])
    run_files.write_config(tmp_path, to_dict(from_dict({})) | {"stepz": 1})
    with pytest.raises(UserError, match="of another version.*stepz"):
        as_config_file(["program", f"--config={tmp_path / 'config.json'}"])
    text = (tmp_path / "config.json").read_text().replace('"seed": 0', '"seed": 1')
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="not as the run wrote it"):
        as_config_file(["program", f"--config={tmp_path / 'config.json'}"])


def test_a_command_that_is_told_can_be_typed_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my env" / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "my env" / "bin"))
    assert installed("aij-study") == "python -m launch.study"  # not there at all
    (tmp_path / "my env" / "bin").mkdir(parents=True)
    command(tmp_path / "my env" / "bin", "aij-study")
    assert installed("aij-study") == "aij-study"  # on the PATH
    monkeypatch.setenv("PATH", "")
    assert installed("aij-study") == "'my env/bin/aij-study'"
