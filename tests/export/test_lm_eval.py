"""Other people's software measures an export: lm-evaluation-harness on a task of local data."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antiimit_jax.export.folder import Form, export
from antiimit_jax.models.lora import LoraConfig, init_adapter
from antiimit_jax.models.peft import load_adapter, save_adapter
from antiimit_jax.models.weights import find_model, load_params
from antiimit_jax.text.tokenizer import load_tokenizer
from tests.models.llama_peer import our_logits
from tests.tiny_model import write_tiny_model

DOCS = [
    {"question": "Water is", "choices": ["wet", "dry as dust"], "answer": 0},
    {"question": "Two and two make", "choices": ["five", "four", "twenty-two"], "answer": 1},
    {"question": "Naïve café:", "choices": ["oui", "non"], "answer": 0},
]


@pytest.mark.large
def test_lm_eval_gives_the_choices_the_probabilities_that_we_do(tmp_path, monkeypatch):
    pytest.importorskip("lm_eval", reason='needs the extra: pip install -e ".[lm-eval]"')
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import lm_eval

    model = write_tiny_model(tmp_path / "model", scale=0.3)
    source = find_model(str(model))
    cfg, params = load_params(source)
    lora = LoraConfig(rank=2)
    fresh = init_adapter(jax.random.key(0), cfg, lora)
    rng = np.random.default_rng(0)
    tree = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), fresh)
    save_adapter(tmp_path / "a", tree, cfg, lora, str(model))
    export(source, tmp_path / "a", tmp_path / "out", Form(max_shard_size="1MB"), suites={})
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    task = {
        "task": "local_choices",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "docs.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    result = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(tmp_path / "out"), "dtype": "float32"},
        tasks=[task],
        device="cpu",
        batch_size=1,
        bootstrap_iters=0,
    )
    print(lm_eval.utils.make_table(result))

    tokenizer, adapter = load_tokenizer(model), load_adapter(tmp_path / "a", cfg)
    hits = []
    for doc, sample in zip(DOCS, result["samples"]["local_choices"]):
        ours = []
        for choice in doc["choices"]:
            context = tokenizer.encode_text(doc["question"])
            whole = tokenizer.encode_text(f"{doc['question']} {choice}")
            logits = our_logits(
                params, cfg, np.array([whole]), lora=adapter.tree, lora_scale=adapter.scale
            )
            logp = np.asarray(jax.nn.log_softmax(jnp.asarray(logits[0]), axis=-1))
            steps = range(len(context), len(whole))
            ours.append(sum(logp[t - 1, whole[t]] for t in steps))
        theirs = [float(given[0][0]) for given in sample["resps"]]
        np.testing.assert_allclose(theirs, ours, rtol=1e-4)
        hits.append(int(np.argmax(ours)) == doc["answer"])
    assert result["results"]["local_choices"]["acc,none"] == pytest.approx(np.mean(hits))
