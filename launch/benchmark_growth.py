"""How time and memory grow: words, prompt, batch, depth and devices, one made larger at a time.

The exponent of a growth is log(figure after / before) / log(factor). Beside the measured one
stands the expected one: for time from the operations that the workload needs (`benchmark_work`),
for memory from what has to be held at once: weights on every device, and in training the
activations. A request names its words, so prompts grow with them; `words_behind_a_prompt` holds
the prompts still.
"""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from antiimit_jax.language_model import LanguageModel
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.leaves import leaves_of
from antiimit_jax.tasks.output_control import Mixture, evaluation_items
from launch import benchmark_work as work
from launch.benchmark_sides import Worker, interleave
from launch.benchmark_worker import SEED, Job
from launch.benchmark_workloads import (
    LORA,
    Workload,
    evaluation_job,
    item_query,
    training_job,
    write_model,
)

AXES = ("one-prompt", "words", "prompt", "batch", "depth", "devices")
_BASE_SHOTS, _MORE_SHOTS = 4, 9  # the longer prompts are about twice as long
_MANY_SHOTS = 11
_DEVICES = 8
_ENOUGH_S = 30.0
_DEVICE_FLAG = "xla_force_host_platform_device_count"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One measured case."""

    job: Job
    cfg: ModelConfig
    devices: int = 1
    per: int = 1  # what the time is divided by: items, where their number is not the axis

    @property
    def flops(self) -> float:
        """What it needs, for each of `per`."""
        need = work.needed(self.job.queries)
        if self.job.what == "train":
            return work.step_flops(self.cfg, need, LORA) / self.per
        return work.forward_flops(self.cfg, need) / self.per

    @property
    def prompt_tokens(self) -> float:
        return statistics.fmean(len(query.prompt_ids) for query in self.job.queries)


def measure(
    lm: LanguageModel,
    what: Sequence[str],
    axes: Sequence[str],
    repeats: int,
    folder: Path,
    say: Callable[[str], None],
    n_items: int | None = None,
) -> list[dict[str, Any]]:
    """Rows {what, axis, factor, seconds and memory with exponents} of the axes that apply.

    Args:
      folder: for the models of fewer layers.
      n_items: of an evaluation, else 128; four times as many to fill the devices.
    """
    found: list[dict[str, Any]] = []
    if not set(axes) & set(AXES[1:]):
        return found
    depth = max(1, min(4, lm.cfg.n_layers // 2))
    for layers in (depth, 2 * depth):
        write_model(folder / str(layers), lm, layers)
    for kind in what:
        for axis, (before, after, factor) in _axes(lm, kind, depth, folder, n_items).items():
            if axis not in axes:
                continue
            say(f"growth, {kind}: {axis}")
            sides = {"before": before, "after": after}
            figures = _figures(sides, repeats)
            found.append(_row(kind, axis, sides, figures, factor))
    return found


def _axes(
    lm: LanguageModel, what: str, depth: int, folder: Path, n_items: int | None
) -> dict[str, tuple[Point, Point, float]]:
    """Of each axis: the cases before and after, and the factor between them."""

    def point(layers: int, mixture: Mixture, size: int = 1, per_item: bool = True) -> Point:
        cfg = dataclasses.replace(lm.cfg, n_layers=layers)
        place = str(folder / str(layers))
        if what == "train":
            sizes = dict(groups=2 * size, accumulate=1, row_tokens=256)
            workload = Workload(mixture=mixture, n_items=0, **sizes)
            smaller = dataclasses.replace(lm, cfg=cfg)
            job = training_job(smaller, workload, place, folder / f"adapter-{layers}")
        else:
            count = size * (n_items or 128)
            job = evaluation_job(lm, Workload(mixture=mixture, n_items=count), place)
        per = len(job.queries) if per_item else 1
        return Point(job=job, cfg=cfg, per=per)

    two, ten = Mixture(ks=(2,)), Mixture(ks=(10,))
    short, long = Mixture(shots=(_BASE_SHOTS,)), Mixture(shots=(_MORE_SHOTS,))
    base = point(depth, two)
    alone = point(depth, two, per_item=False)
    prompts = point(depth, short), point(depth, long)
    axes = {
        "words": (base, point(depth, ten), 5.0),
        "prompt": (*prompts, prompts[1].prompt_tokens / prompts[0].prompt_tokens),
        "batch": (alone, point(depth, two, 2, per_item=False), 2.0),
        "depth": (base, point(2 * depth, two), 2.0),
    }
    if what == "evaluate":  # as in the study, where training takes one device
        many = point(depth, two, 4)
        axes["devices"] = many, dataclasses.replace(many, devices=_DEVICES), float(_DEVICES)
    return axes


def _weights(cfg: ModelConfig) -> int:
    times = lambda leaf: cfg.n_layers if leaf.stacked else 1
    return sum(math.prod(leaf.shape(cfg)) * times(leaf) for leaf in leaves_of(cfg))


def devices(count: int) -> dict[str, str]:
    """The environment of a process with so many fake CPU devices."""
    others = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if _DEVICE_FLAG not in flag]
    return {"JAX_NUM_CPU_DEVICES": str(count), "XLA_FLAGS": " ".join(others)}


def _held_bytes(point: Point, facts: Mapping[str, Any]) -> float:
    """What must be held at once: float32 weights on each device; to train, what each layer saves.

    A token saves its inputs of norms and products, its queries, keys and values, in every layer.
    """
    cfg = point.cfg
    held = point.devices * _weights(cfg)
    if point.job.what == "train":
        positions = facts["tokens"] / (1 - facts["padded_share"])
        heads = 2 * (cfg.n_heads + cfg.n_kv_heads) * cfg.head_dim
        held += positions * cfg.n_layers * (4 * cfg.hidden_size + heads + 3 * cfg.mlp_size)
    return 4.0 * held


def _figures(points: Mapping[str, Point], repeats: int) -> dict[str, dict[str, Any]]:
    """Seconds and memory of each point, in turns, each in a process of its own."""
    workers = {name: Worker(point.job, devices(point.devices)) for name, point in points.items()}
    try:
        for worker in workers.values():
            worker.call("run")
        turns = interleave(workers, repeats, _ENOUGH_S, lambda done: None)
        each = {name: [t / points[name].per for t in turns[name].seconds] for name in points}
        return {
            name: {
                "seconds": statistics.median(each[name]),
                "spread": [min(each[name]), max(each[name])],
                "devices": turns[name].facts["devices"],
                "expected_bytes": _held_bytes(points[name], turns[name].facts),
                "memory_mb": worker.memory.peak_mb,
                "started_mb": worker.started_mb,
            }
            for name, worker in workers.items()
        }
    finally:
        for worker in workers.values():
            worker.close()


def _row(
    what: str,
    axis: str,
    points: Mapping[str, Point],
    figures: Mapping[str, dict[str, Any]],
    factor: float,
) -> dict[str, Any]:
    before, after = figures["before"], figures["after"]
    exponent = lambda a, b: math.log(b / a) / math.log(factor) if a and b and b > 0 < a else None
    own = [held["memory_mb"] and held["memory_mb"] - held["started_mb"] for held in (before, after)]
    return {
        "what": what,
        "axis": axis,
        "factor": factor,
        "seconds": [before["seconds"], after["seconds"]],
        "spread": [before["spread"], after["spread"]],
        "time_exponent": exponent(before["seconds"], after["seconds"]),
        "time_expected": exponent(points["before"].flops, points["after"].flops),
        "memory_mb": own,
        "memory_exponent": exponent(*own),
        "memory_expected": exponent(before["expected_bytes"], after["expected_bytes"]),
        "devices": [before["devices"], after["devices"]],
    }


def words_behind_a_prompt(
    lm: LanguageModel, model: str, n_items: int, repeats: int
) -> list[dict[str, Any]]:
    """What more words, and more ways to write them, cost behind the same prompts.

    Returns:
      Rows {axis, seconds, ratio, limit, needed}: five words against two, all surface forms against
      strict, without examples and behind eleven turns of them.
    """
    return [
        row
        for turns in (0, _MANY_SHOTS)
        for row in _behind(lm, model, Mixture(ks=(5,), shots=(turns,)), n_items, repeats)
    ]


def _behind(
    lm: LanguageModel, model: str, mixture: Mixture, n_items: int, repeats: int
) -> list[dict[str, Any]]:
    found = evaluation_items(mixture, "heldout_words", n_items, SEED)[:n_items]
    whole = evaluation_job(lm, Workload(mixture=mixture, n_items=n_items), model)
    few = [dataclasses.replace(item, words=item.words[:2]) for item in found]
    cases = {
        "two": [item_query(lm, item) for item in few],
        "five": whole.queries,
        "lenient": [item_query(lm, item, "lenient") for item in found],
    }
    points = {
        name: Point(job=dataclasses.replace(whole, queries=queries), cfg=lm.cfg)
        for name, queries in cases.items()
    }
    seconds = {name: figure["seconds"] for name, figure in _figures(points, repeats).items()}
    pairs = (
        ("words 2 to 5", "two", "five", 1.25),
        ("forms strict to lenient", "five", "lenient", 1.5),
    )
    return [
        {
            "axis": f"{axis}, {mixture.shots[0]} turns",
            "seconds": [seconds[before], seconds[after]],
            "ratio": seconds[after] / seconds[before],
            "limit": limit,
            "needed": points[after].flops / points[before].flops,
        }
        for axis, before, after, limit in pairs
    ]
