"""Ours and the peers on one workload: batch sizes, turns, and the rows that come of them."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from antiimit_jax.language_model import LanguageModel
from launch import cli
from launch.benchmark import folders, results, work, workloads
from launch.benchmark.job import OURS, Job
from launch.benchmark.ours import LORA
from launch.benchmark.sides import Turns, Worker, best_batch, interleave

NARROW = "ours bfloat16"  # our training step with layers in bfloat16, as in the quickstart
_ENOUGH_S = 60.0  # a side that has run for so long is not repeated
Rows = list[results.Row]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What all workloads have in common."""

    lm: LanguageModel
    model: str  # what ours loads it by
    peers: Sequence[str]
    repeats: int
    n_items: int | None  # of an evaluation; else the workload's
    cores: int
    rate: results.MatmulRate
    scratch: Path  # for the peers' models and the adapters that all sides start from

    def compare(self, name: str, what: str) -> tuple[Rows, Rows]:
        """The rows and the figures of one workload."""
        workload = workloads.WORKLOADS[name]
        lm, model, folder = self._model(workload)
        if what == "train":
            job = workloads.training_job(lm, workload, model, self.scratch / f"{folder.name}-lora")
        else:
            job = workloads.evaluation_job(lm, workload, model, self.n_items)
        case = {"workload": name, "what": what, "n_items": len(job.queries)}
        flops = work.flops(lm.cfg, job.queries, LORA if what == "train" else None)
        # Models that are too large to be held three times meet one peer after another.
        together = [[peer] for peer in self.peers] if workload.random_model else [self.peers]
        rows: Rows = []
        figures: Rows = []
        for peers in together:
            rate, seen, facts = self._turns(f"{name}, {what}", job, peers, folder)
            ours = seen[OURS]
            for peer in peers:
                difference = results.distance(ours.results, seen[peer].results)
                rows.append(
                    results.make_row(case, peer, ours.seconds, seen[peer].seconds, difference)
                )
            counted = {row["peer"]: row["ratio"] is not None for row in rows}
            for side, own in seen.items():
                facts[side]["counted"] = counted.get(side, True)
                figures.append(
                    results.make_figures(case, side, own.seconds, flops, rate, facts[side])
                )
        return rows, figures

    def _model(self, workload: workloads.Workload) -> tuple[LanguageModel, str, Path]:
        """The model of a workload, what ours loads it by, and the peers' folder."""
        if not workload.random_model:
            folder = folders.peer_folder(self.lm, self.scratch / "model")
            return self.lm, self.model, folder
        folder = self.scratch / "random-1b"
        cli.say("a random model of 1B parameters")
        return folders.random_1b(self.lm, folder), str(folder), folder

    def _turns(
        self, title: str, job: Job, peers: Sequence[str], folder: Path
    ) -> tuple[float, dict[str, Turns], dict[str, dict[str, Any]]]:
        """The machine's rate meanwhile; the runs of each side, and further facts of it."""
        jobs, facts = {OURS: job}, {}
        if job.what == "train":
            narrow = dataclasses.replace(job.train, dtype="bfloat16")
            jobs[NARROW] = dataclasses.replace(job, train=narrow)
        for side in jobs:
            facts[side] = {"dtype": "bfloat16" if side == NARROW else "float32"}
        for peer in peers:
            cli.say(f"{title}: the best batch of peer {peer}")
            tried = dataclasses.replace(job, side=peer, model=str(folder), threads=self.cores)
            with Worker(tried) as worker:
                size, trials = best_batch(worker)
            jobs[peer] = dataclasses.replace(tried, batch=size)
            facts[peer] = {"dtype": "float32", "batch": size, "trials_s_per_item": trials}
        cli.say(f"{title}: loading and compiling")
        with contextlib.ExitStack() as stack:
            workers = {side: stack.enter_context(Worker(one)) for side, one in jobs.items()}
            warm = {
                side: [worker.call("trial", jobs[side].batch)]
                if side in peers
                else [worker.call("run") for _ in range(2)]
                for side, worker in workers.items()
            }
            rate = self.rate.measure()
            bar = cli.bar(title, self.repeats * len(workers))
            turns = interleave(workers, self.repeats, _ENOUGH_S, bar)
            rate = (rate + self.rate.measure()) / 2
        for side, worker in workers.items():
            if side not in peers:  # the first calls were steps as well
                turns[side].results[:0] = [result for _, result in warm[side]]
            facts[side] |= turns[side].facts | {
                "first_s": warm[side][0][0],
                "peak_memory_mb": worker.memory.peak_mb,
                "loaded_memory_mb": worker.loaded_mb,
            }
        return rate, turns, facts
