"""Many queries into few static shapes: who shares a trunk, which rows go into which batch.

Queries are sorted by their prompts, so that shared beginnings are neighbours. An exact dynamic
programme cuts the sorted list into groups behind one trunk each such that most tokens are computed
only once. Rows and trunks are padded to bucketed lengths; each pair of lengths is one compilation.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.scoring.packing import (
    PackedBatch,
    Row,
    RowLimits,
    common_prefix,
    empty_batch,
    needed,
    stack,
)
from antiimit_jax.scoring.trie import WordQuery

_LEAST_TRUNK = 64  # shorter ones are padded to it
_BATCH_OVERHEAD = 256  # what starting a batch costs, in tokens
_WIDEST_GROUP = 512  # queries behind one trunk that the programme looks back over


@dataclasses.dataclass(frozen=True)
class Workload:
    """Batches of one static shape, and which queries each row of each batch holds."""

    batches: list[PackedBatch]
    queries: list[list[list[int]]]  # [batch][row] -> indices of queries
    empty: PackedBatch
    used_tokens: int
    all_tokens: int


def plan(
    queries: Sequence[WordQuery],
    stops: np.ndarray,
    *,
    row_tokens: int = 128,
    batch_tokens: int = 3072,
) -> list[Workload]:
    """Packs queries into as few workloads (shapes) and as little padding as it can.

    Args:
      stops: bool [V], the terminators.
      row_tokens: usual length of a row; longer items get longer rows.
      batch_tokens: tokens of a batch, trunks and rows with their padding.
    """
    rows: dict[tuple[int, int], list[list[Row]]] = {}  # (T, U) -> groups of rows behind one trunk
    for group, trunk in share_trunks(queries):
        longest = max(needed(queries[i], stops, len(trunk)).tokens for i in group)
        size = _bucket(longest, row_tokens)
        shape = (size, _bucket(len(trunk), _LEAST_TRUNK))
        rows.setdefault(shape, []).append(_fill(group, queries, trunk, stops, size))
    return [_workload(groups, T, U, batch_tokens) for (T, U), groups in sorted(rows.items())]


def share_trunks(queries: Sequence[WordQuery]) -> list[tuple[list[int], tuple[int, ...]]]:
    """Groups of query indices and the trunk each shares: a proper beginning of all its prompts.

    Over all ways to cut the sorted prompts into runs, this one saves the most tokens: the sum of
    (members - 1) * trunk length is greatest.
    """
    order = sorted(range(len(queries)), key=lambda i: queries[i].prompt_ids)
    ids = [queries[i].prompt_ids for i in order]
    with_next = [common_prefix(a, b) for a, b in zip(ids, ids[1:])]
    n = len(order)
    saved, cut = [0] * (n + 1), [0] * (n + 1)  # of the first j queries
    for j in range(1, n + 1):
        shared = len(ids[j - 1]) - 1
        saved[j], cut[j] = saved[j - 1], j - 1
        for i in range(j - 2, max(j - _WIDEST_GROUP, 0) - 1, -1):
            shared = min(shared, with_next[i], len(ids[i]) - 1)
            if saved[i] + (j - i - 1) * shared > saved[j]:
                saved[j], cut[j] = saved[i] + (j - i - 1) * shared, i
            if shared == 0:
                break
    groups = []
    j = n
    while j:
        i = cut[j]
        shared = min([len(ids[m]) - 1 for m in range(i, j)] + with_next[i : j - 1])
        groups.append((order[i:j], ids[i][:shared] if j - i > 1 else ()))
        j = i
    return groups[::-1]


def _bucket(length: int, least: int) -> int:
    """0, `least`, then powers of two and one and a half times them: few shapes, some padding."""
    if length <= least:
        return least if length else 0
    power = 1 << (length - 1).bit_length()
    return power * 3 // 4 if length <= power * 3 // 4 else power


def _deal(rows: Sequence, trunks: Sequence[tuple[int, ...]], B: int, P: int) -> list[list]:
    """Rows in order into batches of at most B rows behind at most P trunks."""
    dealt: list[list] = [[]]
    seen: set[tuple[int, ...]] = set()
    for row, trunk in zip(rows, trunks):
        if len(dealt[-1]) == B or len(seen | {trunk}) > P:
            dealt.append([])
            seen = set()
        dealt[-1].append(row)
        seen.add(trunk)
    return dealt


def _cheapest_shape(
    trunks: Sequence[tuple[int, ...]], T: int, U: int, batch_tokens: int
) -> tuple[int, int]:
    """B and P, powers of two, that compute the fewest tokens with batches of a limited size."""
    costs = {}
    powers = [1 << i for i in range(10)]
    for B, P in itertools.product(powers, powers if U else [1]):
        size = B * T + P * U
        if (B, P) == (1, 1) or (size <= batch_tokens and P <= B):
            batches = len(_deal(trunks, trunks, B, P))
            costs[batches * (size + _BATCH_OVERHEAD), -B] = (B, P)
    return costs[min(costs)]


def _fill(
    group: list[int],
    queries: Sequence[WordQuery],
    trunk: tuple[int, ...],
    stops: np.ndarray,
    row_tokens: int,
) -> list[Row]:
    """First fit, longest first."""
    limits = RowLimits(
        tokens=row_tokens,
        readouts=row_tokens,
        paths=row_tokens,
        steps=row_tokens,
        words=row_tokens,
        terms=row_tokens,
    )
    rows: list[Row] = []
    for i in sorted(group, key=lambda i: -needed(queries[i], stops, len(trunk)).tokens):
        if any(row.add(i, queries[i]) for row in rows):
            continue
        rows.append(Row(limits, stops, trunk))
        if not rows[-1].add(i, queries[i]):
            raise UserError(
                f"{queries[i].n_words} words with {len(queries[i].paths)} token paths take more "
                f"room than their row of {row_tokens} tokens: score fewer words at a time"
            )
    return rows


def _workload(groups: list[list[Row]], T: int, U: int, batch_tokens: int) -> Workload:
    rows = [row for group in groups for row in group]
    B, P = _cheapest_shape([row.trunk for row in rows], T, U, batch_tokens)
    chosen = _deal(rows, [row.trunk for row in rows], B, P)
    used = [row.size() for row in rows]
    most = {
        field.name: max(getattr(size, field.name) for size in used)
        for field in dataclasses.fields(RowLimits)
    }
    size = RowLimits(
        tokens=T,
        readouts=_bucket(most["readouts"], T // 4),
        paths=_bucket(most["paths"], T // 4),
        steps=_bucket(most["steps"], 8) or 8,
        words=_bucket(most["words"], T // 8),
        terms=_bucket(most["terms"], 4) or 4,
    )
    trunks = sum(len(trunk) for part in chosen for trunk in {row.trunk for row in part})
    return Workload(
        batches=[stack(part, size, B, P, U) for part in chosen],
        queries=[[row.queries for row in part] for part in chosen],
        empty=empty_batch(size, B, P, U),
        used_tokens=sum(size.tokens for size in used) + trunks,
        all_tokens=len(chosen) * (B * T + P * U),
    )
