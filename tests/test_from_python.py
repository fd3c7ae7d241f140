"""The toolkit in a notebook: a few names, imported when they are used."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import antiimit_jax as aj
from antiimit_jax.errors import UserError
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.peft import save_adapter
from antiimit_jax.results import ROW_KEYS
from tests.random_decoder import random_adapter
from tests.tiny_model import write_tiny_model

ROOT = Path(__file__).resolve().parents[1]
WORDS = ["river", "apple"]
IMPORT = """
import sys, time
import antiimit_jax as aj
assert time.process_time() < 0.3, time.process_time()
assert {"load", "evaluate"} <= set(dir(aj))
heavy = {"jax", "numpy", "transformers", "antiimit_jax.from_python"} & set(sys.modules)
assert not heavy, heavy
aj.load
assert "jax" in sys.modules
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny", scale=0.3)


@pytest.fixture(scope="module")
def adapter(model) -> Path:
    lm, lora, folder = aj.load(str(model)).lm, LoraConfig(rank=2), model.parent / "adapter"
    save_adapter(folder, random_adapter(lm.cfg, lora, 1), lm.cfg, lora, "tiny")
    return folder


def test_the_import_takes_no_time_and_no_jax():
    command = [sys.executable, "-c", IMPORT]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="lode"):
        _ = aj.lode


def test_word_probs_of_one_prompt_and_of_a_list(model):
    lm = aj.load(str(model))
    request = "Say one word: river 70%, apple 30%."
    one = lm.word_probs(request, WORDS)
    assert list(one.words) == WORDS and request in one.prompt
    assert sum(one.words.values()) + one.residual == pytest.approx(1, abs=1e-6)
    both = lm.word_probs([request, "Say a word."], WORDS)
    assert len(both) == 2
    for word in WORDS:
        assert both[0].words[word] == pytest.approx(one.words[word], rel=1e-4)
        assert abs(np.log(both[1].words[word] / one.words[word])) > 1e-2
    assert lm.word_probs([], WORDS) == []
    lenient = lm.word_probs(request, WORDS, forms="lenient")
    assert all(lenient.words[word] > one.words[word] for word in WORDS)
    opened = lm.word_probs(request, WORDS, prefill="Word:")
    assert opened.prompt.endswith("Word:")
    raw = lm.word_probs(request, WORDS, raw=True, prefill=" Word:")
    assert raw.prompt == f"{request} Word:"
    with pytest.raises(UserError, match="ends in a space"):
        lm.word_probs(request, WORDS, prefill="Word: ")


def test_an_adapter_answers_otherwise(model, adapter):
    base, mine = aj.load(str(model)), aj.load(str(model), adapter=adapter)
    probabilities = [m.word_probs("Say one word.", WORDS).words["river"] for m in (base, mine)]
    assert abs(np.log(probabilities[0] / probabilities[1])) > 1e-2
    with pytest.raises(UserError, match="no-such-folder"):
        aj.load(str(model), adapter=model / "no-such-folder")


def test_evaluate_gives_a_table_of_rows(model, adapter):
    lm = aj.load(str(model), adapter=adapter)
    fields = {"control": {"splits": ["heldout_words"]}, "n_boot": 0}
    found = aj.evaluate(lm, suites=["control"], n_items=40, fields=fields)
    assert found.config.control.n_items == 40 and found.config.suites == ("control",)
    asked = found.config.control.mixture.evaluation("heldout_words", 40, seed=0)
    assert set(found.tables["items"]["item"]) == {item.item for item in asked}
    assert {row["stage"] for row in found.table if ":" not in row["stage"]} == {"base", "adapter"}
    assert all(set(ROW_KEYS) <= row.keys() for row in found.table)
    if importlib.util.find_spec("pandas"):
        import pandas

        frame = pandas.DataFrame(found.table)
        assert len(frame) == len(found.table) and set(ROW_KEYS) <= set(frame.columns)
    else:
        assert isinstance(found.table, list) and isinstance(found.table[0], dict)


def test_what_makes_no_sense_is_refused(model):
    lm = aj.load(str(model))
    with pytest.raises(UserError, match="contrl.*did you mean control"):
        aj.evaluate(lm, suites=["contrl"], n_items=4)
    with pytest.raises(UserError, match="control.n_items = 1"):
        aj.evaluate(lm, suites=["control"], n_items=1)
