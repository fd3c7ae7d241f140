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
from antiimit_jax.results import BASE, Stage
from antiimit_jax.run_config import RunConfig
from antiimit_jax.scoring.asks import Scoring
from tests.suites.small import run_of_all, small_config
from tests.tiny_model import write_tiny_model


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
    return run_of_all(config, lm, runner, tmp_path_factory.mktemp("runs"))
