"""How fast, against transformers and PEFT as they are commonly used, on the same machine and items.

    python -m launch.benchmark --what=train,evaluate --workdir=runs/benchmark
    python -m launch.benchmark --what=evaluate --workload=given-bare --n_items=32 --repeats=3 \\
        --workdir=runs/short

Both sides run on two cores with the same weights, items, prompts and token paths, in turns. A peer
whose word probabilities (or, in training, whose loss) differ from ours by more than 0.001 does not
count. Evaluation is timed from token ids to probabilities; a training step from a made batch to
moved adapters. Writes benchmark.json and benchmark.md into --workdir and replaces those of an
earlier run.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.models.catalog import near_misses
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.lora import LoraConfig, init_adapter, train_mask
from antiimit_jax.models.weights import cast_matrices
from antiimit_jax.reporting import run_files
from antiimit_jax.scoring.batching import plan
from antiimit_jax.scoring.trie import WordQuery, word_query
from antiimit_jax.tasks.output_control import Mixture, evaluation_items
from antiimit_jax.training.batches import BatchSource, TrainBatch
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.loop import jit_step
from antiimit_jax.training.step import init_state, make_optimizer, make_schedule
from launch import benchmark_rows as rows
from launch import cli


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is asked, and how many items of it are evaluated."""

    mixture: Mixture
    n_items: int


WORKLOADS = {
    "given-bare": Workload(mixture=Mixture(ks=(2,), shots=(0,)), n_items=128),
}
WHAT = ("evaluate", "train")
_CORES = 2
_TRIAL_ITEMS = 32  # that the peer's batch size is chosen on
_FORMS, _TERMINATORS, _SEED = "strict", "standard", 0

flags.DEFINE_list("what", list(WHAT), f"What to time, of {', '.join(WHAT)}.")
flags.DEFINE_list("workload", ["given-bare"], f"On what, of {', '.join(WORKLOADS)}.")
flags.DEFINE_integer("repeats", 5, "Times of each side, in turns.", lower_bound=1)
flags.DEFINE_integer("n_items", None, "Items of an evaluation; else the workload's.", lower_bound=1)
flags.DEFINE_string("model", "smollm2-135m-instruct", "Alias, hub id, folder or .gguf file.")
flags.DEFINE_string("workdir", None, "Folder for the results, made if absent.")


def main() -> None:
    what = _known("what", WHAT)
    names = _known("workload", WORKLOADS)
    workdir = Path(cli.needed("workdir")).expanduser()
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir}: is a file; name a folder")
    peer = _peer()
    cores = rows.hold_cores(_CORES)
    if jax.default_backend() != "cpu":
        raise UserError("the peer runs on the CPU: set JAX_PLATFORMS=cpu for a fair comparison")
    peer.use_threads(cores)
    workdir.mkdir(parents=True, exist_ok=True)
    cli.say(f"loading {cli.FLAGS.model}")
    lm = load_language_model(cli.FLAGS.model)
    rate = rows.MatmulRate()
    found = []
    for name in names:
        workload = WORKLOADS[name]
        if "evaluate" in what:
            rate.measure()
            count = cli.FLAGS.n_items or workload.n_items
            queries = evaluation_queries(lm, workload, count)
            found.append(evaluate(lm, name, queries, cli.FLAGS.repeats))
        if "train" in what:
            rate.measure()
            found += train(lm, name, TrainConfig(mixture=workload.mixture), cli.FLAGS.repeats)
    rate.measure()
    place = rows.machine(cores, rate, peer.VERSIONS)
    result = {"schema": rows.SCHEMA, "model": cli.FLAGS.model, "machine": place, "rows": found}
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    run_files.write_text(workdir / "benchmark.json", text)
    run_files.write_text(workdir / "benchmark.md", rows.markdown_table(found, place))
    print(rows.plain_table(found), end="")
    print(f"float32 products: {place['matmul_gflops_float32']['median']:.0f} GFLOP/s")
    print(f"written: {workdir / 'benchmark.json'}, {workdir / 'benchmark.md'}")


def _peer() -> ModuleType:
    """The peer's module, imported late: torch takes seconds and need not be installed."""
    try:
        return importlib.import_module("launch.benchmark_peer")
    except ImportError as error:
        raise UserError(
            f"the peer needs torch and peft ({error}); `make test` installs them"
        ) from error


def _known(flag: str, known) -> list[str]:
    given = cli.needed(flag)
    unknown = [f"{name!r}{near_misses(name, known)}" for name in given if name not in known]
    if unknown or not given:
        wrong = ", ".join(unknown) or "empty"
        raise UserError(f"--{flag}: {wrong}; use some of {', '.join(known)}")
    return list(dict.fromkeys(given))


def evaluation_queries(lm: LanguageModel, workload: Workload, count: int) -> list[WordQuery]:
    """`count` questions of a workload."""
    items = evaluation_items(workload.mixture, "heldout_words", count, _SEED)[:count]
    return [
        word_query(lm.tokenizer, lm.prompt(item.messages), item.words, forms=_FORMS)
        for item in items
    ]


def evaluate(
    lm: LanguageModel, name: str, queries: Sequence[WordQuery], repeats: int
) -> rows.Row:
    """The row of one workload's word probabilities under the base model."""
    stops = lm.terminators.mask(_TERMINATORS)
    runner = Runner(lm)
    answers: dict[str, list[np.ndarray]] = {}

    def ours() -> None:
        found = runner.word_probs(runner.base, queries, terminators=_TERMINATORS)
        answers["ours"] = [answer.q for answer in found]

    cli.say(f"{name}, evaluate: compiling")
    first_s = rows.seconds(ours)
    cli.say(f"{name}, evaluate: the peer's best batch")
    scorer = _peer().Scorer(_peer().llama(lm.cfg, lm.params), stops)
    few = queries[:_TRIAL_ITEMS]
    scorer.word_probs(few[:2], 2)
    size, trials = rows.best_batch(lambda size: scorer.word_probs(few, size), len(few))

    def peer() -> None:
        answers["peer"] = scorer.word_probs(queries, size)

    bar = cli.bar(f"{name}, evaluate", 2 * repeats)
    times = rows.interleave({"ours": ours, "peer": peer}, repeats, bar)
    difference = max(
        float(np.abs(a - b).max()) for a, b in zip(answers["ours"], answers["peer"], strict=True)
    )
    planned = plan(queries, stops)
    used = sum(work.used_tokens for work in planned)
    return rows.make_row(
        workload=name,
        what="evaluate",
        ours=times["ours"],
        peer=times["peer"],
        n_items=len(queries),
        ours_tokens=used,
        peer_tokens=sequence_tokens(queries),
        agrees=difference <= rows.TOLERANCE,
        ours_dtype="float32",
        ours_padded_share=1 - used / sum(work.all_tokens for work in planned),
        ours_first_s=first_s,
        peer_batch=size,
        peer_trials_s=trials,
        difference=difference,
    )


class OurStep:
    """Our compiled training step, taken again and again on one batch."""

    def __init__(
        self, lm: LanguageModel, batch: TrainBatch, adapter: Any, cfg: TrainConfig, lora: LoraConfig
    ) -> None:
        """`adapter` is a host tree and is copied."""
        optimizer = make_optimizer(cfg, cfg.steps, train_mask(adapter, lm.cfg, lora))
        decoder = Decoder(lm.cfg, lora_scale=lora.scale, remat=cfg.remat)
        self._step = jit_step(decoder, lm.terminators.mask(_TERMINATORS), cfg, optimizer)
        self._state = init_state(jax.tree.map(jnp.array, adapter), optimizer)
        self._params = jax.device_put(cast_matrices(lm.params, cfg.dtype))
        self._batch = batch
        self.losses: list[float] = []

    def __call__(self) -> None:
        """One step; its loss is added to `losses`."""
        state, metrics = self._step(self._state, self._params, self._batch)
        self._state = jax.block_until_ready(state)
        self.losses.append(float(metrics["loss"]))


def train(
    lm: LanguageModel, name: str, cfg: TrainConfig, repeats: int, lora: LoraConfig = LoraConfig()
) -> list[rows.Row]:
    """The rows of one workload's training step: ours in float32, and with bfloat16 products.

    The anchor is off on both sides: it is a term of its own, which the peer does not have.
    """
    cfg = dataclasses.replace(cfg, anchor_weight=0.0, dtype="float32")
    stops = lm.terminators.mask(_TERMINATORS)
    source = BatchSource(
        cfg,
        lm.tokenizer,
        stops,
        prompt_format=lm.prompt_format,
        forms=_FORMS,
        seed=_SEED,
        placebo=False,
    )
    batch, examples = source(0), source.examples(0)
    adapter = jax.tree.map(np.array, init_adapter(jax.random.key(_SEED), lm.cfg, lora))

    cli.say(f"{name}, train: compiling")
    ours, first_s = {}, {}
    for dtype in ("float32", "bfloat16"):
        chosen = dataclasses.replace(cfg, dtype=dtype)
        ours[dtype] = OurStep(lm, batch, adapter, chosen, lora)
        first_s[dtype] = rows.seconds(ours[dtype])

    cli.say(f"{name}, train: the peer's best micro-batch")
    model = _peer().llama(lm.cfg, lm.params)
    trainer = _peer().Trainer(model, stops, adapter, lm.cfg, lora, cfg)
    few = examples[:_TRIAL_ITEMS]
    size, trials = rows.best_batch(
        lambda size: trainer.gradients(few, size), len(few), lambda size: trainer.fits(few, size)
    )
    trainer.forget()
    schedule = make_schedule(cfg, cfg.steps)
    losses: list[float] = []

    def peer() -> None:
        losses.append(trainer.step(examples, size, float(schedule(len(losses)))))

    bar = cli.bar(f"{name}, train", 3 * repeats)
    times = rows.interleave(ours | {"peer": peer}, repeats, bar)
    forest = batch.packed.forest
    used = int((forest.subtree_end > 0).sum() + forest.trunk_length.sum())
    notes = {
        "float32": "",
        "bfloat16": "not like for like: ours multiplies in bfloat16, the peer in float32",
    }
    return [
        rows.make_row(
            workload=name,
            what="train",
            ours=times[dtype],
            peer=times["peer"],
            n_items=len(examples),
            ours_tokens=used,
            peer_tokens=sequence_tokens([query for query, _ in examples]),
            agrees=abs(ours["float32"].losses[0] - losses[0]) <= rows.TOLERANCE,
            note=note,
            ours_dtype=dtype,
            ours_padded_share=1 - used / (forest.tokens.size + forest.trunk_tokens.size),
            ours_first_s=first_s[dtype],
            peer_batch=size,
            peer_trials_s=trials,
            difference=abs(ours[dtype].losses[0] - losses[0]),
        )
        for dtype, note in notes.items()
    ]


def sequence_tokens(queries: Sequence[WordQuery]) -> int:
    """Tokens of all paths, each behind its own prompt."""
    return sum(
        len(query.prompt_ids) + len(path.tokens) for query in queries for path in query.paths
    )


if __name__ == "__main__":
    cli.run(main)
