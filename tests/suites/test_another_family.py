"""Every suite runs on a model of another family with another, released tokenizer."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import load_language_model
from antiimit_jax.reporting import run_files
from antiimit_jax.suites import SUITES
from tests.suites.small import run_of_all, small_config
from tests.tiny_model import write_tiny_model

TOKENIZER = Path(__file__).parents[2] / ".venv" / "tokenizers" / "qwen3"


@pytest.mark.large
@pytest.mark.skipif(not TOKENIZER.is_dir(), reason="released tokenizers are not installed")
def test_all_suites_run_on_qwen2_with_its_tokenizer(tmp_path):
    shape = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 151_936}
    model = write_tiny_model(tmp_path / "tiny", scale=0.3, tokenizer=TOKENIZER, **shape)
    lm = load_language_model(str(model))
    assert lm.cfg.family == "qwen2"
    runner = Runner(lm, jax.local_devices()[:1])
    folder = run_of_all(small_config(model), lm, runner, tmp_path)
    rows = run_files.read_metrics(folder)["rows"]
    known = lambda stage: {
        row["suite"] for row in rows if row["stage"] == stage and row["value"] is not None
    }
    of_base, of_others = {"precision"}, {"drift"}  # figures of the base alone, and of all others
    assert known("base") == set(SUITES) - of_others and known("mine") == set(SUITES) - of_base
    assert (folder / "report.html").stat().st_size > 10_000
