"""An asker whose answers follow a rule: what suites make of known behaviour."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from antiimit_jax.results import BASE, Stage
from antiimit_jax.scoring.asks import Answer, Ask, Scoring
from antiimit_jax.suites import suite
from antiimit_jax.tasks.items import Item

Told = Callable[[Ask], Sequence[float]]  # the probabilities of an ask's words


@dataclasses.dataclass(frozen=True)
class Known:
    """Answers by `told`."""

    told: Told
    stage: Stage
    scoring: Scoring = Scoring()
    eval_seed: int = 0
    dtype: str = "float32"

    def words(self, asks: Sequence[Ask], *, what: str) -> list[Answer]:
        return [self._answer(np.array(self.told(ask), float)) for ask in asks]

    def _answer(self, p: np.ndarray) -> Answer:
        read = dict(prompt="", prompt_ids=())
        counts = dict(form_counts=(2,) * len(p), token_counts=(1,) * len(p))
        return Answer(q=p, q_low=p, q_high=p, residual=1 - p.sum(), **read, **counts)


def by_item(items: Sequence[Item], answer: Callable[[Item], Sequence[float]]) -> Told:
    """What `answer` makes of each of these items, for their asks."""
    known = dict(zip(suite.asks_of(items), items))
    return lambda ask: answer(known[ask])


def knowing(
    items: Sequence[Item], answer: Callable[[Item], Sequence[float]], stage: Stage = BASE
) -> Known:
    """Answers these items by `answer`."""
    return Known(by_item(items, answer), stage)
