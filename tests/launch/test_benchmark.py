"""The benchmark's peers do the same work as ours, and what it writes can be read by others."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.scoring.trie import word_query
from antiimit_jax.tasks.output_control import Mixture
from antiimit_jax.text.formats import text_prompt
from launch.benchmark import folders, ours, peers, workloads
from launch.benchmark.scorers import PaddedPaths, SharedPrefixes, word_probs, word_sums
from launch.benchmark.sides import BATCH_SIZES, Worker
from tests.launch.processes import ROOT, environment, launch, refused
from tests.tiny_model import write_tiny_model

ROW_KEYS = {"workload", "what", "peer", "ratio", "ours_s", "peer_s", "spread"}
FEW_TURNS = workloads.Workload(
    mixture=Mixture(shots=(0, 2), shot_weights=(1.0, 1.0)), n_items=10, training={"rows": 2}
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny", scale=0.3)


@pytest.fixture(scope="module")
def tiny(folder) -> LanguageModel:
    return load_language_model(str(folder))


def our_probs(lm: LanguageModel, queries) -> list[np.ndarray]:
    runner = Runner(lm, jax.local_devices()[:1])
    return [answer.q for answer in runner.word_probs(runner.base, queries)]


def scorers(model, lm: LanguageModel):
    stops = lm.terminators.standard
    return PaddedPaths(model, stops), SharedPrefixes(model, stops)


def assert_equal(found, expected, relative: float = 1e-3) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert a.shape == b.shape and (b > 0).all()
        np.testing.assert_allclose(a, b, rtol=relative, atol=0)


def test_each_peers_word_probabilities_are_ours_whatever_its_batch(tiny, folder):
    job = workloads.evaluation_job(tiny, FEW_TURNS, str(folder))
    texts = [  # lengths differ, paths differ, one word's event lies inside another's
        ("Say", ("rock", "rock.", "apple")),
        ("One of these, at random:", ("chrysanthemum", "café", "12", "a", "otherwise")),
    ]
    queries = list(job.queries) + [
        word_query(tiny.tokenizer, text_prompt(tiny.tokenizer, text), words)
        for text, words in texts
    ]
    expected = our_probs(tiny, queries)
    stops = tiny.terminators.standard
    for scorer in scorers(peers.load(str(folder)), tiny):
        for size in (1, 3, 32):
            assert_equal(word_probs(scorer, queries, size, stops), expected)
        assert 0 < scorer.used <= scorer.computed


def test_each_peers_word_probabilities_are_ours_on_the_real_model(smollm2, tmp_path):
    folder = folders.peer_folder(smollm2, tmp_path / "model")
    workload = workloads.Workload(mixture=Mixture(shots=(1,)), n_items=3)
    job = workloads.evaluation_job(smollm2, workload, str(folder))
    expected = our_probs(smollm2, job.queries)
    assert max(q.max() for q in expected) > 1e-3
    stops = smollm2.terminators.standard
    for scorer in scorers(peers.load(str(folder)), smollm2):
        assert_equal(word_probs(scorer, job.queries, 2, stops), expected)


def test_the_strong_peer_computes_a_shared_prefix_once(tiny, folder):
    workload = workloads.Workload(mixture=Mixture(shots=(2,)), n_items=8)
    job = workloads.evaluation_job(tiny, workload, str(folder))
    usual, strong = scorers(peers.load(str(folder)), tiny)
    for scorer in (usual, strong):
        word_probs(scorer, job.queries, 4, tiny.terminators.standard)
    whole = sum(len(query.prompt_ids) for query in job.queries)
    assert usual.used > 4 * whole  # each of four paths behind its own prompt
    assert strong.used < 0.6 * whole


@pytest.mark.parametrize("side", ["usual", "strong"])
def test_each_peers_training_steps_are_ours(tiny, folder, tmp_path, side):
    """The same losses step by step: the same gradients, clipping, AdamW and learning rates."""
    job = workloads.training_job(tiny, FEW_TURNS, str(folder), tmp_path / "adapter")
    step = ours.Training(job)
    others = [
        peers.build(dataclasses.replace(job, side=side, batch=size, threads=1)) for size in (4, 100)
    ]
    expected = [step.run() for _ in range(5)]
    assert expected[-1] < expected[0] - 0.01
    for other in others:
        assert [other.run() for _ in range(5)] == pytest.approx(expected, abs=1e-3)
    assert step.facts()["tokens"] < others[0].facts()["tokens"]


def test_examples_of_the_peers_are_the_items_of_our_packed_batch(tiny, folder, tmp_path):
    job = workloads.training_job(tiny, FEW_TURNS, str(folder), tmp_path / "adapter")
    batch = workloads.batch_source(tiny, job.train)(0)
    assert len(job.queries) == len(job.shares) == int(batch.n_items[0]) > 4
    used = batch.packed.word_item >= 0
    assert batch.target[used] == pytest.approx([t for shares in job.shares for t in shares])


def test_the_strong_peers_training_shares_a_prefix_and_its_gradients_are_the_usual_ones(
    tiny, folder, tmp_path
):
    """Gradients pass through the prefix that all items of a batch share."""
    workload = workloads.Workload(mixture=Mixture(shots=(4,)), training={"rows": 1})
    job = workloads.training_job(tiny, workload, str(folder), tmp_path / "adapter")
    model = peers.load(str(folder))
    tuned = peers.adapted(model, job.adapter)
    torch.manual_seed(0)
    trained = {name: p for name, p in tuned.named_parameters() if p.requires_grad}
    for name, parameter in trained.items():
        if "lora_B" in name:  # begins at zero, where the gradient of lora_A is zero as well
            torch.nn.init.normal_(parameter, std=0.3)
    losses, gradients, tokens = [], [], []
    for scorer in scorers(model, tiny):
        loss = 0.0
        for batch in scorer.batches(job.queries, 32):
            few = [job.queries[i] for i in batch]
            target = torch.tensor([share for i in batch for share in job.shares[i]])
            q = word_sums(few, job.stops, scorer.log_mass(few))
            loss = loss - torch.xlogy(target, q).sum() / len(job.queries)
        losses.append(loss.item())
        gradients.append(torch.autograd.grad(loss, list(trained.values())))
        tokens.append(scorer.used)
    prompts = [len(query.prompt_ids) for query in job.queries]
    assert len(prompts) > 8 and tokens[1] < sum(prompts) / 2 < tokens[0] / 4
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    for name, usual, strong in zip(trained, *gradients):
        assert usual.abs().max() > 1e-4, name
        torch.testing.assert_close(strong, usual, rtol=1e-3, atol=1e-3 * float(usual.abs().max()))


def test_few_shot_items_meet_eight_shot_sets_and_each_is_a_batch_of_the_strong_peer(tiny, folder):
    job = workloads.evaluation_job(tiny, workloads.WORKLOADS["given-fewshot"], str(folder))
    groups = SharedPrefixes(peers.load(str(folder)), job.stops).batches(job.queries, 32)
    assert len(groups) >= 8 and {len(group) for group in groups} == {4}
    assert sorted(i for group in groups for i in group) == list(range(len(job.queries)))


def test_a_model_that_the_peers_cannot_take_is_refused(tmp_path):
    other = write_tiny_model(tmp_path / "qwen2", model_type="qwen2")
    flags = (f"--model={other}", f"--workdir={tmp_path / 'w'}")
    refused(launch("benchmark", *flags), "--model", "qwen2", "llama")
    assert not (tmp_path / "w").exists()


def test_a_micro_batch_too_large_for_memory_is_not_tried(tiny, folder, tmp_path, monkeypatch):
    job = workloads.training_job(tiny, FEW_TURNS, str(folder), tmp_path / "adapter")
    peer = peers.build(dataclasses.replace(job, side="strong", threads=1))
    assert peer.trial(4) == 4
    assert peer.trial(2 * len(job.queries)) is None  # smaller ones hold all there is
    monkeypatch.setattr(peers, "available_mb", lambda: 1.0)
    assert peer.trial(4) is None


def test_a_peers_process_holds_no_jax():
    program = (
        "import sys\n"
        "from launch.benchmark.worker import module_of\n"
        "module_of('strong')\nassert 'peft' in sys.modules and 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, env=environment())


def test_a_side_that_dies_ends_in_one_line(tiny, tmp_path):
    job = workloads.evaluation_job(tiny, FEW_TURNS, str(tmp_path / "nowhere"))
    with Worker(job) as worker, pytest.raises(UserError, match="'ours' ended"):
        worker.call("run")


def test_the_program_writes_rows_figures_growth_tables_and_a_plot(folder, tmp_path):
    workdir = tmp_path / "made" / "here"
    result = launch(
        "benchmark",
        f"--model={folder}",
        f"--workdir={workdir}",
        "--what=train,evaluate",
        "--workloads=given-bare",
        "--peers=strong",
        "--n_items=5",
        "--repeats=1",
        "--growth=devices,one-prompt",
        timeout=800,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads((workdir / "benchmark.json").read_text())
    assert found["schema"] == 2
    assert {"jax", "torch", "transformers", "peft"} <= found["machine"]["versions"].keys()
    assert found["machine"]["matmul_gflops_float32"]["median"] > 0
    kinds = [(row["workload"], row["what"], row["peer"]) for row in found["rows"]]
    assert kinds == [("given-bare", w, "strong") for w in ("train", "evaluate")]
    for row in found["rows"]:
        assert ROW_KEYS <= row.keys() and row["note"] is None and row["difference"] <= 1e-3
        assert row["ratio"] == pytest.approx(row["peer_s"] / row["ours_s"])
        for side in ("ours", "peer"):
            least, most = row["spread"][side]
            assert 0 < least <= row[f"{side}_s"] <= most
    assert [(one["what"], one["side"]) for one in found["figures"]] == [
        ("train", "ours"),
        ("train", "ours bfloat16"),
        ("train", "strong"),
        ("evaluate", "ours"),
        ("evaluate", "strong"),
    ]
    for one in found["figures"]:
        assert 0 < one["matmul_share"] < 1 and 0 <= one["padded_share"] < 1
        assert 0 < one["loaded_memory_mb"] <= one["peak_memory_mb"]
        assert one["items_per_s"] == pytest.approx(one["n_items"] / one["seconds"])
        assert one["first_s"] > 0 and one["tokens_per_s"] > 0
        assert (one.get("compile_s", 0) > 0) == one["side"].startswith("ours")
        assert one.get("batch") in ((None,) if one["side"].startswith("ours") else BATCH_SIZES)
    assert [row["axis"] for row in found["behind_one_prompt"]] == [
        "words 2 to 5, 0 turns",
        "forms strict to lenient, 0 turns",
        "words 2 to 5, 11 turns",
        "forms strict to lenient, 11 turns",
    ]
    (grown,) = found["growth"]
    assert grown["devices"] == [1, 8] and grown["time_expected"] == 0
    assert (workdir / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    tables = (workdir / "benchmark.md").read_text()
    for part in ("given-bare", "ours bfloat16", "forms strict to lenient", "devices"):
        assert part in tables and part in result.stdout


@pytest.mark.parametrize(
    "flags, parts",
    [
        (("--what=train,evaluat",), ("evaluat", "did you mean evaluate")),
        (("--workloads=given-bar",), ("given-bar", "did you mean given-bare")),
        (("--peers=stronk",), ("stronk", "did you mean strong")),
        (("--growth=word",), ("word", "did you mean words")),
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
