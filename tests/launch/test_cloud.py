"""Launchers for borrowed machines: what they call, when they start again, what they refuse."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from antiimit_jax.planning.hardware import HARDWARE
from launch.interrupt import TERMINATED
from tests.launch import fake_gcloud
from tests.launch.processes import ROOT, launch, refused

CLOUD = ROOT / "launch" / "cloud"
TPU = str(CLOUD / "tpu.sh")
HERE = ("--name=mine", "--zone=us-east5-a")
KINDS = (["--kind=spot"], ["--kind=on_demand"], ["--kind=flex_start"], ["--direct"])
SKY = ROOT / ".venv" / "sky" / "bin" / "python"


def bash(*argv: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess:
    how = {"capture_output": True, "text": True, "timeout": 60}
    return subprocess.run(["bash", *argv], cwd=cwd, env=os.environ | environ, **how)


def executable(file: Path, text: str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


@pytest.fixture
def gcloud(tmp_path) -> dict[str, str]:
    """The environment with the fake `gcloud` first on PATH."""
    real = shlex.join([sys.executable, fake_gcloud.__file__])
    executable(tmp_path / "bin" / "gcloud", f'#!/bin/bash\nexec {real} "$@"\n')
    return {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "FAKE_GCLOUD": str(tmp_path)}


def calls(folder: Path) -> list[str]:
    lines = (folder / "calls.jsonl").read_text().splitlines()
    return [json.loads(line)[0].removeprefix("compute tpus ") for line in lines]


def test_scripts_are_clean_for_shellcheck():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    files = [*CLOUD.glob("*.sh"), CLOUD / "slurm.sbatch"]
    assert len(files) == 6
    result = subprocess.run([shellcheck, "-s", "bash", *files], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("how", KINDS, ids=str)
@pytest.mark.parametrize("verb", ["create", "install", "start", "watch", "fetch", "delete"])
def test_a_dry_run_prints_commands_that_gcloud_knows_and_runs_none(gcloud, tmp_path, verb, how):
    result = bash(TPU, verb, *HERE, *how, "--dry_run", "--", "--model=m", cwd=tmp_path, **gcloud)
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "calls.jsonl").exists()
    lines = [shlex.split(line) for line in result.stdout.splitlines() if line[0] != "#"]
    told = [fake_gcloud.parse(words) for program, *words in lines if program == "gcloud"]
    assert told and {program for program, *_ in lines} <= {"gcloud", "git"}
    if verb == "create":
        (_, _, given) = told[0]
        assert given["accelerator-type"] == "v5litepod-8" and ("spot" in given) == (
            "--kind=spot" in how or "--direct" in how
        )
    if verb == "start":
        assert "supervise.sh runs/mine.code" in told[0][2]["command"]


def test_every_tpu_of_the_plan_is_an_accelerator_here(tmp_path):
    tpus = [name for name, machine in HARDWARE.items() if machine.kind == "tpu"]
    for name in tpus:
        result = bash(TPU, "create", *HERE, f"--accelerator={name}", "--dry_run")
        assert result.returncode == 0 and "--accelerator-type=v" in result.stdout, name


def test_a_machine_that_was_taken_away_is_deleted_and_a_new_one_goes_on(gcloud, tmp_path):
    (tmp_path / "states").write_text("ACTIVE\nSUSPENDED\nPROVISIONING\nACTIVE\nACTIVE\n")
    there = tmp_path / "vm" / "antiimit_jax" / "runs" / "mine"
    there.mkdir(parents=True)
    (there / "metrics.json").write_text("{}")
    command = [TPU, "watch", *HERE, "--every=0", "--", "--model=m"]
    environ = os.environ | gcloud
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=-1, text=True) as child:
        started = lambda: (
            (tmp_path / "calls.jsonl").exists() and "queued-resources delete" in calls(tmp_path)
        )
        while not started() and child.poll() is None:
            time.sleep(0.01)
        there.with_name("mine.code").write_text("0")
        out, _ = child.communicate(timeout=60)
    assert child.returncode == 0 and "ended with code 0" in out
    told = calls(tmp_path)
    gone = told.index("queued-resources delete")
    assert told[:gone] == [
        "queued-resources describe",
        "tpu-vm ssh",  # whether it has ended
        "tpu-vm ssh",  # its folder
        "queued-resources describe",
    ]
    assert told[gone + 1 : gone + 9] == [
        "queued-resources create",
        "queued-resources describe",
        "queued-resources describe",
        "tpu-vm scp",  # the code
        "tpu-vm ssh",  # installs it
        "tpu-vm ssh",
        "tpu-vm scp",  # the folder
        "tpu-vm ssh",  # starts it
    ]
    assert (tmp_path / "runs" / "mine" / "metrics.json").read_text() == "{}"


@pytest.mark.parametrize(
    "argv, part",
    [
        (["create", *HERE, "--accelerator=v5e-9"], "v5e-9: unknown; known: v2-8"),
        (["create", *HERE, "--kind=free"], "--kind=free: unknown"),
        (["create", *HERE, "--kind=flex_start", "--direct"], "leave out --direct"),
        (["destroy", *HERE], "unknown command 'destroy'"),
        (["create", *HERE, "--spot"], "unknown flag '--spot'"),
        (["create", "--name=mine"], "--zone is needed"),
        (["create", "--name=../x", "--zone=z"], "small letters"),
        (["fetch", *HERE], "runs: cannot be written"),
    ],
)
def test_what_is_wrong_is_one_line(gcloud, tmp_path, argv, part):
    (tmp_path / "runs").touch()
    result = bash(TPU, *argv, cwd=tmp_path, **gcloud)
    refused(result, part)
    assert not (tmp_path / "calls.jsonl").exists()


def test_without_gcloud_it_says_where_to_get_it(tmp_path):
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name))
    refused(bash(TPU, "create", *HERE, PATH=str(tmp_path)), "gcloud is not on PATH")


@pytest.mark.parametrize("codes, runs", [((33, 33, 0), 3), ((1,), 1), ((33, 137), 2)])
def test_the_supervisor_starts_again_after_33_alone(tmp_path, codes, runs):
    last = "; ".join(f"[ $n -gt {i} ] || exit {code}" for i, code in enumerate(codes))
    line = f"n=$(cat n 2> /dev/null || echo 0); echo $((n + 1)) > n; {last}"
    command = [str(CLOUD / "supervise.sh"), "code", "bash", "-c", line]
    result = bash(*command, cwd=tmp_path, SUPERVISE_PAUSE="0")
    assert result.returncode == codes[-1] == int((tmp_path / "code").read_text())
    assert (tmp_path / "n").read_text() == f"{runs}\n"


WAITING = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(33)); "
WAITING += "open('up', 'w').close(); time.sleep(60)"


@pytest.mark.parametrize("script", [("supervise.sh", "code"), ("keep.sh", "kept.tar", "run")])
def test_sigterm_goes_to_the_command_which_may_save(tmp_path, script):
    name, *files = script
    (tmp_path / "run").mkdir()
    argv = ["bash", str(CLOUD / name), *files, sys.executable, "-c", WAITING]
    with subprocess.Popen(argv, cwd=tmp_path) as child:
        while not (tmp_path / "up").exists() and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=30) == TERMINATED
    assert (tmp_path / files[0]).exists()


def test_a_run_is_kept_in_an_archive_and_comes_back_from_it(tmp_path):
    archive = str(tmp_path / "kept.tar")
    for place, code in (("first", 33), ("second", 0)):
        (tmp_path / place).mkdir()
        line = f"mkdir -p runs/mine; echo {place} >> runs/mine/log; exit {code}"
        command = [str(CLOUD / "keep.sh"), archive, "runs/mine", "bash", "-c", line]
        assert bash(*command, cwd=tmp_path / place).returncode == code
    assert (tmp_path / "second" / "runs" / "mine" / "log").read_text() == "first\nsecond\n"


@pytest.mark.parametrize("code, again", [(33, True), (0, False), (137, False)])
def test_slurm_puts_back_into_the_queue_what_sigterm_ended(tmp_path, code, again):
    executable(tmp_path / "srun", f"#!/bin/bash\nexit {code}\n")
    executable(tmp_path / "scontrol", f'#!/bin/bash\necho "$@" > {tmp_path}/told\n')
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    assert bash(str(CLOUD / "slurm.sbatch"), "--workdir=w", **environ).returncode == code
    assert (tmp_path / "told").exists() == again
    assert not again or (tmp_path / "told").read_text() == "requeue 7\n"


@pytest.mark.parametrize("name", ["sky_tpu.yaml", "sky_gpu.yaml"])
def test_managed_jobs_recover_from_33_alone(name):
    task = yaml.safe_load((CLOUD / name).read_text())
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [TERMINATED]
    assert bash("-n", "-c", task["run"]).returncode == 0


def test_the_ten_commands_of_the_page_are_understood(gcloud, tmp_path):
    page = (CLOUD / "README.md").read_text(encoding="utf-8")
    lines = [shlex.split(line) for line in page.split("```")[1].strip().splitlines()]
    ours = [words[1:] for words in lines if words[0] == "launch/cloud/tpu.sh"]
    assert len(lines) == 10 and len(ours) == 5
    for verb, *flags in ours:
        result = bash(TPU, verb, "--dry_run", *flags, cwd=tmp_path, **gcloud)
        assert result.returncode == 0, result.stderr
    ((_, *flags),) = [words for words in lines if words[0] == ".venv/bin/aij-plan"]
    assert flags[1].removeprefix("--hardware=") in HARDWARE
    studies = [flags[flags.index("--") + 1 :] for _, *flags in ours if "--" in flags]
    assert studies[0] == studies[1]  # the same command goes on
    told = launch("study", *studies[0], "--help_config")
    assert told.returncode == 0, told.stderr


@pytest.mark.large
@pytest.mark.skipif(not SKY.exists(), reason="needs .venv/sky, which make test-large makes")
@pytest.mark.parametrize("name", ["sky_tpu.yaml", "sky_gpu.yaml"])
def test_skypilot_reads_its_files(name, tmp_path):
    code = f"import sky; task = sky.Task.from_yaml({str(CLOUD / name)!r}); print(task.resources)"
    how = {"cwd": ROOT, "capture_output": True, "text": True}
    environ = os.environ | {"HOME": str(tmp_path), "HF_TOKEN": "none"}
    result = subprocess.run([SKY, "-c", code], env=environ, **how)
    assert result.returncode == 0, result.stderr
    assert ("tpu-v6e-8" if "tpu" in name else "H100") in result.stdout


def test_a_workdir_that_cannot_be_made_is_refused_in_one_line():
    refused(launch("finetune", "--workdir=/proc/none"), "/proc/none", "intact")
