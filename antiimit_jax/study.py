"""The main job: evaluate the base, train the tuned and the placebo adapter, evaluate both, report.

Every part leaves its result in the run's folder and is skipped when it is there, so a study that
was stopped goes on where it stood.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from antiimit_jax.evaluation.progress import Progress
from antiimit_jax.evaluation.runner import Runner, Variant
from antiimit_jax.evaluation.suites import evaluate
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.models.peft import Adapter, load_adapter, save_adapter
from antiimit_jax.reporting import run_files, stages
from antiimit_jax.reporting.report import write_report
from antiimit_jax.reporting.tensorboard import LiveScalars, write_tensorboard
from antiimit_jax.run_config import RunConfig, to_dict
from antiimit_jax.training.batches import PLACEBO
from antiimit_jax.training.loop import Job, train

Tell = Callable[[str], None]
STAGES = ("base", "tuned", "placebo")
FOLDERS = {"tuned": "adapter", "placebo": "placebo"}
_PACKAGES = ("antiimit_jax", "jax", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")


class Study:
    """One run: a configuration, a folder, and the model once it is needed."""

    def __init__(self, config: RunConfig, workdir: Path, *, tell: Tell, progress: Progress) -> None:
        self.config, self.workdir = config, workdir
        self._tell, self._progress = tell, progress
        self._lm: LanguageModel | None = None
        self._runner: Runner | None = None

    @property
    def lm(self) -> LanguageModel:
        """The model, loaded at first use."""
        if self._lm is None:
            config = self.config
            self._tell(f"loading {config.model}")
            self._lm = load_language_model(
                config.model,
                revision=config.revision or None,
                dtype=config.dtype,
                prompt_format=config.prompt_format,
            )
        return self._lm

    @property
    def runner(self) -> Runner:
        """The model on all devices, copied or shared, at first use."""
        if self._runner is None:
            self._runner = Runner(self.lm, weights=self.config.weights)
        return self._runner

    @property
    def finished(self) -> bool:
        """Whether all stages lie in the folder."""
        return all(stages.read_extra(self.workdir, stage) for stage in STAGES)

    def train(self, name: str) -> Adapter:
        """Trains "tuned" or "placebo", or reads the finished adapter; goes on from checkpoints."""
        folder = self.workdir / FOLDERS[name]
        if folder.is_dir():
            return load_adapter(folder, self.lm.cfg)
        config = self.config
        steps = config.train.steps if name == "tuned" else config.train.placebo_steps
        bar = self._progress(f"training {name}", steps)
        live = LiveScalars(self.workdir)

        def on_step(row: dict[str, Any]) -> None:
            live.add(row)
            bar(1)

        job = Job(
            name=name,
            train=config.train,
            lora=config.lora,
            steps=steps,
            transforms=(PLACEBO,) if name == "placebo" else (),
            forms=config.forms,
            terminators=config.terminators,
            seed=config.seed,
            weights=config.weights,
        )
        tree, log = train(self.lm, job, self.workdir / "checkpoints" / name, on_step)
        live.close()
        run_files.write_text(self._log_file(name), json.dumps(log))
        save_adapter(folder, tree, self.lm.cfg, config.lora, config.model, config.revision or None)
        return load_adapter(folder, self.lm.cfg)

    def evaluate(self, stage: str, adapter: Adapter | None) -> None:
        """Asks one stage all suites, unless its result is there for this very adapter."""
        sha256 = adapter.sha256 if adapter else None
        done = stages.read_extra(self.workdir, stage)
        if done is not None and done["adapter_sha256"] == sha256:
            return
        config = self.config
        variant = self._variant(adapter)
        base = stages.read_extra(self.workdir, "base") or {}
        prior = {item: np.array(q) for item, q in (base.get("prior") or {}).items()} or None
        result, prior = evaluate(
            self.runner,
            variant,
            stage,
            config.suites,
            control_cfg=config.control,
            drift_cfg=config.drift,
            forms=config.forms,
            terminators=config.terminators,
            seed=config.seed,
            prior=prior,
            progress=self._progress,
        )
        source = self.lm.source
        kept = (
            {item: q.tolist() for item, q in prior.items()} if prior and stage == "base" else None
        )
        stages.write_stage(
            self.workdir,
            stage,
            rows=result.rows,
            tables=result.tables,
            samples=result.samples,
            extra={
                "adapter_sha256": sha256,
                "prior": kept,
                "hub_id": source.hub_id,
                "commit": source.commit,
            },
        )

    def _variant(self, adapter: Adapter | None) -> Variant:
        if adapter is None:
            return self.runner.base
        return self.runner.adapted(adapter.tree, adapter.scale)

    def write(self) -> Path:
        """Joins what there is into metrics.json, tables, TensorBoard and report.html.

        Returns:
          The path of report.html.
        """
        logs = [
            row
            for name in FOLDERS
            if self._log_file(name).exists()
            for row in json.loads(self._log_file(name).read_text(encoding="utf-8"))
        ]
        if logs:
            columns = {key: [row[key] for row in logs] for key in logs[0]}
            run_files.write_table(self.workdir, "training", columns)
        stages.join_stages(self.workdir, STAGES, self._info())
        write_tensorboard(self.workdir)
        return write_report(self.workdir)

    def _log_file(self, name: str) -> Path:
        return self.workdir / "checkpoints" / f"{name}.json"

    def _info(self) -> dict[str, Any]:
        """The run block of metrics.json."""
        config = self.config
        base = stages.read_extra(self.workdir, "base") or {}
        adapter_sha256 = (stages.read_extra(self.workdir, "tuned") or {}).get("adapter_sha256")
        placebo_sha256 = (stages.read_extra(self.workdir, "placebo") or {}).get("adapter_sha256")
        versions = {name: _version(name) for name in _PACKAGES}
        devices = jax.local_devices()
        return {
            "model": config.model,
            "revision": config.revision or None,
            "hub_id": base.get("hub_id"),
            "commit": base.get("commit"),
            "adapter_sha256": adapter_sha256,
            "placebo_sha256": placebo_sha256,
            "dtype": config.dtype,
            "seed": config.seed,
            "config_sha256": run_files.config_sha256(to_dict(config)),
            "versions": versions | {"python": platform.python_version()},
            "device": f"{devices[0].device_kind} x{len(devices)}",
        }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
