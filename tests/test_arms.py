"""configs/: the arms of the study, and the table of what each was trained on, rung by rung."""

from __future__ import annotations

import csv
import itertools
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from antiimit_jax.metrics.intervals import clustered_mean
from antiimit_jax.run_config import RunConfig, from_dict
from antiimit_jax.suites import SUITES, control
from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.neutral import load_neutral
from antiimit_jax.tasks.rung_training import TRAINABLE
from antiimit_jax.tasks.rungs import RUNGS, rung_items

CONFIGS = Path(__file__).parent.parent / "configs"
ARMS = ("quickstart", "narrow", "broad")
NUMBERS = re.compile(r"\d+([./]\d+)?|\b(one|two|three|four|five|seven|nine|ten|twenty|\w+teen)\b")
DRAWN = {"mixture": (170, 100)}  # groups and items of each, so that hardly a word is missed
OF_RUNG = (40, 24)


def config(name: str) -> RunConfig:
    return from_dict(runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]().to_dict())


def table() -> dict[str, dict[str, str]]:
    with (CONFIGS / "rungs.tsv").open(encoding="utf-8") as file:
        return {line["rung"]: line for line in csv.DictReader(file, delimiter="\t")}


def wording(item: Item) -> str:
    """A request without its words and numbers."""
    text = "\n".join(message.content for message in item.messages)
    for word in sorted(item.words, key=len, reverse=True):
        text = text.replace(word, "_")
    return NUMBERS.sub("#", text)


def seen_parts(items: list[Item]) -> tuple[set[str], set[str], set[float]]:
    words = {word for item in items for word in item.words}
    return {wording(item) for item in items}, words, {t for item in items for t in item.targets}


@pytest.fixture(scope="module", params=ARMS)
def trained(request) -> tuple[str, tuple[set[str], set[str], set[float]]]:
    """An arm, and the wordings, words and shares of what its training draws."""
    cfg, rng = config(request.param).train, np.random.default_rng(0)
    items = []
    for name in (name for name, weight in zip(cfg.tasks, cfg.task_weights) if weight):
        groups, of_group = DRAWN.get(name, OF_RUNG)
        for _ in range(groups):
            items += itertools.islice(cfg.task(name).training(rng), of_group)
    return request.param, seen_parts(items)


def test_the_table_says_what_training_holds_of_each_rung(trained):
    arm, (wordings, words, shares) = trained
    found = {}
    for rung in RUNGS.keys() & {"L0", "L1", "L2", "L3", "L10", "L11", *TRAINABLE}:
        known = [
            wording(item) in wordings and words.issuperset(item.words) and shares >= {*item.targets}
            for item in rung_items(rung, 20, 0)
        ]
        share = np.mean(known)
        found[rung] = "trained" if share > 0.8 else "in part" if share > 0.2 else "held out"
    assert found == {rung: table()[rung][arm] for rung in found}


def test_the_table_holds_all_rungs_and_no_other_is_trained_on():
    assert list(table()) == [f"L{i}" for i in range(15)]
    others = table().keys() - {"L0", "L1", "L2", "L3", *TRAINABLE}
    assert RUNGS.keys() <= table().keys()
    assert {table()[rung][arm] for rung in others for arm in ARMS} == {"held out"}


def test_the_full_study_has_all_suites_seeds_and_texts():
    cfg = config("full")
    assert cfg.suites == tuple(SUITES) and len(cfg.train.seeds) == 3
    assert {"L0", *cfg.ladder.rungs} == set(RUNGS)
    assert cfg.drift.n_prompts == len(load_neutral("drift")) == 302


def test_the_full_study_could_support_a_perfect_control():
    items = [item for item in control.items_of(config("full").control, 0)]
    sets = np.unique([item.cluster for item in items if item.split == "heldout_both"])
    passed = clustered_mean(
        np.ones(8 * len(sets)), np.repeat(np.arange(len(sets)), 8), "proportion"
    )
    assert passed[1] > 0.95


def test_the_arms_are_asked_alike_and_trained_in_as_many_steps():
    narrow, broad = config("narrow"), config("broad")
    assert narrow.train.seeds == broad.train.seeds == (0, 1, 2)
    for name in ("control", "ladder", "suites", "eval_seed", "lora"):
        assert getattr(narrow, name) == getattr(broad, name)
    for name in ("steps", "placebo_steps", "groups", "rows", "accumulate", "learning_rate"):
        assert getattr(narrow.train, name) == getattr(broad.train, name)
