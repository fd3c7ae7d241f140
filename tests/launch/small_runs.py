"""Small studies in this process, through the functions that the programs are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from antiimit_jax import study
from antiimit_jax.evaluation.progress import silent
from antiimit_jax.files import sha256
from antiimit_jax.models.peft import load_adapter
from antiimit_jax.reporting import plots, report, run_files
from antiimit_jax.reporting.verdicts import VERDICTS
from antiimit_jax.results import BASE, Stage
from antiimit_jax.run_config import RunConfig, from_dict
from antiimit_jax.suites import control
from antiimit_jax.training import loop
from antiimit_jax.trees import flat, nested
from launch.workdir import locked, open_run

QUIET = silent
FEW = {
    "dtype": "float32",
    "prompt_format": "base",
    "suites": ("control",),
    "n_boot": 0,
    "control.n_items": 4,
    "control.splits": ("heldout_words",),
    "control.mixture.shots": (0,),
    "control.mixture.shot_weights": (1.0,),
    "train.steps": 2,
    "train.placebo_steps": 1,
    "train.rows": 1,
    "train.groups": 1,
    "train.checkpoint_every": 1,
    "train.anchor_tokens": 0,
    "train.warmup_steps": 0,
    "train.dtype": "float32",
    "lora.rank": 2,
}


def small_config(model: Path, /, **changes) -> RunConfig:
    """Fields by dotted name."""
    return from_dict(nested(flat(FEW) | {"model": str(model)} | changes))


def once(patch: pytest.MonkeyPatch) -> None:
    """From now on all studies of this process share what is slow and the same for them.

    Each model is read, each function compiled and each page of equal figures drawn once. For tests
    that leave the model as it is.
    """
    by_model = lambda config: (config.model, config.dtype)
    by_rows = lambda tables, rows: repr(rows.all)
    by_figures = lambda run, _: (sha256(run.path / run_files.METRICS), _logged(run))
    patch.setattr(study, "load_model", _once(study.load_model, by_model))
    patch.setattr(study, "Runner", _once(study.Runner, id))
    patch.setattr(loop, "_Stepper", _once(loop._Stepper, lambda lm, job, *_: (id(lm), job)))
    patch.setattr(report, "render", _once(report.render, by_figures))
    patch.setattr(control, "images", _once(control.images, by_rows))
    patch.setattr(plots, "rgb", _once(plots.rgb, id))


def _logged(run: run_files.Run) -> tuple[str, ...]:
    """The adapter of each training step that a page's curves show."""
    return () if run.training is None else tuple(run.training["adapter"])


def _once(function: Callable, key: Callable) -> Callable:
    """The function, called once for each key of its arguments by position."""
    found: dict[Any, Any] = {}

    def call(*arguments: Any, **named: Any) -> Any:
        name = key(*arguments)
        if name not in found:
            found[name] = function(*arguments, **named)
        return found[name]

    return call


def run_study(config: RunConfig, workdir: Path, overwrite: str | None = None, stop="") -> None:
    """What `launch.study` does; up to and with the part `stop`, "base" or "train"."""
    with (
        locked(str(workdir)) as folder,
        open_run(config, folder, overwrite=overwrite, progress=QUIET) as study,
    ):
        if not study.finished:
            base, *adapters = study.config.stages()
            study.evaluate(base)
            if stop == "base":
                return
            for stage in adapters:
                trained = study.train(stage)
                if stop == "train":
                    return
                study.evaluate(stage, trained)
        study.write()


def run_evaluate(config: RunConfig, workdir: Path, *stages: Stage, overwrite=None) -> None:
    """What `launch.evaluate` does, with foreign adapters."""
    adapters = {}

    def read(study) -> None:
        for stage in stages:
            adapters[stage] = load_adapter(Path(stage.folder), study.lm.cfg)
        study.check_adapters(adapters)

    how = {"overwrite": overwrite, "check": read, "progress": QUIET}
    with locked(str(workdir)) as folder, open_run(config, folder, ["evaluation"], **how) as study:
        study.evaluate(BASE)
        for stage, adapter in adapters.items():
            study.evaluate(stage, adapter)
        study.write()


def run_finetune(config: RunConfig, workdir: Path, **how: Any) -> None:
    """What `launch.finetune` does."""
    with (
        locked(str(workdir)) as folder,
        open_run(config, folder, ["training"], progress=QUIET, **how) as study,
    ):
        for stage in study.config.stages()[1:]:
            study.train(stage)


def results(workdir: Path) -> dict[str, bytes]:
    """What a run found, byte for byte: figures, tables and weights."""
    files = [run_files.METRICS, run_files.CONFIG, VERDICTS, "items.parquet"]
    files += [f"{name}/adapter_model.safetensors" for name in ("adapter", "placebo")]
    return {name: (workdir / name).read_bytes() for name in files if (workdir / name).exists()}


def held(workdir: Path) -> dict[Path, bytes]:
    """All files below a folder but its locks."""
    files = (path for path in workdir.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in files}


def flipped(file: Path) -> None:
    """Flips one bit in the middle."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
