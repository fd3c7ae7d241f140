"""The benchmark's peer does the same work as ours, and what it writes can be read by others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.models.lora import LoraConfig, init_adapter
from antiimit_jax.scoring.trie import word_query
from antiimit_jax.text.formats import text_prompt
from antiimit_jax.training.batches import BatchSource
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.step import make_schedule
from tests.launch.processes import launch, refused
from tests.tiny_model import write_tiny_model

ROW_KEYS = {"workload", "what", "peer", "ratio", "ours_s", "peer_s", "spread"}
FEW = TrainConfig(groups=1, rows=2, warmup_steps=2, anchor_weight=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny", scale=0.3)


@pytest.fixture(scope="module")
def tiny(folder) -> LanguageModel:
    return load_language_model(str(folder))


@pytest.fixture(scope="module")
def benchmark():
    """The program as a module, and its peer; flags are defined once in a process."""
    from launch import benchmark as module
    from launch import benchmark_peer, benchmark_rows

    torch.set_num_threads(1)
    return module, benchmark_peer, benchmark_rows


def ours(lm: LanguageModel, queries) -> list[np.ndarray]:
    runner = Runner(lm, jax.local_devices()[:1])
    return [answer.q for answer in runner.word_probs(runner.base, queries)]


def assert_equal(found, expected, relative: float = 1e-3) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert a.shape == b.shape and (b > 0).all()
        np.testing.assert_allclose(a, b, rtol=relative, atol=0)


def test_the_peers_word_probabilities_are_ours_whatever_its_batch(tiny, benchmark):
    module, peer, _ = benchmark
    queries = module.evaluation_queries(tiny, module.WORKLOADS["given-bare"], 8)
    queries += [  # lengths differ, paths differ, one word's event lies inside another's
        word_query(tiny.tokenizer, text_prompt(tiny.tokenizer, text), words)
        for text, words in (
            ("Say", ("rock", "rock.", "apple")),
            ("One of these, at random:", ("chrysanthemum", "café", "12", "a", "otherwise")),
        )
    ]
    expected = ours(tiny, queries)
    scorer = peer.Scorer(peer.llama(tiny.cfg, tiny.params), tiny.terminators.standard)
    for size in (1, 3, 32):
        assert_equal(scorer.word_probs(queries, size), expected)


def test_the_peers_word_probabilities_are_ours_on_the_real_model(smollm2, benchmark):
    module, peer, _ = benchmark
    queries = module.evaluation_queries(smollm2, module.WORKLOADS["given-bare"], 3)
    scorer = peer.Scorer(peer.llama(smollm2.cfg, smollm2.params), smollm2.terminators.standard)
    found = scorer.word_probs(queries, 2)
    assert_equal(found, ours(smollm2, queries))
    assert max(q.max() for q in found) > 1e-3  # else the benchmark's own check would see nothing


def test_the_peers_training_steps_are_ours(tiny, benchmark):
    """The same losses step by step: the same gradients, clipping, AdamW and learning rates."""
    module, peer, _ = benchmark
    lora = LoraConfig(rank=3, alpha=5.0, targets=("q", "o", "down"), first_layer=1)
    source = BatchSource(
        FEW, tiny.tokenizer, tiny.terminators.standard, prompt_format=tiny.prompt_format,
        forms="strict", seed=0, placebo=False,
    )  # fmt: skip
    batch, examples = source(0), source.examples(0)
    assert len(examples) == int(batch.n_items) > 4
    adapter = jax.tree.map(np.array, init_adapter(jax.random.key(0), tiny.cfg, lora))
    step = module.OurStep(tiny, batch, adapter, FEW, lora)
    model = peer.llama(tiny.cfg, tiny.params)
    trainer = peer.Trainer(model, tiny.terminators.standard, adapter, tiny.cfg, lora, FEW)
    schedule = make_schedule(FEW, FEW.steps)
    losses = []
    for n in range(5):
        step()
        losses.append(trainer.step(examples, (4, 100)[n % 2], float(schedule(n))))
    assert losses[-1] < losses[0] - 0.01
    assert step.losses == pytest.approx(losses, abs=1e-3)
    assert trainer.fits(examples, 4) and not trainer.fits(examples, 10**9)


def test_examples_are_the_items_of_the_packed_batch(tiny):
    cfg = dataclasses.replace(FEW, groups=2, accumulate=2)
    source = BatchSource(
        cfg, tiny.tokenizer, tiny.terminators.standard, prompt_format=tiny.prompt_format,
        forms="strict", seed=1, placebo=True,
    )  # fmt: skip
    batch, examples = source(3), source.examples(3)
    assert len(examples) == int(batch.n_items)
    used = batch.packed.word_item >= 0
    assert batch.target[used] == pytest.approx([t for _, shares in examples for t in shares])


def test_both_sides_take_turns(benchmark):
    _, _, rows = benchmark
    order, done = [], []
    runs = {name: lambda name=name: order.append(name) for name in ("ours", "peer")}
    times = rows.interleave(runs, 3, done.append)
    assert order == ["ours", "peer"] * 3 and sum(done) == 6
    assert {name: len(taken) for name, taken in times.items()} == {"ours": 3, "peer": 3}


def test_a_peer_that_answers_otherwise_does_not_count(benchmark):
    _, _, rows = benchmark
    common = dict(
        workload="w", what="evaluate", ours=[2.0, 1.0, 4.0], peer=[9.0, 6.0, 5.0], n_items=10,
        ours_tokens=100, peer_tokens=600, ours_dtype="float32",
    )  # fmt: skip
    counted, refused_row = (rows.make_row(agrees=agrees, **common) for agrees in (True, False))
    assert (counted["ours_s"], counted["peer_s"], counted["ratio"]) == (2.0, 6.0, 3.0)
    assert counted["spread"] == {"ours": [1.0, 4.0], "peer": [5.0, 9.0]}
    assert (counted["ours_items_per_s"], counted["peer_tokens_per_s"]) == (5.0, 100.0)
    assert counted["note"] is None
    for key in ("peer_s", "ratio", "peer_items_per_s", "peer_tokens_per_s"):
        assert refused_row[key] is None
    assert refused_row["spread"]["peer"] is None and refused_row["ours_s"] == 2.0
    assert "does not count" in refused_row["note"]
    assert "does not count" in rows.plain_table([counted, refused_row])


def test_the_best_batch_is_the_fastest_that_fits_and_can_be_filled(benchmark):
    _, _, rows = benchmark
    tried = []

    def trial(size: int) -> None:
        tried.append(size)
        sum(range(2_000_000 if size != 8 else 0))

    assert rows.best_batch(trial, 100)[0] == 8 and tried == [4, 8, 16, 32]
    assert set(rows.best_batch(trial, 12)[1]) == {4, 8, 16}
    assert set(rows.best_batch(trial, 1)[1]) == {4}
    assert set(rows.best_batch(trial, 100, lambda size: size <= 8)[1]) == {4, 8}


def test_the_program_writes_its_rows_and_tables(folder, tmp_path):
    workdir = tmp_path / "made" / "here"
    result = launch(
        "benchmark", f"--model={folder}", f"--workdir={workdir}", "--what=train,evaluate",
        "--n_items=5", "--repeats=1", timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads((workdir / "benchmark.json").read_text())
    assert found["schema"] == 1
    assert {"jax", "torch", "transformers", "peft"} <= found["machine"]["versions"].keys()
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["matmul_gflops_float32"]["median"] > 0
    kinds = [(row["workload"], row["what"], row["ours_dtype"]) for row in found["rows"]]
    assert kinds == [
        ("given-bare", "evaluate", "float32"),
        ("given-bare", "train", "float32"),
        ("given-bare", "train", "bfloat16"),
    ]
    for row in found["rows"]:
        assert ROW_KEYS <= row.keys() and row["peer"] == "usual" and row["repeats"] == 1
        assert row["ratio"] == pytest.approx(row["peer_s"] / row["ours_s"])
        for side in ("ours", "peer"):
            least, most = row["spread"][side]
            assert 0 < least <= row[f"{side}_s"] <= most
        assert row["peer_batch"] in (4, 8, 16, 32)
        assert 0 <= row["ours_padded_share"] < 1
        assert 0 < row["ours_tokens"] < row["peer_tokens"]
    evaluated, trained, narrow = found["rows"]
    assert evaluated["n_items"] == 5
    assert evaluated["difference"] <= 1e-3 and trained["difference"] <= 1e-3
    assert "bfloat16" in narrow["note"]
    table = (workdir / "benchmark.md").read_text().splitlines()
    assert len({line.count("|") for line in table[:5]}) == 1
    assert result.stdout.count("given-bare") >= 3


@pytest.mark.parametrize(
    "flags, parts",
    [
        (("--what=train,evaluat",), ("evaluat", "did you mean evaluate")),
        (("--workload=given-bar",), ("given-bar", "did you mean given-bare")),
        (("--repeats=0",), ("repeats",)),
        (("--n_items=0",), ("n_items",)),
    ],
)
def test_flags_that_make_no_sense_end_in_one_line(flags, parts, tmp_path):
    refused(launch("benchmark", f"--workdir={tmp_path / 'w'}", *flags), *parts)
    assert not (tmp_path / "w").exists()


def test_a_missing_or_wrong_workdir_is_refused(tmp_path):
    refused(launch("benchmark"), "--workdir")
    (tmp_path / "file").write_text("")
    refused(launch("benchmark", f"--workdir={tmp_path / 'file'}"), "is a file")
