"""Which flags would make a program fit: changes of the configuration, tried on the estimate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from antiimit_jax.planning.hardware import GPU_SHARE_AT_MOST, Hardware
from antiimit_jax.planning.memory import Estimator, Phase, peak
from antiimit_jax.run_config import RunConfig

_FRACTION = f"XLA_PYTHON_CLIENT_MEM_FRACTION={GPU_SHARE_AT_MOST}"
Change = tuple[str, Any]  # dotted field of the configuration and its new value
PROGRAMS: dict[str, Callable[[Estimator, RunConfig], list[Phase]]] = {
    "evaluate": Estimator.evaluate,
    "finetune": Estimator.finetune,
    "study": Estimator.study,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether one program fits, and what would make it fit."""

    program: str
    phases: list[Phase]
    fits: bool
    changes: tuple[Change, ...]  # what makes it fit; where `rescued` is False, all there is
    environment: str  # a variable to set besides
    rescued: bool  # fits with `changes` and `environment`
    least: Phase  # the peak with `changes`


def judge(program: str, run: RunConfig, estimator: Estimator, machine: Hardware) -> Verdict:
    """Estimates a program; where it does not fit, finds a small set of changes with which it does.

    Where all changes together do not help, that is what the verdict says.
    """
    estimate = PROGRAMS[program]
    phases = estimate(estimator, run)
    need, chosen = peak(phases), []
    hopeless = estimator.weights("bfloat16", machine.devices) > machine.at_most
    if need.total > machine.at_most and not hopeless:
        chosen = _changes(program, run, machine)
        need = peak(estimate(estimator, apply(run, chosen)))
        if need.total <= machine.at_most:
            need_with = lambda some: peak(estimate(estimator, apply(run, some)))
            chosen, need = _few(chosen, need_with, machine.at_most)
    return Verdict(
        program=program,
        phases=phases,
        fits=peak(phases).total <= machine.usable,
        changes=tuple(chosen),
        rescued=need.total <= machine.at_most,
        least=need,
        environment=_FRACTION if machine.usable < need.total <= machine.at_most else "",
    )


def _few(
    changes: list[Change], need_with: Callable[[list[Change]], Phase], limit: int
) -> tuple[list[Change], Phase]:
    """As many of the changes, in order, as it takes; then those taken back that were not needed.

    Changes of the training step are not tried again: each is a compilation, and they come in order
    of what they cost.
    """
    count = next(n for n in range(1, len(changes) + 1) if need_with(changes[:n]).total <= limit)
    chosen = changes[:count]
    for change in list(chosen):
        without = [one for one in chosen if one != change]
        known = not change[0].startswith("train.")
        if known and need_with(without).total <= limit:
            chosen = without
    return chosen, need_with(chosen)


def apply(run: RunConfig, changes: list[Change]) -> RunConfig:
    """The configuration with dotted fields replaced."""
    for name, value in changes:
        group, _, field = name.rpartition(".")
        if group:
            value = dataclasses.replace(getattr(run, group), **{field: value})
        run = dataclasses.replace(run, **{group or field: value})
    return run


def flag(change: Change) -> str:
    """The change as a program's argument, without a shell's quotes."""
    name, value = change
    return f"--config.{name}={value}"


def _changes(program: str, run: RunConfig, machine: Hardware) -> list[Change]:
    """What could be given up, the least painful first; only what is not given up already."""
    weights = [
        ("dtype", "bfloat16"),  # in evaluation; training has its own
        *([("weights", "sharded")] if machine.devices > 1 else []),
    ]
    evaluating = [
        ("drift.rulers", ()),
        ("control.n_variants", 0),
        ("control.n_explored", 0),
        ("suites", ("control",) if "control" in run.suites else run.suites),
    ]
    training = [
        ("train.dtype", "bfloat16"),
        ("train.remat", True),
        ("train.groups", 1),
        ("train.rows", 1),
        ("train.anchor_tokens", min(run.train.anchor_tokens, 64)),
        ("lora.rank", min(run.lora.rank, 8)),
    ]
    # Fine-tuning alone reads the weights in `dtype`, on a CPU into the same memory.
    changes = {
        "evaluate": [*weights, *evaluating],
        "finetune": [*weights, *training],
        "study": [*weights, training[0], training[1], *evaluating, *training[2:]],
    }[program]
    return [(name, value) for name, value in changes if _value(run, name) != value]


def _value(run: RunConfig, name: str) -> Any:
    value: Any = run
    for part in name.split("."):
        value = getattr(value, part)
    return value
