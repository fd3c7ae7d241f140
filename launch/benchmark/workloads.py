"""What the benchmark asks: the standard workloads, as jobs for our side."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from antiimit_jax.language_model import LanguageModel
from antiimit_jax.models.lora import init_adapter
from antiimit_jax.models.peft import save_adapter
from antiimit_jax.processor import MatmulRate
from antiimit_jax.scoring.trie import WordQuery, word_query
from antiimit_jax.tasks.output_control import Item, Mixture
from antiimit_jax.tasks.templates import TEMPLATES
from antiimit_jax.training.batches import BatchSource
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.step import make_schedule
from launch.benchmark.job import FORMS, OURS, SEED, TERMINATORS, WHAT, Descent, Job
from launch.benchmark.ours import LORA, asking

_RATES = 64  # steps that a peer is told the learning rates of
_TRAINING = dict(groups=1, accumulate=2, rows=4, row_tokens=128, dtype="float32", anchor_weight=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """What all measurements have in common."""

    lm: LanguageModel
    model: str  # what ours loads it by
    peers: Sequence[str]
    repeats: int
    n_items: int | None  # of an evaluation; else the workload's
    cores: int
    rate: MatmulRate
    scratch: Path  # for the models and the adapters that all sides start from


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is asked, how many items are evaluated, and how a training step is filled."""

    mixture: Mixture
    n_items: int = 0
    what: tuple[str, ...] = ("evaluate",)  # by default
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # over _TRAINING
    random_model: bool = False  # the shape of Llama 3.2 1B with random weights


_ALL = tuple(range(len(TEMPLATES)))
_MIXED = Mixture(
    templates=_ALL, ks=(2, 3, 4, 5), k_weights=(1.0,) * 4, shots=(0, 2, 11), shot_weights=(1.0,) * 3
)
WORKLOADS = {
    # eleven turns before the question, each of eight beginnings before four items
    "given-fewshot": Workload(
        mixture=Mixture(shots=(11,)), n_items=32, what=WHAT, training={"rows": 2}
    ),
    "given-bare": Workload(
        mixture=Mixture(), n_items=64, what=WHAT, training={"rows": 8, "row_tokens": 64}
    ),
    "five-words": Workload(mixture=Mixture(ks=(5,)), n_items=32, training={"row_tokens": 192}),
    "mixed": Workload(mixture=_MIXED, n_items=24, training={"rows": 2, "row_tokens": 192}),
    "given-bare-1b": Workload(
        mixture=Mixture(), n_items=4, training={"accumulate": 1, "rows": 1}, random_model=True
    ),
}
STANDARD = ("given-bare", "given-fewshot", "five-words", "mixed")


def items(mixture: Mixture, count: int) -> list[Item]:
    """The first evaluation items of a mixture."""
    return mixture.evaluation("heldout_words", count, SEED)[:count]


def item_query(lm: LanguageModel, item: Item, forms: str = FORMS) -> WordQuery:
    """An item's question."""
    return word_query(lm.tokenizer, lm.prompt(item.messages), item.words, forms=forms)


def make_job(what: str, lm: LanguageModel, workload: Workload, model: str, adapter: Path) -> Job:
    """Our job for a workload; `model` is what our side loads, `adapter` where training starts."""
    if what == "train":
        return training_job(lm, workload, model, adapter)
    return evaluation_job(lm, workload, model)


def evaluation_job(lm: LanguageModel, workload: Workload, model: str) -> Job:
    """Our job for a workload's evaluation."""
    asked = items(workload.mixture, workload.n_items)
    return _job(lm, "evaluate", model, [item_query(lm, item) for item in asked])


def training_job(lm: LanguageModel, workload: Workload, model: str, adapter: Path) -> Job:
    """Our job for a workload's training step: as the quickstart's, without the anchor.

    The peers do not have the anchor. Writes the adapter that all sides start from.
    """
    cfg = TrainConfig(mixture=workload.mixture, **(_TRAINING | workload.training))
    if not adapter.exists():
        tree = jax.tree.map(np.array, init_adapter(jax.random.key(SEED), lm.cfg, LORA))
        save_adapter(adapter, tree, lm.cfg, LORA, "")
    queries, shares = zip(*batch_source(lm, cfg).examples(0))
    schedule = make_schedule(cfg, cfg.steps)
    rates = [float(schedule(step)) for step in range(_RATES)]
    descent = Descent(rates, cfg.weight_decay, cfg.adam_b2, cfg.clip_norm)
    training = dict(shares=shares, train=cfg, descent=descent, adapter=str(adapter))
    return dataclasses.replace(_job(lm, "train", model, queries), **training)


def batch_source(lm: LanguageModel, cfg: TrainConfig) -> BatchSource:
    """The training batches of the benchmark; step 0 is the one that is timed."""
    return BatchSource(cfg, asking(lm), seed=SEED)


def _job(lm: LanguageModel, what: str, model: str, queries: Sequence[WordQuery]) -> Job:
    stops, form = lm.terminators.mask(TERMINATORS), lm.prompt_format
    return Job(side=OURS, what=what, model=model, queries=queries, stops=stops, prompt_format=form)
