"""Which flags make a program fit, and what each saves: changes of the configuration, in one order.

Nothing is searched: the least painful change comes first, each is added to those before it, what
saves nothing is left out, and the first sum that fits is the answer.
"""

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.sharding import sizes_of
from antiimit_jax.models.weights import abstract_params
from antiimit_jax.parallel import mesh_name, splits
from antiimit_jax.planning.hardware import GPU_SHARE_AT_MOST, Hardware
from antiimit_jax.planning.memory import Estimator, Phase, peak
from antiimit_jax.run_config import RunConfig

_FRACTION = f"XLA_PYTHON_CLIENT_MEM_FRACTION={GPU_SHARE_AT_MOST}"
Change = tuple[str, Any]  # dotted field of the configuration and its new value
PROGRAMS = ("evaluate", "finetune", "study")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether one program fits as configured, and what would make it fit."""

    program: str
    phases: Sequence[Phase]
    fits: bool
    saved: tuple[tuple[Change, int], ...]  # changes, and the bytes that each takes off the peak
    rescued: bool  # fits with all of them
    least: Phase  # the peak that they leave

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(change for change, _ in self.saved)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """How a study's work fits: at once, or its parts one after the other."""

    programs: tuple[str, ...]  # in the order of `PROGRAMS`; none where nothing fits
    changes: tuple[Change, ...] = ()
    environment: str = ""  # a variable to set besides


def with_mesh(run: RunConfig, cfg: ModelConfig, machine: Hardware) -> RunConfig:
    """The same with the mesh that a program makes of "auto" on such a machine.

    Raises:
      UserError: a mesh for other devices.
    """
    params, room = abstract_params(cfg, run.dtype), machine.usable if machine.devices > 1 else None
    rows, shards = sizes_of(run.mesh, cfg, params, machine.devices, room)
    return dataclasses.replace(run, mesh=mesh_name(rows, shards))


def judge(program: str, run: RunConfig, estimator: Estimator, machine: Hardware) -> Verdict:
    """Estimates a program as configured, and with changes where that does not fit."""
    estimate = getattr(estimator, program)
    phases = estimate(run)
    most = least = peak(phases)
    saved: list[tuple[Change, int]] = []
    hopeless = estimator.weights("bfloat16", machine.devices, run.quantize) > machine.at_most
    for change in () if hopeless else _changes(program, run, machine):
        if least.total <= machine.at_most:
            break
        now = peak(estimate(apply(run, [*(one for one, _ in saved), change])))
        if now.total < least.total:
            saved.append((change, least.total - now.total))
            least = now
    return Verdict(
        program=program,
        phases=phases,
        fits=most.total <= machine.usable,
        saved=tuple(saved),
        rescued=least.total <= machine.at_most,
        least=least,
    )


def environment(need: int, machine: Hardware) -> str:
    """The variable that lets a program have so many bytes of a GPU; "" where none is needed."""
    return _FRACTION if machine.usable < need <= machine.at_most else ""


def find_way(verdicts: Sequence[Verdict], run: RunConfig, machine: Hardware) -> Way:
    """The way that gives up least: a study, its two parts, both with changes, then one part alone.

    Args:
      verdicts: on all `PROGRAMS`, of `run` with its mesh, which "auto" would choose anew.
    """
    of = {verdict.program: verdict for verdict in verdicts}
    parts, study = (of["evaluate"], of["finetune"]), of["study"]
    for way in ((study,), parts):
        if all(verdict.fits for verdict in way):
            return Way(programs=tuple(verdict.program for verdict in way))
    for way in ((study,), parts, *zip(parts)):
        if all(verdict.rescued for verdict in way):
            # Parts of one run have one configuration, and no change makes a part larger.
            changes = dict.fromkeys(change for verdict in way for change in verdict.changes)
            if splits(run.mesh) and "mesh" not in dict(changes):
                changes[("mesh", run.mesh)] = None
            return Way(
                programs=tuple(verdict.program for verdict in way),
                changes=tuple(changes),
                environment=environment(max(one.least.total for one in way), machine),
            )
    return Way(programs=())


def apply(run: RunConfig, changes: Sequence[Change]) -> RunConfig:
    """The configuration with dotted fields replaced."""
    for name, value in changes:
        group, _, field = name.rpartition(".")
        if group:
            value = dataclasses.replace(getattr(run, group), **{field: value})
        run = dataclasses.replace(run, **{group or field: value})
    return run


def flag(change: Change) -> str:
    """The change as a program's argument, without a shell's quotes."""
    return "--config.{}={}".format(*change)


def _changes(program: str, run: RunConfig, machine: Hardware) -> list[Change]:
    """What could be given up, the least painful first; only what is not given up already."""
    weights = [
        ("dtype", "bfloat16"),  # in evaluation; training has its own
        *([("mesh", mesh_name(1, machine.devices))] if machine.devices > 1 else []),
    ]
    evaluating = [
        ("drift.rulers", ()),
        *((f"{suite}.n_items", 0) for suite in ("precision", "scoring", "residual")),
        ("suites", run.suites[:1]),
    ]
    training = [
        ("train.dtype", "bfloat16"),
        ("train.remat", True),
        ("train.groups", 1),
        ("train.rows", 1),
        ("train.anchor_tokens", min(run.train.anchor_tokens, 64)),
        ("lora.rank", min(run.lora.rank, 8)),
    ]
    looks = [("train.eval_every", 0)] if machine.kind != "cpu" else []  # share the weights there
    # Fine-tuning alone reads the weights in `dtype`, on a CPU into the same memory.
    changes = {
        "evaluate": [*weights, *evaluating],
        "finetune": [*weights, *looks, *training],
        "study": [*weights, *training[:2], *evaluating, *training[2:]],
    }[program]
    return [(name, value) for name, value in changes if operator.attrgetter(name)(run) != value]
