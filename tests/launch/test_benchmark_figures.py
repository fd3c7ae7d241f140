"""The benchmark's figures: operations, turns, batch sizes, memory, rows, exponents."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from antiimit_jax.language_model import load_language_model
from antiimit_jax.models.lora import LoraConfig, init_adapter
from antiimit_jax.models.peft import save_adapter
from antiimit_jax.scoring.trie import FormPath, WordQuery
from launch.benchmark import growth, peers, results, sides, work
from launch.benchmark.memory import MemoryWatch, held_mb
from tests.tiny_model import write_tiny_model

CASE = dict(workload="w", what="evaluate", n_items=10)


def query(prompt, *paths) -> WordQuery:
    forms = tuple(FormPath("", path, i) for i, path in enumerate(paths))
    return WordQuery(tuple(prompt), forms, len(paths))


def one_by_one(model, queries):
    """Every token of the tree once, behind a cache of what it sees; the head where it is needed."""
    seen: dict[tuple, tuple] = {}  # a beginning -> its keys and values, and its logits
    read = []

    def at(tokens):
        if tokens not in seen:
            parent = at(tokens[:-1])[0] if len(tokens) > 1 else None
            cache = DynamicCache([(k, v) for k, v in parent] if parent else None)
            hidden = model.model(
                input_ids=torch.tensor([tokens[-1:]]),
                past_key_values=cache,
                use_cache=True,
                position_ids=torch.tensor([[len(tokens) - 1]]),
            ).last_hidden_state
            seen[tokens] = [(layer.keys, layer.values) for layer in cache.layers], hidden
        return seen[tokens]

    for q in queries:
        for path in q.paths:
            for n in range(len(q.prompt_ids), len(q.prompt_ids) + len(path.tokens) + 1):
                beginning = (*q.prompt_ids, *path.tokens)[:n]
                if beginning not in read:
                    at(beginning)
                    read.append(beginning)
    return model.lm_head(torch.cat([seen[tokens][1] for tokens in read]))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = write_tiny_model(tmp_path_factory.mktemp("work") / "tiny", num_hidden_layers=3)
    lm = load_language_model(str(folder))
    model = peers.load(str(folder))
    model.set_attn_implementation("eager")  # products that torch counts one by one
    return lm, model


def test_operations_of_a_forward_pass_are_those_torch_counts(tiny):
    lm, model = tiny
    queries = [query((5, 6, 7), (8,), (8, 9)), query((5, 6, 4, 3), (9, 9, 9)), query((5,), (6,))]
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        logits = one_by_one(model, queries)
    need = work.needed(queries)
    assert need.logit_positions == len(logits) == 3 + 4 + 2
    assert need.tokens == 3 + 2 + 2 + 3
    assert work.flops(lm.cfg, queries) == counter.get_total_flops()


def test_operations_of_a_training_step_are_those_torch_counts(tiny, tmp_path):
    """With prompts of one token, a distribution is read behind every token."""
    lm, model = tiny
    lora = LoraConfig(rank=3)
    adapter = jax.tree.map(np.array, init_adapter(jax.random.key(0), lm.cfg, lora))
    save_adapter(tmp_path / "adapter", adapter, lm.cfg, lora, "")
    tuned = peers.adapted(model, str(tmp_path / "adapter"))
    queries = [query((5,), (8, 4), (8, 9, 9), (7,)), query((6,), (6,))]
    with FlopCounterMode(display=False) as counter:
        one_by_one(tuned.get_base_model(), queries).square().sum().backward()
    assert work.flops(lm.cfg, queries, lora) == counter.get_total_flops()


class Stand:
    """Answers like a side's process, at a speed and with room of its own."""

    def __init__(self, seconds, room=10**9):
        self.seconds, self.room, self.calls = seconds, room, []

    def call(self, name, size=None):
        self.calls.append((name, size))
        if name == "trial":
            return self.seconds[size] * size, size if size <= self.room else None
        return self.seconds, name

    def close(self):
        self.calls.append(("closed", None))


def test_all_sides_take_turns_and_long_ones_stop_early():
    all_sides = {"ours": Stand(1.0), "usual": Stand(7.0), "strong": Stand(3.0)}
    done = []
    turns = sides.interleave(all_sides, 3, 10.0, done.append)
    times = {name: own.seconds for name, own in turns.items()}
    assert times == {"ours": [1.0] * 3, "usual": [7.0] * 2, "strong": [3.0] * 3}
    assert len(turns["usual"].results) == 2 and sum(done) == 9
    for name, side in all_sides.items():
        asked = [call for call, _ in side.calls]
        assert asked == [*["run"] * len(times[name]), "facts", "closed"]


def test_the_best_batch_is_the_fastest_an_item_of_those_that_fit():
    falling = Stand({1: 6.0, 2: 5.0, 4: 4.0, 8: 3.0, 16: 2.0, 32: 1.0})
    assert sides.best_batch(falling)[0] == 32
    falling.room = 16
    assert sides.best_batch(falling) == (16, {1: 6.0, 2: 5.0, 4: 4.0, 8: 3.0, 16: 2.0})
    rising = Stand({1: 1.1, 2: 1.05, 4: 1.0, 8: 1.05, 16: 2.0, 32: 0.1})
    assert sides.best_batch(rising) == (4, {1: 1.1, 2: 1.05, 4: 1.0, 8: 1.05, 16: 2.0})
    assert rising.calls[-1] == ("trial", 16)
    early = Stand({1: 1.0, 2: 1.5, 4: 0.9, 8: 3.0})
    assert sides.best_batch(early) == (4, early.seconds)  # a busy moment at first ends nothing


def test_a_peer_that_answers_otherwise_does_not_count():
    times = dict(ours_s=[2.0, 1.0, 4.0], peer_s=[9.0, 6.0, 5.0])
    counted = results.make_row(CASE, "usual", **times, difference=9e-4)
    assert (counted["ours_s"], counted["peer_s"], counted["ratio"]) == (2.0, 6.0, 3.0)
    assert counted["spread"] == {"ours": [1.0, 4.0], "peer": [5.0, 9.0]}
    assert counted["note"] is None
    for difference in (1.1e-3, math.nan, math.inf):
        row = results.make_row(CASE, "usual", **times, difference=difference)
        assert row["peer_s"] is row["ratio"] is row["spread"]["peer"] is None
        assert "does not count" in row["note"] and row["ours_s"] == 2.0


def test_small_probabilities_are_compared_relatively_and_losses_step_by_step():
    q = [np.array([1e-6, 0.5])]
    near = [np.array([1.002e-6, 0.5])]
    assert results.distance([q], [near]) == pytest.approx(2e-3, rel=0.01)
    assert results.distance([q], [q]) == 0
    assert math.isnan(results.distance([q], [[np.array([np.nan, 0.5])]]))
    assert results.distance([5.0, 4.0, 3.0], [5.0, 4.5]) == 0.5


def test_figures_are_per_second_and_by_the_machines_own_rate():
    figures = results.make_figures(
        dict(workload="w", what="train", n_items=6),
        "ours",
        seconds=[2.0, 4.0, 3.0],
        flops=3e11,
        rate=2e11,
        facts={"tokens": 900, "padded_share": 0.1},
    )
    assert (figures["seconds"], figures["spread"]) == (3.0, [2.0, 4.0])
    assert (figures["items_per_s"], figures["tokens_per_s"]) == (2.0, 300.0)
    assert figures["matmul_share"] == pytest.approx(0.5)


def test_the_memory_watch_sees_what_is_gone_again_and_no_mapped_files(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(bytes(300 << 20))
    program = (
        "import mmap, time\n"
        f"with open({str(file)!r}, 'rb') as opened:\n"
        "    mapped = mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)\n"
        "    sum(mapped[i] for i in range(0, len(mapped), 4096))\n"
        "    held = b'1' * (200 << 20)\n"
        "    time.sleep(0.4)\n"
        "    del held\n"
        "print(flush=True)\ntime.sleep(60)"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    run = [sys.executable, "-c", program]  # an allocator that gives back what is free
    with subprocess.Popen(run, stdout=subprocess.PIPE, env=plain) as process:
        watch = MemoryWatch(process.pid)
        process.stdout.readline()
        time.sleep(0.1)
        now = held_mb(process.pid)
        process.terminate()
    watch.close()
    assert 200 < watch.peak_mb < 280 and now < 80


def test_growth_is_told_by_exponents():
    figure = lambda seconds, held: {
        "seconds": seconds,
        "spread": [seconds, seconds],
        "devices": 1,
        "expected_bytes": held,
        "memory_mb": held + 100.0,
        "started_mb": 100.0,
    }
    point = dataclasses.make_dataclass("Point", ["flops"])
    row = growth._row(
        "evaluate",
        "batch",
        {"before": point(1.0), "after": point(4.0)},
        {"before": figure(3.0, 50.0), "after": figure(6.0, 50.0)},
        2.0,
    )
    assert row["time_exponent"] == pytest.approx(1.0) and row["time_expected"] == pytest.approx(2.0)
    assert row["memory_mb"] == [50.0, 50.0]
    assert row["memory_exponent"] == row["memory_expected"] == 0
