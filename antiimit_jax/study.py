"""The main job: evaluate the base, train tuned and placebo adapters, evaluate them, report.

Every part leaves its result in the run's folder and is skipped when it is there, so a study that
was stopped goes on where it stood.
"""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.asker import Asker, LocalAsker
from antiimit_jax.evaluation.progress import Progress
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.files import json_text
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.models.peft import Adapter, load_adapter, save_adapter
from antiimit_jax.planning.duration import study_seconds
from antiimit_jax.planning.shapes import Shaper
from antiimit_jax.reporting import run_files, stages
from antiimit_jax.reporting.report import schemas, write_report
from antiimit_jax.reporting.tensorboard import add_step, open_writer, write_tensorboard
from antiimit_jax.results import BASE, Row, Stage, Tables, stage_order
from antiimit_jax.run_config import RunConfig, to_dict
from antiimit_jax.suites import SUITES
from antiimit_jax.training.batches import PLACEBO
from antiimit_jax.training.loop import Job, measure_step, train
from antiimit_jax.versions import versions

Tell = Callable[[str], None]
_PACKAGES = ("antiimit_jax", "jax", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")


def measure(asker: Asker, config: RunConfig) -> Tables:
    """The tables of one stage: every suite of the configuration asks its model."""
    tables: dict[str, Any] = {}
    for name in config.suites:
        lacking = [need for need in getattr(SUITES[name], "NEEDS", ()) if not hasattr(asker, need)]
        if lacking:
            logging.warning("suite %s is skipped: this model offers no %s", name, lacking[0])
        else:
            tables |= SUITES[name].measure(asker, config.of(name))
    return tables


def score(tables: Tables, config: RunConfig, order: Sequence[Stage]) -> list[Row]:
    """All rows, from the joined tables of all stages: stage by stage, within one suite by suite.

    Baselines and rulers come with the base.
    """
    boot = Bootstrap(n_boot=config.n_boot, seed=config.seed)
    rows = [
        row
        for name, suite in SUITES.items()
        if any(table in tables for table in suite.TABLES)
        for row in suite.score(tables, config.of(name), boot)
    ]
    place = stage_order(order)
    return sorted(rows, key=lambda row: place.get(row["stage"], 0))


def write_results(workdir: Path, config: RunConfig, info: dict[str, Any]) -> Path:
    """metrics.json with `info` as its run block, TensorBoard and report.html, from a run's tables.

    Returns the path of report.html.

    Raises:
      UserError: there is no table, or one is corrupt.
    """
    tables = run_files.read_tables(workdir, schemas(SUITES))
    if not tables:
        raise UserError(
            f"{workdir}: no table of a suite, as items.parquet; evaluate this run again"
        )
    order = [Stage(**stage) for stage in info.get("stages", ())]
    run_files.write_metrics(workdir, info, score(tables, config, order))
    write_tensorboard(workdir, SUITES)
    return write_report(workdir, SUITES)


class Study:
    """One run: a configuration, a folder, and the model once it is needed."""

    def __init__(self, config: RunConfig, workdir: Path, *, tell: Tell, progress: Progress) -> None:
        self.config, self.workdir = config, workdir
        self._tell, self._progress = tell, progress

    @functools.cached_property
    def lm(self) -> LanguageModel:
        """The model, loaded at first use."""
        config = self.config
        self._tell(f"loading {config.model}")
        how = {"dtype": config.dtype, "prompt_format": config.prompt_format}
        return load_language_model(config.model, revision=config.revision or None, **how)

    @functools.cached_property
    def runner(self) -> Runner:
        """The model on all devices, copied or shared, at first use."""
        return Runner(self.lm, weights=self.config.weights)

    @property
    def finished(self) -> bool:
        """Whether all stages lie in the folder."""
        return all(stages.read_facts(self.workdir, s.name) for s in self.config.stages())

    def check_training(self) -> None:
        """Raises UserError where an adapter that is still to be trained could not be."""
        for stage in self.config.stages():
            if stage.folder and not (self.workdir / stage.folder).is_dir():
                self._job(stage).check(self.lm)

    def _job(self, stage: Stage) -> Job:
        config, placebo = self.config, stage.kind == "placebo"
        return Job(
            name=stage.name,
            train=config.train,
            lora=config.lora,
            steps=config.train.placebo_steps if placebo else config.train.steps,
            transforms=(PLACEBO,) if placebo else (),
            forms=config.forms,
            terminators=config.terminators,
            seed=config.train.seeds[stage.adapter_seed],
            weights=config.weights,
        )

    def train(self, stage: Stage) -> Adapter:
        """Trains a stage's adapter, or reads the finished one; goes on from checkpoints."""
        folder, job = self.workdir / stage.folder, self._job(stage)
        if folder.is_dir():
            return load_adapter(folder, self.lm.cfg)
        bar, live = self._progress(f"training {stage.name}", job.steps), open_writer(self.workdir)

        def on_step(row: dict[str, Any]) -> None:
            add_step(live, row)
            bar(1)

        tree, log = train(self.lm, job, self.workdir / "checkpoints" / stage.name, on_step)
        live.close()
        run_files.write_text(self._log_file(stage), json_text(log))
        config, cfg = self.config, self.lm.cfg
        save_adapter(folder, tree, cfg, config.lora, config.model, config.revision or None)
        return load_adapter(folder, cfg)

    def evaluate(self, stage: Stage, adapter: Adapter | None = None) -> None:
        """Asks one stage all suites, unless its result is there for this very adapter."""
        sha256 = adapter.sha256 if adapter else None
        done = stages.read_facts(self.workdir, stage.name)
        if done is not None and done["adapter_sha256"] == sha256:
            return
        runner, config = self.runner, self.config
        asker = LocalAsker(
            runner=runner,
            variant=runner.adapted(adapter.tree, adapter.scale) if adapter else runner.base,
            stage=stage,
            scoring=config.rule,
            seed=config.seed,
            progress=self._progress,
        )
        source = self.lm.source
        facts = {"adapter_sha256": sha256, "hub_id": source.hub_id, "commit": source.commit}
        tables = measure(asker, config)
        stages.write_stage(self.workdir, stage, tables, schemas(SUITES), facts)

    def seconds_left(self) -> float:
        """What is still to be trained and evaluated will take about so long, by a measured step."""
        left = [s for s in self.config.stages() if not stages.read_facts(self.workdir, s.name)]
        jobs = [self._job(s) for s in left if s.trained and not (self.workdir / s.folder).is_dir()]
        steps, job = sum(job.steps for job in jobs), self._job(self.config.stages()[1])
        shaper = Shaper(self.lm.tokenizer, self.lm.prompt_format)
        return study_seconds(self.config, len(left), steps, shaper, measure_step(self.lm, job))

    def write(self) -> Path:
        """Joins what there is into the run's tables and their `write_results`."""
        logs = filter(Path.exists, map(self._log_file, self.config.stages()))
        rows = [row for log in logs for row in json.loads(log.read_text(encoding="utf-8"))]
        if rows:
            run_files.write_training(self.workdir, rows)
        stages.join_stages(self.workdir, schemas(SUITES))
        return write_results(self.workdir, self.config, self._info())

    def _log_file(self, stage: Stage) -> Path:
        return self.workdir / "checkpoints" / f"{stage.name}.json"

    def _info(self) -> dict[str, Any]:
        """The run block of metrics.json."""
        config, there = self.config, stages.stages_there(self.workdir)
        facts = {stage.name: stages.read_facts(self.workdir, stage.name) for stage in there}
        base, hashes = facts.get(BASE.name, {}), {s: f["adapter_sha256"] for s, f in facts.items()}
        devices = jax.local_devices()
        return {
            "model": config.model,
            "revision": config.revision or None,
            "hub_id": base.get("hub_id"),
            "commit": base.get("commit"),
            "adapter_sha256": hashes.get("tuned"),
            "placebo_sha256": hashes.get("placebo"),
            "adapters": {name: sha256 for name, sha256 in hashes.items() if sha256},
            "adapter_seeds": sorted({s.adapter_seed for s in there if s.trained}),
            "stages": [vars(stage) for stage in there],
            "dtype": config.dtype,
            "seed": config.seed,
            "config_sha256": run_files.config_sha256(to_dict(config)),
            "versions": versions(_PACKAGES),
            "device": f"{devices[0].device_kind} x{len(devices)}",
        }
