"""A tiny model, small settings of every suite, and one run of them all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from antiimit_jax.evaluation.asker import LocalAsker
from antiimit_jax.evaluation.progress import silent
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.peft import load_adapter, save_adapter
from antiimit_jax.reporting.run_files import write_config
from antiimit_jax.results import BASE, Stage
from antiimit_jax.run_config import RunConfig, to_dict
from antiimit_jax.scoring.asks import Scoring
from antiimit_jax.study import Study
from tests.random_decoder import random_adapter
from tests.suites.small import small_config
from tests.tiny_model import write_tiny_model

LORA = LoraConfig(rank=2)


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny", scale=0.3)


@pytest.fixture(scope="session")
def config(model) -> RunConfig:
    return small_config(model)


@pytest.fixture(scope="session")
def lm(model) -> LanguageModel:
    return load_language_model(str(model))


@pytest.fixture(scope="session")
def runner(lm) -> Runner:
    return Runner(lm, jax.local_devices()[:2])


@pytest.fixture(scope="session")
def asker(runner) -> Callable[..., LocalAsker]:
    """Makes askers of the base; fields may be changed."""

    def make(stage: Stage = BASE, **changes) -> LocalAsker:
        fields = dict(runner=runner, stage=stage, scoring=Scoring(), seed=0, progress=silent)
        fields |= changes
        return LocalAsker(variant=fields["runner"].base, **fields)

    return make


@pytest.fixture(scope="session")
def run(config, lm, runner, tmp_path_factory) -> Path:
    """The folder of a run of all suites on the base and on a random adapter."""
    folder = tmp_path_factory.mktemp("runs")
    stage = Stage(name="mine", kind="other", folder=str(folder / "mine"))
    save_adapter(Path(stage.folder), random_adapter(lm.cfg, LORA, 1), lm.cfg, LORA, "tiny")
    study = Study(config, folder / "run", tell=lambda text: None, progress=silent)
    study.lm, study.runner = lm, runner  # known already, with what they compiled
    study.evaluate(BASE)
    study.evaluate(stage, load_adapter(Path(stage.folder), lm.cfg))
    write_config(folder / "run", to_dict(config))
    study.write()
    return folder / "run"
