"""One program in several processes, as on several hosts: one result, one end, one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from jax._src.clusters import ClusterEnv

from antiimit_jax.reporting import run_files
from launch import meeting
from launch.workdir import locked
from tests.launch.impatient import SILENT_S
from tests.launch.on_hosts import Ended, flags_of, free_port, together
from tests.launch.parts import BATCHES, saved_or_restored
from tests.launch.processes import ROOT, bare_environment, command
from tests.launch.small_runs import FEW, results

SMALL = [f"--config.{name}={value}" for name, value in FEW.items() if name != "suites"]
SMALL += ["--config.suites=('control',)", "--config.train.accumulate=2"]
TRAINED = "adapter/adapter_model.safetensors"


def steps_there(workdir: Path) -> list[int]:
    names = [folder.name for folder in workdir.glob("checkpoints/tuned/*")]
    return sorted(int(name) for name in names if name.isdecimal())


def finetune(model: Path) -> list[str]:
    steps = "--config.train.steps=60"
    return ["finetune", f"--model={model}", "--adapters=tuned", *SMALL, steps]


def on_each(command: list[str], workdirs: list[Path], **how) -> list[Ended]:
    """A command in as many processes as there are folders, each with its own as --workdir."""
    where = flags_of(len(workdirs))
    return together(
        [[*command, f"--workdir={w}", *flags] for w, flags in zip(workdirs, where)], **how
    )


def test_two_and_four_processes_split_batches_and_read_each_others_results(tmp_path):
    """And a checkpoint that two saved is restored by one and by four."""
    for processes, became in ((2, "saved"), (4, "restored")):
        where = [str(tmp_path), f"127.0.0.1:{free_port()}", str(processes)]
        commands = [[*where, str(number)] for number in range(processes)]
        ended = together(commands, "tests.launch.parts")
        assert [one.code for one in ended] == [0] * processes, ended
        told = [json.loads(one.out.splitlines()[-1]) for one in ended]
        assert [one["own"] for one in told] == [[number] for number in range(processes)]
        assert all(one["whole"] == list(range(processes)) for one in told)
        assert [one["keeps"] for one in told] == [True] + [False] * (processes - 1)
        of_two_halves = [[float(number * 2 // processes)] for number in range(processes)]
        assert [one["of_a_step"] for one in told] == of_two_halves
        assert all(one["found"] == [2 * float(b.sum()) for b in BATCHES] for one in told)
        assert [one["checkpoint"] for one in told] == [became] * processes
        shutil.rmtree(tmp_path / "1")
        for number in range(1, 4):
            shutil.copytree(tmp_path / "0", tmp_path / str(number), dirs_exist_ok=True)
    assert saved_or_restored(tmp_path / "0") == "restored"


@pytest.fixture(scope="module")
def alone(model, tmp_path_factory) -> Path:
    """An adapter that one process with two devices trained."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    (ended,) = together([[*finetune(model), f"--workdir={workdir}"]], devices=2)
    assert ended.code == 0, ended.err
    return workdir


def test_sigterm_to_one_lets_all_end_the_same_step(tmp_path):
    def stop_second(children, folder: Path) -> None:
        files = [tmp_path / str(number) for number in range(3)]
        while not all(file.exists() for file in files) and children[0].is_alive():
            time.sleep(0.05)
        os.kill(children[1].pid, signal.SIGTERM)

    commands = [[f"--folder={tmp_path}", *flags] for flags in flags_of(3)]
    ended = together(commands, "tests.launch.stepping", meanwhile=stop_second)
    assert [one.code for one in ended] == [33, 33, 33], ended
    assert len({(tmp_path / str(number)).read_text() for number in range(3)}) == 1
    others = "stopped; process 0 says what is kept"
    assert [one.lines for one in ended] == [["stopped; kept"], [others], [others]]


@pytest.mark.large
def test_a_run_that_two_processes_began_goes_on_in_one_to_the_same_bytes(model, alone, tmp_path):
    workdirs = [tmp_path / "first", tmp_path / "second"]

    def stop_second(children, folder: Path) -> None:
        while not steps_there(workdirs[0]) and children[0].is_alive():
            time.sleep(0.02)
        os.kill(children[1].pid, signal.SIGTERM)

    first, second = on_each(finetune(model), workdirs, meanwhile=stop_second)
    assert (first.code, second.code) == (33, 33), (first.err, second.err)
    last = steps_there(workdirs[0])[-1]
    assert f"{last} training steps of tuned; the same command goes on" in first.lines[-1]
    assert second.lines == ["stopped; process 0 says what is kept"] and second.out == ""
    assert not workdirs[1].exists()
    (ended,) = together([[*finetune(model), f"--workdir={workdirs[0]}"]], devices=2)
    assert ended.code == 0, ended.err
    assert (workdirs[0] / TRAINED).read_bytes() == (alone / TRAINED).read_bytes()


@pytest.mark.large
@pytest.mark.parametrize("mesh", ["auto", "data:1,model:2"])
def test_two_processes_tell_what_one_tells_and_the_first_alone_keeps_it(
    model, alone, tmp_path, mesh
):
    command = [
        "evaluate",
        f"--model={model}",
        f"--adapter={alone / 'adapter'}",
        f"--mesh={mesh}",
        *SMALL,
    ]
    (one,) = together([[*command, f"--workdir={tmp_path / 'one'}"]], devices=2)
    first, second = on_each(command, [tmp_path / "first", tmp_path / "second"])
    assert one.code == first.code == second.code == 0, (one.err, first.err, second.err)
    assert results(tmp_path / "first") == results(tmp_path / "one")
    assert first.out == one.out.replace(str(tmp_path / "one"), str(tmp_path / "first"))
    assert (second.out, second.err) == ("", "") and not (tmp_path / "second").exists()
    info = run_files.read_metrics(tmp_path / "first")["run"]
    assert info["device"].endswith("x2")


def score(model: Path, *more: str) -> list[str]:
    asked = ["--prompt=A river", "--words=red,green", "--dtype=float32", "--top=0", "--json"]
    return ["score", f"--model={model}", *asked, *more]


@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_process_ends_the_others_with_a_line_that_names_it(model, number):
    killed: list[float] = []

    def kill(children, folder: Path) -> None:
        while "loading" not in (folder / "0.err").read_text() and children[0].is_alive():
            time.sleep(0.05)
        os.kill(children[number].pid, signal.SIGKILL)
        killed.append(time.monotonic())

    where = list(flags_of(2))
    ended = together([[*score(model), *flags] for flags in where], meanwhile=kill)
    took, left = time.monotonic() - killed[0], ended[1 - number]
    assert (ended[number].code, left.code) == (-signal.SIGKILL, 2), ended
    why = "ended without a word: it was killed, or its host is gone"
    assert left.lines[-1] == f"error: process {number}: {why}"
    assert "Traceback" not in left.err and "***" not in left.err, left.err
    if number == 0:  # the service beside it tells of it, and gives way to the same command
        assert took < SILENT_S
        again = together([[*score(model), *flags] for flags in where])
        assert [one.code for one in again] == [0, 0], again
        assert not any("Traceback" in one.err or "***" in one.err for one in again), again


def test_processes_of_their_own_end_in_order_when_all_is_done(model):
    """Not forked ones, which leave no interpreter behind that a thread could disturb."""
    argv = [command(*score(model), *flags) for flags in flags_of(2)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(one, cwd=ROOT, env=bare_environment(), **pipes) for one in argv]
    (out, err), rest = [one.communicate(timeout=120) for one in started]
    assert [one.returncode for one in started] == [0, 0], (err, rest)
    assert json.loads(out) and "Traceback" not in err and rest == ("", "")


def test_processes_that_a_cluster_started_find_each_other(model):
    slurm = {
        **{"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"},
        "JAX_COORDINATOR_PORT": str(free_port()),
    }
    environs = [slurm | {"SLURM_PROCID": one, "SLURM_LOCALID": one} for one in "01"]
    first, second = together([score(model)] * 2, environs=environs)
    (one,) = together([score(model)])
    assert first.code == second.code == one.code == 0, (first.err, second.err)
    assert json.loads(first.out) == json.loads(one.out) and second.out == ""


def test_jax_knows_the_clusters_that_it_may_look_up():
    assert set(meeting.CLUSTERS) <= {cluster.name for cluster in ClusterEnv._cluster_types}


def test_processes_that_differ_are_refused_with_what_differs(model, tmp_path):
    def refusals(ours: list[str], theirs: list[str], **how) -> list[str]:
        ended = together([[*c, *f] for c, f in zip((ours, theirs), flags_of(2))], **how)
        assert [one.code for one in ended] == [2, 2], ended
        return [one.lines[-1] for one in ended]

    study = ["evaluate", f"--model={model}", f"--workdir={tmp_path / 'run'}", *SMALL]
    lines = refusals([*study, "--config.seed=0"], [*study, "--config.seed=7"])
    assert all("config.seed (process 0: 0, process 1: 7)" in line for line in lines)
    homes = [tmp_path / name for name in ("home", "other")]
    for home in homes:
        shutil.copytree(model, home / "tiny")
    with (homes[1] / "tiny" / "tokenizer_config.json").open("a") as file:
        file.write(" ")
    environs = [{"HOME": str(home)} for home in homes]
    asked = score(Path("~/tiny"))
    for line in refusals(asked, asked, environs=environs):
        assert "model.tokenizer_config.json" in line


def test_what_one_process_may_not_do_ends_all(model, tmp_path):
    workdirs = [tmp_path / "taken", tmp_path / "other"]
    with locked(str(workdirs[0])):
        first, second = on_each(["evaluate", f"--model={model}", *SMALL], workdirs)
    assert (first.code, second.code) == (2, 2)
    assert "in use by another run" in first.lines[-1]
    assert second.lines == [first.lines[-1].replace("error: ", "error: process 0: ")]
    assert not workdirs[1].exists()
    split = score(model, "--mesh=data:1,model:1")
    for ended in together([[*split, *flags] for flags in flags_of(2)]):
        assert ended.code == 2
        assert "leaves no device to process 1; take all 2" in ended.lines[-1]


def test_a_place_that_cannot_be_reached_or_is_taken_is_named(model):
    near, far = flags_of(2)
    soon = dict(environs=[{"MEET_S": "8"}] * 2)
    unreached, partly = together([[*score(model), *far], [*score(model), far[1]]], **soon)
    for ended, said in (
        (unreached, f"{far[0]}: cannot be reached within 8 s"),
        (partly, "give --coordinator, --processes, --process_id together"),
    ):
        assert ended.code == 2 and len(ended.lines) == 1 and said in ended.err, ended
    with socket.create_server(("127.0.0.1", int(near[0].rpartition(":")[2]))):
        (taken,) = together([[*score(model), *near]], **soon)
    assert taken.code == 2 and taken.lines == [
        f"error: {near[0]}: the port is in use; name another"
    ]
