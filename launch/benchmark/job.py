"""What a side of the benchmark is given to do, and what it can be asked for."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from antiimit_jax.scoring.trie import WordQuery

WHAT = ("evaluate", "train")
OURS, PEERS = "ours", ("usual", "strong")
TERMINATORS, FORMS, SEED = "standard", "strict", 0


class Descent(NamedTuple):
    """How a peer moves its adapters: what it needs of a TrainConfig, which comes with JAX."""

    learning_rates: Sequence[float]  # of each step
    weight_decay: float
    adam_b2: float
    clip_norm: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A side's work, with the same model, questions and adapter as the other sides have."""

    side: str  # ours, usual or strong
    what: str
    model: str  # ours: as --model takes it; a peer: a folder with safetensors
    queries: Sequence[WordQuery]
    shares: Sequence[Sequence[float]] = ()  # train: the targets of each query's words
    stops: np.ndarray  # bool [V], the terminators
    prompt_format: str = "auto"
    train: Any = None  # train: a TrainConfig (ours)
    descent: Descent | None = None  # train: of a peer
    adapter: str = ""  # train: a folder in PEFT's format
    threads: int = 2  # of a peer
    batch: int = 0  # of a peer, in items; 0 where none is chosen yet


class Side(Protocol):
    """What a worker can be asked for."""

    def run(self) -> Any:
        """One evaluation: q of every query's words. One training step: the loss before it."""

    def facts(self) -> dict[str, Any]:
        """`tokens` it computes without padding, `padded_share`, and what else it knows."""

    def trial(self, batch: int) -> int | None:
        """A peer: runs one batch of a size; its items, or None where the size is too large."""
