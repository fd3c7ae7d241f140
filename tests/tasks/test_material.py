"""A user's words and phrasings replace ours in training and evaluation, split by the same hash."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.run_config import from_dict, to_dict
from antiimit_jax.tasks.output_control import Mixture, last_shot, without_percents
from antiimit_jax.tasks.templates import load_templates
from antiimit_jax.text.lexicon import words_of
from tests.tasks.test_user_items import PHRASINGS, WORDS, words_file


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A run on a user's words and phrasings, with examples in some requests."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "phrasings.jsonl").write_text("".join(json.dumps(p) + "\n" for p in PHRASINGS))
    own = {"words_file": words_file(folder, *WORDS)}
    own["templates_file"] = str(folder / "phrasings.jsonl")
    shots = {"shots": (0, 2), "shot_weights": (0.8, 0.2)}
    asked = {"mixture": shots | {"heldout_weight": 0.2}}
    return from_dict(own | {"control": asked, "train": {"mixture": shots}})


def texts(item) -> str:
    return "\n".join(message.content for message in item.messages)


def test_training_uses_the_words_and_phrasings_that_it_may_see(config):
    mixture, train = config.train.mixture, set(words_of("train", config.words_file))
    trained = {t.opening for t in load_templates(config.templates_file).entries if not t.heldout}
    seen, words = set(), set()
    for seed in range(40):
        items = list(itertools.islice(mixture.training(np.random.default_rng(seed)), 20))
        for item in items:
            (opening,) = [p["opening"] for p in PHRASINGS if p["opening"] in texts(item)]
            seen.add(opening)
            words |= set(item.words)
    assert seen == trained and words <= train and len(words) > len(train) / 2
    kinds = {item.facets["template"] for group in mixture.longest() for item in group}
    assert {PHRASINGS[number]["opening"] for number in kinds} == trained


def test_evaluation_keeps_the_splits_of_words_and_shows_all_phrasings(config):
    mixture, held = config.control.mixture, load_templates(config.templates_file).entries
    for split, side in (("train", "train"), ("heldout_words", "test"), ("dev_words", "dev")):
        items = mixture.evaluation(split, 200, 0)
        assert {w for item in items for w in item.words} <= set(words_of(side, config.words_file))
        for item in items:
            template = held[item.facets["template"]]
            assert template.opening in texts(item)
            assert item.facets["template_heldout"] == template.heldout
    assert {item.facets["template"] for item in mixture.evaluation("heldout_words", 400, 0)} == set(
        range(len(held))
    )


def test_what_belongs_to_an_item_is_made_of_the_same_material(config):
    train = set(words_of("train", config.words_file))
    items = config.control.mixture.evaluation("heldout_words", 80, 0)
    shown = [item for item in items if item.facets["n_shots"]]
    assert shown
    for item in shown:
        before = without_percents(item)
        assert before[:-2] == item.messages[:-2] and len(before) == 6
        assert before[-2].content.startswith("Say one of ")
        assert {turn.content.split()[-1] for turn in before[1:-2:2]} <= train
        assert last_shot(item) is not None


def test_ours_stay_as_they_are_beside_a_users(config):
    plain = Mixture().evaluation("heldout_words", 40, 0)
    assert {w for item in plain for w in item.words} <= set(words_of("test"))
    assert from_dict({}).control.mixture.evaluation("train", 8, 0)[0].material.words_file == ""
    saved = to_dict(config)
    assert saved["words_file"] == config.words_file
    assert "words_file" not in saved["train"]["mixture"]
    assert from_dict(json.loads(json.dumps(saved))) == config


def test_more_word_sets_than_the_words_make_are_refused(config):
    n = len(words_of("test", config.words_file))
    with pytest.raises(UserError, match=f"of {n} words without repeats; .* give more words"):
        config.control.mixture.evaluation("heldout_words", 4 * n * n, 0)


def test_files_are_read_once(config, tmp_path):
    path = words_file(tmp_path, *WORDS)
    before = words_of("test", path)
    Path(path).unlink()
    assert words_of("test", path) == before
