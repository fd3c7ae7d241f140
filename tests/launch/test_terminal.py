"""What programs say: one true line when stopped, nothing that steers a terminal, any encoding."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.bars import Bars
from tests.launch.processes import ROOT, SMALL, command, environment, launch, refused
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def run(argv, **environ: str) -> subprocess.CompletedProcess:
    env = environment() | environ
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, timeout=120)


def stopped(argv, reached, number: int) -> tuple[subprocess.Popen, str, float]:
    """A program that got a signal when `reached` said so, its last line, and how long it took.

    Its own processes get the signal too, as from a terminal or a machine that shuts down.
    """
    how = {"stdout": -1, "stderr": -1, "text": True, "start_new_session": True}
    with subprocess.Popen(argv, cwd=ROOT, env=environment(), **how) as child:
        limit = time.monotonic() + 100
        while not reached() and child.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        began = time.monotonic()
        os.killpg(child.pid, number)
        out, err = child.communicate(timeout=60)
    assert "Traceback" not in err and "Exception ignored" not in err, err
    assert out == ""
    assert err.count("stopped; ") == 1, err
    return child, err.splitlines()[-1], time.monotonic() - began


def after(seconds: float):
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


@pytest.mark.parametrize(
    "seconds, number, code",
    [(0.2, signal.SIGINT, 130), (1.0, signal.SIGTERM, 33), (3.0, signal.SIGINT, 130)],
)
def test_a_signal_while_importing_or_loading(model, seconds, number, code):
    argv = command("score", f"--model={model}", "--prompt=x", "--words=a,b")
    child, line, took = stopped(argv, after(seconds), number)
    assert child.returncode == code
    assert line == "stopped; nothing was written"
    assert took < 8


def test_a_stopped_training_says_what_is_kept(model, tmp_path):
    run_folder = tmp_path / "run"
    argv = command("finetune", f"--model={model}", f"--workdir={run_folder}", *SMALL)
    argv += ["--config.train.steps=400"]
    checkpoint = run_folder / "checkpoints" / "tuned" / "4"
    child, line, _ = stopped(argv, checkpoint.exists, signal.SIGINT)
    assert child.returncode == 130
    steps = max(int(f.name) for f in checkpoint.parent.iterdir() if f.name.isdecimal())
    assert f"{steps} training steps of tuned" in line and str(run_folder) in line
    assert line.endswith("the same command goes on from there")


PATIENT = """
import runpy
from launch import interrupt
interrupt._HELD_S = 600  # however slow the machine is
runpy.run_module("launch.finetune", run_name="__main__", alter_sys=True)
"""


def test_sigterm_ends_the_step_saves_it_and_exits_with_33(model, tmp_path):
    argv = [sys.executable, "-c", PATIENT, f"--model={model}", f"--workdir={tmp_path / 'run'}"]
    argv += [*SMALL, "--config.train.steps=4000", "--config.train.checkpoint_every=4000"]
    said = tmp_path / "said"
    stepping = lambda: re.search(r" [1-9]\d*/4000", said.read_text())
    with said.open("w") as err:
        child = subprocess.Popen(argv, cwd=ROOT, env=environment(), stderr=err)
    while not stepping() and child.poll() is None:
        time.sleep(0.05)
    child.terminate()
    assert child.wait(timeout=300) == 33
    line = said.read_text().splitlines()[-1]
    (saved,) = re.findall(r"(\d+) training steps of tuned; the same command goes on", line)
    assert (tmp_path / "run" / "checkpoints" / "tuned" / saved).is_dir()


HELD = """
import os, signal, sys, time
import launch.cli as cli
from launch import interrupt
times = sys.argv.pop()
interrupt._HELD_S = 600
def main():
    with interrupt.held() as told:
        os.kill(os.getpid(), signal.SIGTERM)
        while not told():
            pass
        print("saved", flush=True)
        if times == "again":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(600)
    print("not reached")
cli.run(main, lambda: "kept")
"""


@pytest.mark.parametrize("times", ["once", "again"])
def test_sigterm_waits_for_what_is_held_and_a_second_one_for_nothing(times):
    result = run([sys.executable, "-c", HELD, times])
    assert result.returncode == 33, result.stderr
    assert (result.stdout, result.stderr) == (b"saved\n", b"stopped; kept\n")


def test_several_processes_of_jax_leave_sigterm_to_us():
    code = """
import os, signal, time
import launch.cli as cli
import jax
def main():
    where = {"coordinator_address": "127.0.0.1:PORT", "num_processes": 1, "process_id": 0}
    jax.distributed.initialize(**where)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
cli.run(main, lambda: "kept")
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    result = run([sys.executable, "-c", code.replace("PORT", port)])
    assert result.returncode == 33, result.stderr
    assert result.stderr.splitlines()[-1] == b"stopped; kept"


def test_ctrl_c_in_compiled_code_that_does_not_come_back(tmp_path):
    code = """
import hashlib, sys
import launch.cli as cli
busy = sys.argv.pop()
def main():
    open(busy, "w").close()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
cli.run(main, lambda: "kept")
"""
    argv = [sys.executable, "-c", code, str(tmp_path / "busy")]
    child, line, took = stopped(argv, (tmp_path / "busy").exists, signal.SIGINT)
    assert (child.returncode, line) == (130, "stopped; kept")
    assert took < 10


def test_notes_warnings_and_errors_have_lines_of_their_own_beside_open_bars():
    code = r"""
import logging, warnings
import absl.logging
import launch.cli as cli
from antiimit_jax.errors import UserError
def main():
    cli.bar("first\x1b[2J", 5)(2)
    cli.bar("second", 5)(1)
    cli.say("note \x1b]0;title\x07")
    warnings.warn("warned")
    absl.logging.warning("odd\x1b[31m")
    logging.getLogger("transformers").warning("old")
    raise UserError("it is \x1b[31mred")
cli.run(main)
"""
    result = run([sys.executable, "-c", code])
    assert result.returncode == 2
    assert b"\x1b" not in result.stderr.replace(b"\x1b[A", b"")  # tqdm's own: one line up
    assert result.stderr.splitlines()[-1] == rb"error: it is \x1b[31mred"
    lines = result.stderr.split(b"\n")
    for said in (rb"note \x1b]0;title\x07", b"UserWarning: warned", rb"odd\x1b[31m", b"old"):
        found = [line for line in lines if line.endswith(said)]
        assert found, result.stderr
        assert not any(b"%|" in line.rpartition(b"\r")[2] for line in found), result.stderr


def test_bars_tell_how_it_goes_and_how_much_of_the_whole_has_passed(capsys):
    bars = Bars()
    bars("alone", 1)(1)
    assert "min" not in capsys.readouterr().err
    bars.expect(37 * 60)
    done = bars("training", 2)
    done(1, "loss 0.250, KL 0.125")
    done(1)
    last = capsys.readouterr().err.splitlines()[-1]
    assert "2/2" in last and "0 of about 37 min" in last
    bars.expect(60)
    bars("training", 1)(1, "loss 0.250")
    assert "loss 0.250; 0 of about 60 sec" in capsys.readouterr().err


def test_a_forked_program_says_what_a_process_of_its_own_says():
    for flags in (["--help"], ["--prompt=é", "--words=a", "--model=/nowhere/\x1b"]):
        forked, own = launch("score", *flags), run(command("score", *flags))
        assert forked.stdout.encode() == own.stdout and forked.stderr.encode() == own.stderr
        assert forked.returncode == own.returncode


def test_escape_sequences_of_words_prompts_and_names_stay_text(model, tmp_path):
    words = "red\x1b[31m,\u202eback,\x9bend"
    asked = (f"--model={model}", "--prompt=\x1b[2Jx", f"--words={words}")
    table = launch("score", *asked, "--top=0")
    assert table.returncode == 0, table.stderr
    assert all(line.isprintable() for line in table.stdout.splitlines())
    result = launch("score", *asked, "--json")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().isprintable()
    assert list(json.loads(result.stdout)["words"]) == words.split(",")
    named = launch("score", "--model=/nowhere/\x1b[31mx", "--prompt=x", "--words=a")
    refused(named, r"\x1b[31mx")
    assert "\x1b" not in named.stderr


@pytest.mark.parametrize("environ", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_an_ascii_terminal_gets_whole_json(model, environ):
    argv = command("score", f"--model={model}", "--prompt=é", "--words=naïve,Ünë", "--json")
    result = run(argv, **environ)
    assert result.returncode == 0, result.stderr
    assert list(json.loads(result.stdout)["words"]) == ["naïve", "Ünë"]


@pytest.mark.parametrize("flag", [b"--prompt=a\xff", b"--workdir=/tmp/\xfe\xff", b"--model=\xff"])
def test_names_and_texts_that_are_not_utf8_are_refused(flag):
    program = "evaluate" if b"workdir" in flag else "score"
    result = run([*command(program), flag])
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(b"error: ") and b"UTF-8" in line and rb"\udcff" in line


def test_a_folder_that_is_not_utf8_is_refused(tmp_path):
    folder = bytes(tmp_path) + b"/\xff"
    Path(folder.decode(errors="surrogateescape")).mkdir()
    argv, env = command("plan", "--list"), environment() | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(argv, cwd=folder, env=env, capture_output=True, timeout=120)
    assert result.returncode == 2 and result.stderr.count(b"\n") == 1
    assert b"UTF-8" in result.stderr
