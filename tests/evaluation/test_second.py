"""The second model of a run: what suites reach as `asker.other`, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.asker import LocalAsker
from antiimit_jax.evaluation.progress import silent
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.evaluation.second import check_second, with_second
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.peft import save_adapter
from antiimit_jax.results import BASE, Stage
from antiimit_jax.scoring.asks import Ask, Scoring
from antiimit_jax.text.formats import Message
from tests.random_decoder import random_adapter
from tests.tiny_model import write_tiny_model

LORA = LoraConfig(rank=2)
ASKS = [
    Ask(
        messages=(Message("user", "Say one word."), Message("assistant", "Word:")),
        words=("river", "apple"),
    )
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def lm(folder) -> LanguageModel:
    return load_language_model(str(write_tiny_model(folder / "first", scale=0.3)))


@pytest.fixture(scope="module")
def asker(lm) -> LocalAsker:
    runner = Runner(lm, jax.local_devices()[:1])
    how = dict(scoring=Scoring(), seed=0, progress=silent)
    return LocalAsker(runner=runner, variant=runner.base, stage=BASE, **how)


def answers(asker: LocalAsker) -> np.ndarray:
    return asker.words(ASKS, what="words")[0].q


def test_an_adapter_is_asked_beside_its_base(folder, lm, asker):
    tree = random_adapter(lm.cfg, LORA, 1)
    save_adapter(folder / "mine", tree, lm.cfg, LORA, "tiny")
    both = with_second(asker, str(folder / "mine"))
    alone = dataclasses.replace(asker, variant=asker.runner.adapted(tree, LORA.scale))
    assert answers(both.other) == pytest.approx(answers(alone), rel=1e-6)
    assert (answers(both) == answers(asker)).all() and both.other.runner is asker.runner
    assert abs(np.log(answers(both) / answers(both.other))).max() > 1e-2


def test_another_model_answers_as_it_does_alone(folder, asker):
    path = str(write_tiny_model(folder / "second", scale=0.3, seed=1, hidden_size=16))
    both = with_second(asker, path)
    runner = Runner(load_language_model(path), jax.local_devices()[:1])
    alone = dataclasses.replace(asker, runner=runner, variant=runner.base)
    assert answers(both.other) == pytest.approx(answers(alone), rel=1e-6)
    assert both.other.stage.name == "against" and both.other.stage.kind == "other"


def test_only_the_base_has_a_second_model_and_only_where_one_is_named(asker):
    assert with_second(asker, "") is asker and asker.other is None
    tuned = Stage(name="tuned", kind="tuned", adapter_seed=0)
    of_tuned = dataclasses.replace(asker, stage=tuned)
    assert with_second(of_tuned, "no-such-model") is of_tuned


def test_an_adapter_for_another_model_is_one_clear_line(folder, lm):
    other = load_language_model(str(write_tiny_model(folder / "wide", hidden_size=64)))
    save_adapter(folder / "wide-lora", random_adapter(other.cfg, LORA, 1), other.cfg, LORA, "x")
    with pytest.raises(UserError, match="^--against=.*wide-lora: ") as refused:
        check_second(str(folder / "wide-lora"), lm)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name, said",
    [
        ("smollm2-135", "^--against=smollm2-135: unknown alias.*did you mean"),
        ("/no/such/folder", "^--against=/no/such/folder: no such file or folder"),
    ],
)
def test_no_model_of_that_name_is_said_at_once(lm, name, said):
    with pytest.raises(UserError, match=said):
        check_second(name, lm)
