"""The main job: evaluate the base, train tuned and placebo adapters, evaluate them, report.

Every part leaves its result in the run's folder and is skipped when it is there, so a study that
was stopped goes on where it stood.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging
from etils import epath

from antiimit_jax.configured import asker_of, load_model
from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.asker import Asker
from antiimit_jax.evaluation.progress import Progress
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.evaluation.second import second_files, with_second
from antiimit_jax.files import sha256, write_sealed
from antiimit_jax.language_model import LanguageModel
from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.models.held_file import HeldFiles
from antiimit_jax.models.peft import Adapter, load_adapter, save_adapter
from antiimit_jax.models.peft_write import WEIGHTS_FILE
from antiimit_jax.reporting import run_files, stages, tensorboard
from antiimit_jax.reporting.identity import packages
from antiimit_jax.reporting.marks import read_log
from antiimit_jax.reporting.report import PAGE, schemas, write_report
from antiimit_jax.reporting.training_section import in_words
from antiimit_jax.results import BASE, Row, Stage, Tables, stage_order
from antiimit_jax.run_config import RunConfig, read_own_files, to_dict
from antiimit_jax.suites import SUITES
from antiimit_jax.suites.control.dev import dev_figures
from antiimit_jax.training.loop import Hold, Job, train, unheld
from antiimit_jax.training.targets import PLACEBO
from antiimit_jax.versions import versions

Tell = Callable[[str], None]


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
            f"{workdir}: no table of a suite, as items.parquet; evaluate this run again, with "
            "suites and numbers of items that ask something"
        )
    order = [Stage(**stage) for stage in info.get("stages", ())]
    run_files.write_metrics(workdir, info, score(tables, config, order))
    tensorboard.write_tensorboard(workdir, SUITES)
    return write_report(workdir, SUITES)


class Study:
    """One run: a configuration, a folder, and the model once it is needed."""

    def __init__(
        self,
        config: RunConfig,
        workdir: Path,
        *,
        run: str = "",
        tell: Tell,
        progress: Progress,
        on_result: Callable[[], None] = lambda: None,
        hold: Hold = unheld,
        checkpoints: epath.Path | None = None,  # else in the workdir
    ) -> None:
        """Args: run: id of its results. on_result: called when one is whole. hold: of `train`."""
        self.stays = False  # what lies there is shown, and not written again
        self._checkpoints = checkpoints or workdir / "checkpoints"
        self.config, self.workdir, self.run = config, workdir, run
        self._tell, self._progress, self._on_result, self._hold = tell, progress, on_result, hold

    @functools.cached_property
    def lm(self) -> LanguageModel:
        """The model, loaded at first use."""
        self._tell(f"loading {self.config.model}")
        return load_model(self.config)

    @functools.cached_property
    def against(self) -> HeldFiles | None:
        """The files of the second model, held from the first use on; None where there is none."""
        return second_files(self.config.against) if self.config.against else None

    @functools.cached_property
    def runner(self) -> Runner:
        """The model on its devices, copied or shared, at first use."""
        return Runner(self.lm)

    @property
    def finished(self) -> bool:
        """Whether all stages lie in the folder, each of the adapter that lies there."""
        return all(self._is_done(stage) for stage in self.config.stages())

    def _is_done(self, stage: Stage) -> bool:
        facts = self._facts(stage)
        if facts is None or not stage.folder or not (self.workdir / stage.folder).is_dir():
            return facts is not None
        mark = stages.adapter_mark(self.workdir / stage.folder)
        return mark["files"][WEIGHTS_FILE] == facts["adapter_sha256"]

    def _facts(self, stage: Stage) -> dict[str, Any] | None:
        """What this run left with a stage that is whole."""
        facts = stages.read_facts(self.workdir, stage.name)
        return facts if facts is not None and facts["run"] == self.run else None

    def check_training(self, *, anew: bool = False) -> None:
        """Raises UserError where an adapter that is still to be trained could not be.

        Args:
          anew: those that are there are to be trained again.
        """
        for stage in self.config.stages():
            if stage.folder and (anew or not (self.workdir / stage.folder).is_dir()):
                self.job(stage).check(self.lm)

    def check_adapters(self, adapters: Mapping[Stage, Adapter]) -> None:
        """Raises UserError where a stage of that name was measured with another adapter."""
        for stage, adapter in adapters.items():
            facts = self._facts(stage)
            if facts is not None and facts["adapter"] != adapter.fingerprint:
                raise UserError(
                    f"--adapter={stage.folder}: {self.workdir} holds a stage {stage.name} of "
                    "another adapter; name this one, as --adapter=NAME=FOLDER"
                )

    def job(self, stage: Stage) -> Job:
        """What trains a stage's adapter."""
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
        )

    def train(self, stage: Stage) -> Adapter:
        """Trains a stage's adapter, or reads the finished one; goes on from checkpoints."""
        folder, job = self.workdir / stage.folder, self.job(stage)
        if folder.is_dir():
            stages.adapter_mark(folder)
            return load_adapter(folder, self.lm.cfg)
        bar = self._progress(f"training {stage.name}", job.steps)
        live = tensorboard.open_writer(self.workdir)

        def on_step(row: dict[str, Any]) -> None:
            tensorboard.add_step(live, row)
            bar(1, in_words(row, "loss", "kl_fwd"))

        def look(step: int, tree: Any) -> dict[str, float]:
            variant = self.runner.adapted(tree, self.config.lora.scale)
            asker = asker_of(self.runner, variant, stage, self.config)
            found = dev_figures(asker, self.config.control)
            self._tell(f"{stage.name} at step {step}: {in_words(found, *found)}")
            return found

        place = self._checkpoints / stage.name
        tree, log = train(self.lm, job, place, on_step, look, self._hold)
        tensorboard.close_writer(live)
        write_sealed(self._log_file(stage), {"log": log})
        config, cfg, revision = self.config, self.lm.cfg, self.config.revision or None
        save_adapter(folder, tree, cfg, config.lora, config.model, revision, self.run)
        self._on_result()
        return load_adapter(folder, cfg)

    def evaluate(self, stage: Stage, adapter: Adapter | None = None) -> None:
        """Asks one stage all suites, unless its result is there for this very adapter."""
        sha256, fingerprint = (adapter.sha256, adapter.fingerprint) if adapter else (None, None)
        facts = {"adapter_sha256": sha256, "adapter": fingerprint, "run": self.run}
        done, folder = self._facts(stage), stages.stage_folder(self.workdir, stage.name)
        if done is not None and done["adapter"] == facts["adapter"]:
            return
        if folder.exists():
            why = "of another adapter" if done else "not as this run wrote it"
            self._tell(f"{folder}: {why}; the stage is measured again")
        runner, config = self.runner, self.config
        variant = runner.adapted(adapter.tree, adapter.scale) if adapter else runner.base
        asker = asker_of(runner, variant, stage, config, self._progress)
        asker = with_second(asker, config.against)
        if asker.other:
            self.against.check_unchanged()  # since they were hashed
        if stage.kind != "base":
            base = stages.stage_folder(self.workdir, BASE.name)
            asker = dataclasses.replace(asker, of_base=run_files.read_tables(base, schemas(SUITES)))
        source, files = self.lm.source, read_own_files(config, ("evaluation",))
        own = {name: held.sha256 for name, held in files.items()}
        facts |= {"hub_id": source.hub_id, "commit": source.commit, "own_files": own}
        facts["versions"] = versions(packages(config.quantize))
        facts["device"] = f"{jax.local_devices()[0].device_kind} x{jax.device_count()}"
        stages.write_stage(self.workdir, stage, measure(asker, config), schemas(SUITES), facts)
        self._on_result()

    def left(self, train: Sequence[Stage], ask: Sequence[Stage]) -> tuple[list[Stage], list[Stage]]:
        """Of stages to be trained and to be asked, those that are not there yet."""
        untrained = [s for s in train if s.trained and not (self.workdir / s.folder).is_dir()]
        return untrained, [stage for stage in ask if not self._facts(stage)]

    def write(self) -> Path:
        """Joins what there is into the run's tables and their `write_results`, unless it `stays`.

        Returns the path of report.html.
        """
        if self.stays:
            return self.workdir / PAGE
        rows: list[dict[str, Any]] = []
        for stage in self.config.stages():
            log = self.log(stage)
            if log is None and stage.folder and (self.workdir / stage.folder).is_dir():
                self._tell(f"{self._log_file(stage)}: not as the run wrote it; left out")
            rows += log or []
        if rows:
            run_files.write_training(self.workdir, rows)
        stages.join_stages(self.workdir, schemas(SUITES))
        return write_results(self.workdir, self.config, self._info())

    def log(self, stage: Stage) -> list[dict[str, Any]] | None:
        """The log of a stage's finished training; None where it is not there as it was written."""
        return read_log(self._log_file(stage))

    def _log_file(self, stage: Stage) -> Path:
        return self.workdir / "checkpoints" / f"{stage.name}.json"

    def _info(self) -> dict[str, Any]:
        """The run block of metrics.json, as the stages recorded it."""
        config, there = self.config, stages.stages_there(self.workdir)
        facts = {stage.name: stages.read_facts(self.workdir, stage.name) for stage in there}
        base, hashes = facts.get(BASE.name, {}), {s: f["adapter_sha256"] for s, f in facts.items()}
        files = [self.workdir / f"{name}.parquet" for name in schemas(SUITES)]
        return {
            "model": config.model,
            "revision": config.revision or None,
            "against": config.against or None,
            "hub_id": base.get("hub_id"),
            "commit": base.get("commit"),
            "own_files": base.get("own_files", {}),
            "adapter_sha256": hashes.get("tuned"),
            "placebo_sha256": hashes.get("placebo"),
            "adapters": {name: sha256 for name, sha256 in hashes.items() if sha256},
            "adapter_seeds": sorted({s.adapter_seed for s in there if s.trained}),
            "stages": [vars(stage) for stage in there],
            "tables": {file.name: sha256(file) for file in files if file.exists()},
            "dtype": config.dtype,
            "quantize": config.quantize if config.quantize != "none" else None,
            "seed": config.seed,
            "eval_seed": config.eval_seed,
            "config_sha256": run_files.config_sha256(to_dict(config)),
            "versions": base.get("versions"),
            "device": ", ".join(dict.fromkeys(fact["device"] for fact in facts.values())),
        }
