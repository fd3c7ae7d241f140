"""Looks at dev_words while an adapter trains: in the log, and without an effect on the training."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from antiimit_jax.evaluation.asker import LocalAsker
from antiimit_jax.evaluation.progress import silent
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.results import stage_named
from antiimit_jax.scoring.asks import Scoring
from antiimit_jax.suites.control import Config
from antiimit_jax.suites.control.dev import dev_figures
from antiimit_jax.tasks.output_control import Mixture
from antiimit_jax.training.loop import train
from tests.training.test_loop import CFG, LORA, Job, Stop

LOOKING = dataclasses.replace(CFG, eval_every=2)
PAIRS = Config(mixture=Mixture(templates=(0, 5)), n_items=8)


@pytest.fixture(scope="module")
def asker(tiny):
    runner = Runner(tiny, jax.local_devices()[:1])
    stage = stage_named("tuned")
    how = dict(scoring=Scoring(), seed=0, eval_seed=0, progress=silent)
    return LocalAsker(runner=runner, variant=runner.base, stage=stage, **how)


def run(tiny, folder, cfg, look, on_step=lambda row: None):
    job = Job(name="tuned", train=cfg, lora=LORA, steps=cfg.steps)
    return train(tiny, job, folder, on_step, look)


def test_looks_change_no_bit_and_stay_in_the_log_of_a_run_that_was_stopped(tiny, asker, tmp_path):
    steps = []

    def look(step, tree):
        steps.append(step)
        variant = asker.runner.adapted(tree, LORA.scale)
        return dev_figures(dataclasses.replace(asker, variant=variant), PAIRS)

    def stop_at_five(row):
        if row["step"] == 5:
            raise Stop

    def unused(step, tree):
        raise AssertionError("train.eval_every is 0")

    without, _ = run(tiny, tmp_path / "a", dataclasses.replace(CFG, eval_every=0), unused)
    with pytest.raises(Stop):
        run(tiny, tmp_path / "b", LOOKING, look, stop_at_five)
    seen = []
    looked, log = run(tiny, tmp_path / "b", LOOKING, look, seen.append)
    jax.tree.map(np.testing.assert_array_equal, without, looked)
    assert steps == [2, 4, 6] and seen == log
    found = {row["step"]: row["dev_tvd"] for row in log if "dev_tvd" in row}
    assert list(found) == steps and len(set(found.values())) == 3
    assert all(0 < value <= 1 for value in found.values())


def test_a_look_is_at_plain_requests_for_two_dev_words(asker):
    asked = []

    class Asked:
        eval_seed = 0

        def words(self, asks, *, what):
            asked.extend(asks)
            return asker.words(asks, what=what)

    base = dev_figures(Asked(), PAIRS)
    items = PAIRS.mixture.evaluation("dev_words", PAIRS.n_items, 0)
    assert {ask.words for ask in asked} <= {item.words for item in items}
    answers = asker.words(asked, what="again")
    mass = np.mean([answer.q.sum() for answer in answers])
    assert base["dev_mass"] == pytest.approx(mass)
    assert base["dev_tvd"] >= 1 - mass - 1e-6
