"""Which flags would make a program fit: changes of the configuration, tried on the estimate."""

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.sharding import fitting_shards
from antiimit_jax.models.weights import abstract_params
from antiimit_jax.parallel import AUTO, mesh_name, mesh_sizes
from antiimit_jax.planning.hardware import GPU_SHARE_AT_MOST, Hardware
from antiimit_jax.planning.memory import Estimator, Phase, peak
from antiimit_jax.run_config import RunConfig

_FRACTION = f"XLA_PYTHON_CLIENT_MEM_FRACTION={GPU_SHARE_AT_MOST}"
Change = tuple[str, Any]  # dotted field of the configuration and its new value
PROGRAMS = ("evaluate", "finetune", "study")


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """How a study's work fits: at once, or its parts one after the other."""

    programs: tuple[str, ...]  # in the order of `PROGRAMS`; none where nothing fits
    changes: tuple[Change, ...] = ()
    environment: str = ""


def with_mesh(run: RunConfig, cfg: ModelConfig, machine: Hardware) -> RunConfig:
    """The same with the mesh that a program makes of "auto" on such a machine.

    Raises:
      UserError: a mesh for other devices.
    """
    rows, shards = mesh_sizes(run.mesh, machine.devices)
    if run.mesh == AUTO and machine.devices > 1:
        params = abstract_params(cfg, run.dtype)
        shards = fitting_shards(cfg, params, machine.devices, machine.usable)
        rows = machine.devices // shards
    return dataclasses.replace(run, mesh=mesh_name(rows, shards))


def judge(program: str, run: RunConfig, estimator: Estimator, machine: Hardware) -> Verdict:
    """Estimates a program; where it does not fit, finds a small set of changes with which it does.

    Where all changes together do not help, that is what the verdict says.
    """
    estimate = getattr(estimator, program)
    need_with = lambda changes: peak(estimate(apply(run, changes)))
    phases, chosen = estimate(run), []
    need = most = peak(phases)
    hopeless = estimator.weights("bfloat16", machine.devices) > machine.at_most
    if need.total > machine.at_most and not hopeless:
        chosen = _changes(program, run, machine)
        need = need_with(chosen)
        if need.total <= machine.at_most:
            chosen = _few(chosen, lambda some: need_with(some).total <= machine.at_most)
            need = need_with(chosen)
    return Verdict(
        program=program,
        phases=phases,
        fits=most.total <= machine.usable,
        changes=tuple(chosen),
        rescued=need.total <= machine.at_most,
        least=need,
        environment=_FRACTION if machine.usable < need.total <= machine.at_most else "",
    )


def find_way(
    verdicts: Sequence[Verdict], run: RunConfig, estimator: Estimator, machine: Hardware
) -> Way:
    """The way that gives up least: a study, its two parts, both with changes, then one part alone.

    Args:
      verdicts: on all `PROGRAMS`.
    """
    of = {verdict.program: verdict for verdict in verdicts}
    parts, study = (of["evaluate"], of["finetune"]), of["study"]
    for way in ((study,), parts):
        if all(verdict.fits for verdict in way):
            return Way(programs=tuple(verdict.program for verdict in way))
    for way in ((study,), parts, *zip(parts)):
        if all(verdict.rescued for verdict in way):
            # Parts of one run have one configuration.
            changes = tuple(dict.fromkeys(change for verdict in way for change in verdict.changes))
            names = tuple(verdict.program for verdict in way)
            changed = apply(run, list(changes))
            most = max(peak(getattr(estimator, name)(changed)).total for name in names)
            if most <= machine.at_most:
                env = _FRACTION if most > machine.usable else ""
                return Way(programs=names, changes=changes, environment=env)
    return Way(programs=())


def _few(changes: list[Change], fits: Callable[[list[Change]], bool]) -> list[Change]:
    """As many of the changes, in order, as it takes; then those taken back that were not needed.

    Changes of the training step are taken back all or none: each is a compilation, and they come in
    order of what they cost.
    """
    chosen = next(changes[:n] for n in range(1, len(changes) + 1) if fits(changes[:n]))
    same_step = [one for one in chosen if not one[0].startswith("train.")]
    if same_step != chosen and fits(same_step):
        chosen = same_step
    for change in list(chosen):
        without = [one for one in chosen if one != change]
        if not change[0].startswith("train.") and fits(without):
            chosen = without
    return chosen


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
