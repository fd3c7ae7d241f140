"""How time and memory grow: words, prompt, batch, depth and devices, one made larger at a time.

The exponent of a growth is log(figure after / before) / log(factor). Beside the measured one
stands the expected one: for time from the operations that the workload needs (`work`), for memory
from what has to be held at once: weights on every device, and in training the activations. A
request names its words, so prompts grow with them; `behind_one_prompt` holds the prompts still.
"""

import contextlib
import dataclasses
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from antiimit_jax.export.merged import total_bytes
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.tasks.output_control import Mixture
from launch import cli
from launch.benchmark import folders, work, workloads
from launch.benchmark.job import Job
from launch.benchmark.ours import LORA
from launch.benchmark.results import Row, spread
from launch.benchmark.sides import Worker, interleave
from launch.benchmark.workloads import Setup, Workload

AXES = ("one-prompt", "words", "prompt", "batch", "depth", "devices")
_DEVICES = 8
_ENOUGH_S = 30.0
_AFTER_ONE_PROMPT = (  # axis, before, after, the most that may be
    ("words 2 to 5", "two", "five", 1.25),
    ("forms strict to lenient", "five", "lenient", 1.5),
)
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
        lora = LORA if self.job.what == "train" else None
        return work.flops(self.cfg, self.job.queries, lora) / self.per

    def held_bytes(self, facts: Mapping[str, Any]) -> float:
        """What must be held at once: float32 weights on each device, and to train, activations.

        A token saves its inputs of norms and matmuls, its queries, keys and values, in every layer.
        """
        cfg = self.cfg
        held = self.devices * total_bytes(cfg, "float32")
        if self.job.what == "train":
            positions = facts["tokens"] / (1 - facts["padded_share"])
            heads = 2 * (cfg.n_heads + cfg.n_kv_heads) * cfg.head_dim
            each = 4 * cfg.hidden_size + heads + 3 * cfg.mlp_size
            held += 4.0 * positions * cfg.n_layers * each
        return held


Points = Mapping[str, Point]


def measure(setup: Setup, what: Sequence[str], axes: Sequence[str]) -> list[Row]:
    """Rows {what, axis, factor, seconds and memory with exponents} of the axes that apply."""
    if not set(axes) & set(AXES[1:]):
        return []
    depth = max(1, min(4, setup.lm.cfg.n_layers // 2))
    whole = folders.peer_folder(setup.lm, setup.scratch / "model")
    for layers in (depth, 2 * depth):
        folders.first_layers(setup.lm, whole, setup.scratch / str(layers), layers)
    found = []
    for kind in what:
        for axis, (before, after, factor) in _axes(setup, kind, depth).items():
            if axis in axes:
                cli.say(f"growth, {kind}: {axis}")
                points = {"before": before, "after": after}
                found.append(_row(kind, axis, points, _figures(points, setup.repeats), factor))
    return found


def _axes(setup: Setup, what: str, depth: int) -> dict[str, tuple[Point, Point, float]]:
    """Of each axis: the cases before and after, and the factor between them."""

    def point(mixture: Mixture, size: int = 1, layers: int = depth) -> Point:
        cfg = dataclasses.replace(setup.lm.cfg, n_layers=layers)
        model, adapter = str(setup.scratch / str(layers)), setup.scratch / f"adapter-{layers}"
        training = {"groups": 2 * size, "accumulate": 1, "row_tokens": 256}
        count = size * (setup.n_items or 128)
        workload = Workload(mixture=mixture, n_items=count, training=training)
        smaller = dataclasses.replace(setup.lm, cfg=cfg)
        job = workloads.make_job(what, smaller, workload, model, adapter)
        return Point(job=job, cfg=cfg, per=len(job.queries))

    two, ten = Mixture(ks=(2,)), Mixture(ks=(10,))
    short, long = (point(Mixture(shots=(turns,))) for turns in (4, 9))
    tokens = lambda at: statistics.fmean(len(query.prompt_ids) for query in at.job.queries)
    base = point(two)
    alone, more = (dataclasses.replace(at, per=1) for at in (base, point(two, 2)))
    axes = {
        "words": (base, point(ten), 5.0),
        "prompt": (short, long, tokens(long) / tokens(short)),
        "batch": (alone, more, 2.0),
        "depth": (base, point(two, layers=2 * depth), 2.0),
    }
    if what == "evaluate":  # as in the study, where training takes one device
        many = point(two, 4)
        axes["devices"] = many, dataclasses.replace(many, devices=_DEVICES), float(_DEVICES)
    return axes


def behind_one_prompt(setup: Setup) -> list[Row]:
    """What more words, and more ways to write them, cost after the same prompts.

    Returns:
      Rows {axis, seconds, ratio, limit, needed}: five words against two, all surface forms
      against strict, without examples and after eleven turns of them.
    """
    cli.say("words and forms after one prompt")
    lm, query, rows = setup.lm, workloads.item_query, []
    for turns in (0, 11):
        workload = Workload(mixture=Mixture(ks=(5,), shots=(turns,)), n_items=setup.n_items or 48)
        five = workloads.evaluation_job(lm, workload, setup.model)
        asked = workloads.items(workload.mixture, workload.n_items)
        few = [query(lm, dataclasses.replace(one, words=one.words[:2])) for one in asked]
        lenient = [query(lm, one, "lenient") for one in asked]
        points = {
            name: Point(job=dataclasses.replace(five, queries=queries), cfg=lm.cfg)
            for name, queries in (("two", few), ("five", five.queries), ("lenient", lenient))
        }
        figures = _figures(points, setup.repeats)
        for axis, before, after, limit in _AFTER_ONE_PROMPT:
            seconds = [figures[name]["seconds"] for name in (before, after)]
            needed = points[after].flops / points[before].flops
            row = {"axis": f"{axis}, {turns} turns", "seconds": seconds}
            rows.append(row | {"ratio": seconds[1] / seconds[0], "limit": limit, "needed": needed})
    return rows


def devices(count: int) -> dict[str, str]:
    """The environment of a process with so many fake CPU devices."""
    others = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if _DEVICE_FLAG not in flag]
    return {"JAX_NUM_CPU_DEVICES": str(count), "XLA_FLAGS": " ".join(others)}


def _figures(points: Points, repeats: int) -> dict[str, Row]:
    """Seconds and memory of each point, in turns, each in a process of its own."""
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(point.job, devices(point.devices)))
            for name, point in points.items()
        }
        for worker in workers.values():
            worker.call("run")
        turns = interleave(workers, repeats, _ENOUGH_S, lambda done: None)
    figures = {}
    for name, worker in workers.items():
        each = [seconds / points[name].per for seconds in turns[name].seconds]
        figures[name] = {
            "seconds": statistics.median(each),
            "spread": spread(each),
            "devices": turns[name].facts["devices"],
            "expected_bytes": points[name].held_bytes(turns[name].facts),
            "memory_mb": worker.memory.peak_mb,
            "started_mb": worker.started_mb,
        }
    return figures


def _row(what: str, axis: str, points: Points, figures: Mapping[str, Row], factor: float) -> Row:
    both = lambda key: [figures[name][key] for name in ("before", "after")]
    exponent = lambda a, b: math.log(b / a) / math.log(factor) if a and b and b > 0 < a else None
    own = [held and held - before for held, before in zip(both("memory_mb"), both("started_mb"))]
    case = {"what": what, "axis": axis, "factor": factor}
    return {
        **case,
        **{key: both(key) for key in ("seconds", "spread", "devices")},
        "time_exponent": exponent(*both("seconds")),
        "time_expected": exponent(points["before"].flops, points["after"].flops),
        "memory_mb": own,
        "memory_exponent": exponent(*own),
        "memory_expected": exponent(*both("expected_bytes")),
    }
