"""Ours and the peers on one workload: batch sizes, turns, and the rows that come of them."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from antiimit_jax.language_model import LanguageModel
from launch import cli
from launch.benchmark import folders, results, work, workloads
from launch.benchmark.job import OURS, Job
from launch.benchmark.ours import LORA
from launch.benchmark.sides import Turns, Worker, best_batch, interleave
from launch.benchmark.workloads import Setup, Workload

NARROW = "ours bfloat16"  # our training step with layers in bfloat16, as in the quickstart
_ENOUGH_S = 60.0  # a side that has run for so long is not repeated
Rows = list[results.Row]


def compare(setup: Setup, name: str, what: str) -> tuple[Rows, Rows]:
    """The rows and the figures of one workload."""
    workload = workloads.WORKLOADS[name]
    lm, model, folder = _model(setup, workload)
    if setup.n_items:
        workload = dataclasses.replace(workload, n_items=setup.n_items)
    job = workloads.make_job(what, lm, workload, model, setup.scratch / f"{folder.name}-lora")
    case = {"workload": name, "what": what, "n_items": len(job.queries)}
    flops = work.flops(lm.cfg, job.queries, LORA if what == "train" else None)
    # Models that are too large to be held three times meet one peer after another.
    together = [[peer] for peer in setup.peers] if workload.random_model else [setup.peers]
    rows, figures = [], []
    for peers in together:
        rate, turns = _turns(setup, f"{name}, {what}", job, peers, folder)
        ours = turns[OURS]
        for peer in peers:
            difference = results.distance(ours.results, turns[peer].results)
            row = results.make_row(case, peer, ours.seconds, turns[peer].seconds, difference)
            rows.append(row)
        counted = {row["peer"]: row["ratio"] is not None for row in rows}
        for side, own in turns.items():
            facts = own.facts | {"counted": counted.get(side, True)}
            figures.append(results.make_figures(case, side, own.seconds, flops, rate, facts))
    return rows, figures


def _model(setup: Setup, workload: Workload) -> tuple[LanguageModel, str, Path]:
    """The model of a workload, what ours loads it by, and the peers' folder."""
    if not workload.random_model:
        return setup.lm, setup.model, folders.peer_folder(setup.lm, setup.scratch / "model")
    folder = setup.scratch / "random-1b"
    cli.say("a random model of 1B parameters")
    return folders.random_1b(setup.lm, folder), str(folder), folder


def _turns(
    setup: Setup, title: str, job: Job, peers: Sequence[str], folder: Path
) -> tuple[float, dict[str, Turns]]:
    """The machine's rate meanwhile, and the runs of each side with all that is known of it."""
    jobs, facts = {OURS: job}, {OURS: {"dtype": "float32"}}
    if job.what == "train":
        narrow = dataclasses.replace(job.train, dtype="bfloat16")
        jobs[NARROW], facts[NARROW] = dataclasses.replace(job, train=narrow), {"dtype": "bfloat16"}
    for peer in peers:
        cli.say(f"{title}: the best batch of peer {peer}")
        own = {"side": peer, "model": str(folder), "threads": setup.cores}
        tried = dataclasses.replace(job, **own, train=None)  # which would bring JAX along
        with Worker(tried) as worker:
            size, trials = best_batch(worker)
        jobs[peer] = dataclasses.replace(tried, batch=size)
        facts[peer] = {"dtype": "float32", "batch": size, "trials_s_per_item": trials}
    cli.say(f"{title}: loading and compiling")
    with contextlib.ExitStack() as stack:
        workers = {side: stack.enter_context(Worker(one)) for side, one in jobs.items()}
        first = {
            side: [worker.call("trial", jobs[side].batch)]
            if side in peers
            else [worker.call("run") for _ in range(2)]
            for side, worker in workers.items()
        }
        rate = setup.rate.measure()
        bar = cli.bar(title, setup.repeats * len(workers))
        turns = interleave(workers, setup.repeats, _ENOUGH_S, bar)
        rate = (rate + setup.rate.measure()) / 2
    for side, worker in workers.items():
        if side not in peers:  # the first calls were steps as well
            turns[side].results[:0] = [result for _, result in first[side]]
        memory = {"peak_memory_mb": worker.memory.peak_mb, "loaded_memory_mb": worker.loaded_mb}
        turns[side].facts = (
            facts[side] | turns[side].facts | {"first_s": first[side][0][0]} | memory
        )
    return rate, turns
