"""What the benchmark asks: the standard workloads, as jobs for our side."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from antiimit_jax.language_model import LanguageModel
from antiimit_jax.scoring.trie import WordQuery, word_query
from antiimit_jax.tasks.output_control import Item, Mixture
from antiimit_jax.tasks.templates import TEMPLATES
from antiimit_jax.training.config import TrainConfig
from launch.benchmark import ours
from launch.benchmark.job import FORMS, OURS, SEED, TERMINATORS, Job

_TRAINING = {
    "groups": 1,
    "accumulate": 2,
    "rows": 4,
    "row_tokens": 128,
    "dtype": "float32",
    "anchor_weight": 0.0,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is asked, how many items are evaluated, and how a training step is filled."""

    mixture: Mixture
    n_items: int = 0
    what: tuple[str, ...] = ("evaluate",)  # by default
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # over _TRAINING
    random_model: bool = False  # the shape of Llama 3.2 1B with random weights


_KS, _SHOTS = (2, 3, 4, 5), (0, 2, 11)
WORKLOADS = {
    # eleven turns before the question, each of eight shot sets before four items
    "given-fewshot": Workload(
        mixture=Mixture(shots=(11,)), n_items=32, what=("evaluate", "train"), training={"rows": 2}
    ),
    "given-bare": Workload(
        mixture=Mixture(),
        n_items=64,
        what=("evaluate", "train"),
        training={"rows": 8, "row_tokens": 64},
    ),
    "five-words": Workload(mixture=Mixture(ks=(5,)), n_items=32, training={"row_tokens": 192}),
    "mixed": Workload(
        mixture=Mixture(
            templates=tuple(range(len(TEMPLATES))),
            ks=_KS,
            k_weights=(1.0,) * len(_KS),
            shots=_SHOTS,
            shot_weights=(1.0,) * len(_SHOTS),
        ),
        n_items=24,
        training={"rows": 2, "row_tokens": 192},
    ),
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


def evaluation_job(
    lm: LanguageModel, workload: Workload, model: str, n_items: int | None = None
) -> Job:
    """Our job for a workload's evaluation; `model` is what our side loads."""
    asked = items(workload.mixture, n_items or workload.n_items)
    return Job(
        side=OURS,
        what="evaluate",
        model=model,
        queries=[item_query(lm, item) for item in asked],
        stops=lm.terminators.mask(TERMINATORS),
        prompt_format=lm.prompt_format,
    )


def training_job(lm: LanguageModel, workload: Workload, model: str, adapter: Path) -> Job:
    """Our job for a workload's training step: as the quickstart's, without the anchor.

    The peers do not have the anchor. Writes the adapter that all sides start from.
    """
    cfg = TrainConfig(mixture=workload.mixture, **(_TRAINING | workload.training))
    return ours.training_job(lm, cfg, model, adapter)
