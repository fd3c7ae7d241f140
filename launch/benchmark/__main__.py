"""How fast, against transformers and PEFT on the same machine and items, and against the machine.

    python -m launch.benchmark --workdir=runs/benchmark
    python -m launch.benchmark --what=evaluate --workloads=given-bare --peers=strong --n_items=16 \\
        --repeats=1 --growth= --workdir=runs/short

Every side runs in a process of its own on two cores with the same weights, items, prompts and token
paths, in turns. Peers: `usual`, as commonly written, and `strong`, which computes a shared prefix
once and packs all paths, in evaluation and in training; each at its own best batch size. A peer
whose word probabilities (relative) or losses (in nats) differ from ours by more than 0.001 does not
count. Evaluation is timed from token ids to probabilities; a training step from a made batch to
moved adapters, anchor off. Workload given-bare-1b takes a random model of Llama 3.2 1B's shape and
is not among the default ones. Writes benchmark.json, benchmark.md and benchmark.png into --workdir
and replaces those of an earlier run. launch/benchmark/README.md says what was measured.
"""

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from antiimit_jax.errors import UserError, near_misses
from antiimit_jax.files import json_text
from antiimit_jax.language_model import load_language_model
from antiimit_jax.processor import MatmulRate
from antiimit_jax.reporting import run_files
from launch import cli
from launch.benchmark import growth, results, tables
from launch.benchmark.compare import compare
from launch.benchmark.growth import AXES
from launch.benchmark.job import PEERS, WHAT
from launch.benchmark.workloads import STANDARD, WORKLOADS, Setup

_CORES = 2

flags.DEFINE_list("what", None, f"What to time, of {', '.join(WHAT)}; else the workload's own.")
flags.DEFINE_list("workloads", list(STANDARD), f"On what, of {', '.join(WORKLOADS)}.")
flags.DEFINE_list("peers", list(PEERS), f"Against whom, of {', '.join(PEERS)}.")
flags.DEFINE_integer("repeats", 3, "Times of each side, in turns.", lower_bound=1)
flags.DEFINE_integer("n_items", None, "Items of an evaluation; else the workload's.", lower_bound=1)
flags.DEFINE_list("growth", list(AXES), f"What grows, of {', '.join(AXES)}; empty for nothing.")
flags.DEFINE_string("model", "smollm2-135m-instruct", "Alias, hub id, folder or .gguf file.")
flags.DEFINE_string("workdir", None, "Folder for the results, made if absent.")


def main() -> None:
    asked = cli.FLAGS
    names, peers = _known("workloads", WORKLOADS), _known("peers", PEERS)
    axes = _known("growth", AXES) if asked.growth else []
    what = None if asked.what is None else _known("what", WHAT)
    workdir = Path(cli.needed("workdir")).expanduser()
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir}: is a file; name a folder")
    absent = [name for name in ("torch", "peft") if importlib.util.find_spec(name) is None]
    if absent:
        raise UserError(f"the peers need {' and '.join(absent)}; `make test` installs them")
    cores = results.hold_cores(_CORES)
    if jax.default_backend() != "cpu":
        raise UserError("the peers run on the CPU: set JAX_PLATFORMS=cpu for a fair comparison")
    cli.say(f"loading {asked.model}")
    lm = load_language_model(asked.model)
    if lm.cfg.family != "llama":
        raise UserError(f"--model={asked.model}: is a {lm.cfg.family}; the peers take llama models")
    workdir.mkdir(parents=True, exist_ok=True)
    rate = MatmulRate()
    found: dict[str, Any] = {"schema": results.SCHEMA, "model": asked.model}
    found |= {"rows": [], "figures": [], "behind_one_prompt": [], "growth": []}
    with tempfile.TemporaryDirectory() as scratch:
        given = dict(lm=lm, model=asked.model, repeats=asked.repeats, n_items=asked.n_items)
        setup = Setup(peers=peers, cores=cores, rate=rate, scratch=Path(scratch), **given)
        for name in names:
            for kind in what or WORKLOADS[name].what:
                rows, figures = compare(setup, name, kind)
                found["rows"] += rows
                found["figures"] += figures
                _write(found, results.machine(cores, rate), workdir)  # the next may need too much
        if "one-prompt" in axes and "evaluate" in (what or WHAT):
            found["behind_one_prompt"] = growth.behind_one_prompt(setup)
        found["growth"] = growth.measure(setup, what or WHAT, axes)
    _write(found, results.machine(cores, rate), workdir)
    print(tables.plain(found), end="")
    print(f"written: {workdir / 'benchmark.json'}, benchmark.md and benchmark.png")


def _write(found: dict[str, Any], machine: dict[str, Any], workdir: Path) -> None:
    found["machine"] = machine
    text = json_text(found, indent=1) + "\n"
    run_files.write_text(workdir / "benchmark.json", text)
    run_files.write_text(workdir / "benchmark.md", tables.markdown(found))
    if found["figures"]:
        tables.plot(found, workdir / "benchmark.png")


def _known(flag: str, known: Sequence[str]) -> list[str]:
    given = cli.needed(flag)
    unknown = [f"{name!r}{near_misses(name, known)}" for name in given if name not in known]
    if unknown or not given:
        wrong = ", ".join(unknown) or "empty"
        raise UserError(f"--{flag}: {wrong}; use some of {', '.join(known)}")
    return list(dict.fromkeys(given))


if __name__ == "__main__":
    cli.run(main)
