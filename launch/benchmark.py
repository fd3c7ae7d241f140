"""How fast, against transformers and PEFT on the same machine and items, and against the machine.

    python -m launch.benchmark --workdir=runs/benchmark
    python -m launch.benchmark --what=evaluate --workloads=given-bare --peers=strong --n_items=16 \\
        --repeats=1 --growth= --workdir=runs/short

Every side runs in a process of its own on two cores with the same weights, items, prompts and token
paths, in turns. Peers: `usual`, as commonly written, and `strong`, with prefix caches, packed paths
and sorted batches; each at its own best batch size. A peer whose word probabilities (relative) or
losses (in nats) differ from ours by more than 0.001 does not count. Evaluation is timed from token
ids to probabilities; a training step from a made batch to moved adapters, anchor off. Workload
given-bare-1b takes a random model of Llama 3.2 1B's shape and is not among the default ones. Writes
benchmark.json, benchmark.md and benchmark.png into --workdir and replaces those of an earlier run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from antiimit_jax.errors import UserError
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.models.catalog import near_misses
from antiimit_jax.reporting import run_files
from launch import benchmark_growth as growth
from launch import benchmark_rows as rows
from launch import benchmark_tables as tables
from launch import benchmark_work as work
from launch import benchmark_workloads as workloads
from launch import cli
from launch.benchmark_sides import Worker, best_batch, interleave
from launch.benchmark_worker import OURS, PEERS, WHAT, Job

NARROW = "ours bfloat16"  # our training step with products in bfloat16, as in the quickstart
_CORES = 2
_ENOUGH_S = 60.0  # a side that has run for so long is not repeated
_BEHIND_ITEMS = 48

flags.DEFINE_list("what", None, f"What to time, of {', '.join(WHAT)}; else the workload's own.")
flags.DEFINE_list(
    "workloads", list(workloads.STANDARD), f"On what, of {', '.join(workloads.WORKLOADS)}."
)
flags.DEFINE_list("peers", list(PEERS), f"Against whom, of {', '.join(PEERS)}.")
flags.DEFINE_integer("repeats", 3, "Times of each side, in turns.", lower_bound=1)
flags.DEFINE_integer("n_items", None, "Items of an evaluation; else the workload's.", lower_bound=1)
flags.DEFINE_list(
    "growth", list(growth.AXES), f"What grows, of {', '.join(growth.AXES)}; empty for nothing."
)
flags.DEFINE_string("model", "smollm2-135m-instruct", "Alias, hub id, folder or .gguf file.")
flags.DEFINE_string("workdir", None, "Folder for the results, made if absent.")


def main() -> None:
    names, peers = _known("workloads", workloads.WORKLOADS), _known("peers", PEERS)
    axes = _known("growth", growth.AXES) if cli.FLAGS.growth else []
    what = None if cli.FLAGS.what is None else _known("what", WHAT)
    workdir = Path(cli.needed("workdir")).expanduser()
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir}: is a file; name a folder")
    absent = [name for name in ("torch", "peft") if importlib.util.find_spec(name) is None]
    if absent:
        raise UserError(f"the peers need {' and '.join(absent)}; `make test` installs them")
    cores = rows.hold_cores(_CORES)
    if jax.default_backend() != "cpu":
        raise UserError("the peers run on the CPU: set JAX_PLATFORMS=cpu for a fair comparison")
    workdir.mkdir(parents=True, exist_ok=True)
    rate = rows.MatmulRate()
    result: dict[str, Any] = {
        "schema": rows.SCHEMA,
        "model": cli.FLAGS.model,
        "rows": [],
        "figures": [],
        "behind_one_prompt": [],
        "growth": [],
    }
    with tempfile.TemporaryDirectory() as scratch:
        cli.say(f"loading {cli.FLAGS.model}")
        lm = load_language_model(cli.FLAGS.model)
        if not workloads.is_plain_llama(lm.cfg):
            raise UserError(f"--model={cli.FLAGS.model}: the benchmark takes plain llama models")
        comparison = Comparison(lm, peers, rate, cores, Path(scratch))
        for name in names:
            for kind in what or workloads.WORKLOADS[name].what:
                found, figures = comparison.compare(name, kind)
                result["rows"] += found
                result["figures"] += figures
                _write(result, rows.machine(cores, rate), workdir)  # the next may need too much
        if axes:
            kinds, repeats = what or list(WHAT), cli.FLAGS.repeats
            if "one-prompt" in axes and "evaluate" in kinds:
                cli.say("words and forms behind one prompt")
                count = cli.FLAGS.n_items or _BEHIND_ITEMS
                result["behind_one_prompt"] = growth.words_behind_a_prompt(
                    lm, cli.FLAGS.model, count, repeats
                )
            result["growth"] = growth.measure(
                lm, kinds, axes, repeats, Path(scratch), cli.say, cli.FLAGS.n_items
            )
    _write(result, rows.machine(cores, rate), workdir)
    print(tables.plain(result), end="")
    print(f"written: {workdir / 'benchmark.json'}, benchmark.md and benchmark.png")


def _write(result: dict[str, Any], machine: dict[str, Any], workdir: Path) -> None:
    result["machine"] = machine
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    run_files.write_text(workdir / "benchmark.json", text)
    run_files.write_text(workdir / "benchmark.md", tables.markdown(result))
    if result["figures"]:
        tables.plot(result, workdir / "benchmark.png")


def _known(flag: str, known: Sequence[str]) -> list[str]:
    given = cli.needed(flag)
    unknown = [f"{name!r}{near_misses(name, known)}" for name in given if name not in known]
    if unknown or not given:
        wrong = ", ".join(unknown) or "empty"
        raise UserError(f"--{flag}: {wrong}; use some of {', '.join(known)}")
    return list(dict.fromkeys(given))


class Comparison:
    """Ours and the peers on one workload after another."""

    def __init__(
        self,
        lm: LanguageModel,
        peers: Sequence[str],
        rate: rows.MatmulRate,
        cores: int,
        scratch: Path,
    ) -> None:
        """Args:
        scratch: a folder for the peers' model and the adapters all sides start from.
        """
        self._lm, self._peers, self._rate, self._cores = lm, peers, rate, cores
        self._scratch = scratch

    def compare(self, name: str, what: str) -> tuple[list[rows.Row], list[rows.Row]]:
        """The rows and the figures of one workload."""
        workload = workloads.WORKLOADS[name]
        lm, model, folder = self._model(workload)
        if what == "train":
            job = workloads.training_job(lm, workload, model, self._scratch / f"{folder.name}-lora")
        else:
            job = workloads.evaluation_job(lm, workload, model, cli.FLAGS.n_items)
        # Models that are too large to be held three times meet one peer after another.
        together = [[peer] for peer in self._peers] if workload.random_model else [self._peers]
        found, figures = [], []
        for peers in together:
            rate, seen = self._turns(f"{name}, {what}", job, peers, str(folder))
            common = {"workload": name, "what": what, "n_items": len(job.queries)}
            found += [
                rows.make_row(
                    **common,
                    peer=peer,
                    ours_s=seen[OURS]["times"],
                    peer_s=seen[peer]["times"],
                    difference=rows.distance(seen[OURS]["results"], seen[peer]["results"]),
                )
                for peer in peers
            ]
            counted = {row["peer"]: row["ratio"] is not None for row in found}
            flops = self._flops(lm, job)
            figures += [
                rows.make_figures(
                    **common,
                    side=side,
                    dtype="bfloat16" if side == NARROW else "float32",
                    seconds=one["times"],
                    flops=flops,
                    rate=rate,
                    facts=one["facts"],
                    needed_flops=flops,
                    first_s=one["first_s"],
                    peak_memory_mb=one["peak_mb"],
                    loaded_memory_mb=one["loaded_mb"],
                    counted=counted.get(side, True),
                    **one["choice"],
                )
                for side, one in seen.items()
            ]
        return found, figures

    def _model(self, workload: workloads.Workload) -> tuple[LanguageModel, str, Path]:
        """The model of a workload, what ours loads it by, and the peers' folder."""
        if not workload.random_model:
            return (
                self._lm,
                cli.FLAGS.model,
                Path(workloads.peer_folder(self._lm, self._scratch / "model")),
            )
        folder = self._scratch / "random-1b"
        cli.say("a random model of 1B parameters")
        return workloads.random_1b(self._lm, folder), str(folder), folder

    def _turns(
        self, title: str, job: Job, peers: Sequence[str], folder: str
    ) -> tuple[float, dict[str, dict[str, Any]]]:
        """The machine's rate meanwhile, and what was seen of each side."""
        jobs = {OURS: job}
        if job.what == "train":
            narrow = dataclasses.replace(job.train, dtype="bfloat16")
            jobs[NARROW] = dataclasses.replace(job, train=narrow)
        choices: dict[str, dict[str, Any]] = {side: {} for side in jobs}
        for peer in peers:
            cli.say(f"{title}: the best batch of peer {peer}")
            tried = dataclasses.replace(job, side=peer, model=folder, threads=self._cores)
            with Worker(tried) as worker:
                size, trials = best_batch(worker)
            jobs[peer] = dataclasses.replace(tried, batch=size)
            choices[peer] = {"batch": size, "trials_s_per_item": trials}
        cli.say(f"{title}: loading and compiling")
        repeats = cli.FLAGS.repeats
        with contextlib.ExitStack() as stack:
            workers = {side: stack.enter_context(Worker(one)) for side, one in jobs.items()}
            ours = [side for side in jobs if side not in peers]
            warm = {side: [workers[side].call("run") for _ in range(2)] for side in ours}
            for peer in peers:
                warm[peer] = [workers[peer].call("trial", jobs[peer].batch)]
            rate = self._rate.measure()
            bar = cli.bar(title, repeats * len(workers))
            turns = interleave(workers, repeats, _ENOUGH_S, bar)
            rate = (rate + self._rate.measure()) / 2
            for side in ours:  # the first calls were steps as well
                turns[side].results[:0] = [result for _, result in warm[side]]
            return rate, {
                side: {
                    "times": turns[side].seconds,
                    "results": turns[side].results,
                    "facts": turns[side].facts,
                    "first_s": warm[side][0][0],
                    "peak_mb": worker.memory.peak_mb,
                    "loaded_mb": worker.loaded_mb,
                    "choice": choices[side],
                }
                for side, worker in workers.items()
            }

    def _flops(self, lm: LanguageModel, job: Job) -> int:
        need = work.needed(job.queries)
        if job.what == "train":
            return work.step_flops(lm.cfg, need, workloads.LORA)
        return work.forward_flops(lm.cfg, need)


if __name__ == "__main__":
    cli.run(main)
