"""Ways to pack the same queries, and to read their words' values back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.scoring.packing import (
    BatchShape,
    PackedBatch,
    PackedSequence,
    SequenceLimits,
    needed,
    stack,
)
from antiimit_jax.scoring.trie import WordQuery
from antiimit_jax.scoring.word_probs import WordLogProbs, word_log_probs
from antiimit_jax.text.tokenizer import Tokenizer

Ids = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Tiny:
    """A small random model with an adapter, its tokenizer and terminators."""

    tokenizer: Tokenizer
    stops: np.ndarray
    decoder: Decoder
    variables: Any

    def score(self, batch: PackedBatch) -> WordLogProbs:
        return _score(self.decoder, self.variables, self.stops, batch)


_score = jax.jit(word_log_probs, static_argnums=0)


def roomy(queries: Sequence[WordQuery], stops: np.ndarray, times: int = 1) -> SequenceLimits:
    """Limits under which `times` copies of the greediest query fit a row."""
    needs = [needed(query, stops) for query in queries]
    most = SequenceLimits(*map(max, zip(*needs)))
    return most._replace(
        **{name: times * getattr(most, name) for name in ("tokens", "readouts", "paths", "words")}
    )


def fill(
    plan: Sequence[tuple[Ids, Sequence[int]]],
    queries: Sequence[WordQuery],
    limits: SequenceLimits,
    stops: np.ndarray,
) -> list[PackedSequence]:
    """Rows by plan: (trunk, indices of queries) for each."""
    rows = []
    for trunk, indices in plan:
        row = PackedSequence(limits, stops, trunk)
        for index in indices:
            assert row.add(index, queries[index]), "the test's limits are too small"
        rows.append(row)
    return rows


def pack(
    rows: Sequence[PackedSequence],
    limits: SequenceLimits,
    *,
    spare: int = 0,
    longer: int = 0,
    dense: int = -1,
) -> PackedBatch:
    """One batch, with spare rows and trunks and a longer trunk field if wanted.

    With `dense` only tokens that exist are computed, and so many places more.
    """
    trunks = {row.trunk for row in rows}
    longest = max(len(trunk) for trunk in trunks)
    tokens = sum(row.tokens for row in rows) + sum(map(len, trunks)) + dense
    shape = BatchShape(limits, len(rows) + spare, len(trunks) + spare, longest + longer)
    return stack(rows, shape._replace(dense_tokens=tokens if dense >= 0 else None))


def by_word(
    rows: Sequence[PackedSequence], batch: PackedBatch, values: np.ndarray
) -> dict[tuple[int, int], float]:
    """(query, word) -> its value; fails if a query's words were given twice."""
    found: dict[tuple[int, int], float] = {}
    for b, row in enumerate(rows):
        given = dict.fromkeys(row.queries, 0)
        for w in np.flatnonzero(batch.word_item[b] >= 0):
            query = row.queries[batch.word_item[b, w]]
            assert (query, given[query]) not in found
            found[query, given[query]] = float(values[b, w])
            given[query] += 1
    return found


def alone(tiny: Tiny, queries: Sequence[WordQuery]) -> dict[tuple[int, int], float]:
    """log q with every query in a row of its own, without a trunk and with no room to spare."""
    limits = roomy(queries, tiny.stops)
    rows = fill([((), [i]) for i in range(len(queries))], queries, limits, tiny.stops)
    batch = pack(rows, limits)
    return by_word(rows, batch, np.asarray(tiny.score(batch).log_q))
