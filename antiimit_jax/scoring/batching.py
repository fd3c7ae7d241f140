"""Many queries into few static shapes: who shares a trunk, which rows go into which batch.

Queries are sorted by their prompts, so that shared beginnings are neighbours. An exact dynamic
programme cuts the sorted list into groups behind one trunk each such that most tokens are computed
only once. A second one cuts the groups, sorted by the length of their trunks, into workloads of one
static shape each; every shape is one compilation. Batches are filled by a budget of tokens.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.scoring.packing import (
    BatchShape,
    PackedBatch,
    Row,
    RowLimits,
    common_prefix,
    empty_batch,
    needed,
    stack,
)
from antiimit_jax.scoring.trie import WordQuery

_WIDEST_GROUP = 512  # queries behind one trunk that the programme looks back over
_OPEN_ROWS = 8  # rows that a query may still join
_ROWS = (64, 96, 128, 192, 256, 320)  # tokens; longer only for an item that needs it
_SHAPE_COST = 3000  # what one more compilation costs, in tokens
_BATCH_COST = 100  # what starting a batch costs, in tokens
_PAIRS = 900  # query-key pairs, padding included, that cost as much as a token


@dataclasses.dataclass(frozen=True)
class Workload:
    """Batches of one static shape, and which queries each row of each batch holds."""

    batches: list[PackedBatch]
    queries: list[list[list[int]]]  # [batch][row] -> indices of queries
    empty: PackedBatch
    used_tokens: int
    all_tokens: int


def plan(
    queries: Sequence[WordQuery], stops: np.ndarray, *, batch_tokens: int = 3072, devices: int = 1
) -> list[Workload]:
    """Packs queries into workloads; shapes are chosen from the data.

    Args:
      stops: bool [V], the terminators.
      batch_tokens: tokens of a batch (more only where one row behind its trunk needs more).
      devices: batches that run at the same time; their number is a multiple of it where possible.
    """
    groups = sorted(
        (_Group(queries, members, trunk, stops) for members, trunk in share_trunks(queries)),
        key=lambda group: len(group.trunk),
    )
    best: list[tuple[float, list[_Layout]]] = [(0.0, [])]  # for the first j groups
    for last in range(1, len(groups) + 1):
        options = []
        for first in range(last):
            if first and len(groups[first].trunk) - len(groups[first - 1].trunk) < 8:
                continue  # no reason to cut here
            layout = _cheapest_layout(groups[first:last], batch_tokens, devices)
            cost, before = best[first]
            options.append((cost + layout.cost + _SHAPE_COST, [*before, layout]))
        best.append(min(options, key=lambda option: option[0]))
    return [_workload(layout) for layout in best[-1][1]]


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


class _Group:
    """Queries behind one trunk, and the rows they fill at a given length."""

    def __init__(
        self,
        queries: Sequence[WordQuery],
        members: list[int],
        trunk: tuple[int, ...],
        stops: np.ndarray,
    ) -> None:
        self.trunk = trunk
        self.longest = max(needed(queries[i], stops, len(trunk)).tokens for i in members)
        self._queries, self._members, self._stops = queries, members, stops
        self._rows: dict[int, list[Row]] = {}

    def rows(self, length: int) -> list[Row]:
        """First fit among the rows still open; neighbours share most, so they come in order."""
        if length not in self._rows:
            self._rows[length] = list(self._fill(length))
        return self._rows[length]

    def _fill(self, length: int) -> list[Row]:
        limits = RowLimits(**{field.name: length for field in dataclasses.fields(RowLimits)})
        rows: list[Row] = []
        for i in self._members:
            query = self._queries[i]
            if any(row.add(i, query) for row in rows[-_OPEN_ROWS:]):
                continue
            rows.append(Row(limits, self._stops, self.trunk))
            if not rows[-1].add(i, query):
                raise UserError(
                    f"{query.n_words} words with {len(query.paths)} token paths take more room "
                    f"than their row of {length} tokens: score fewer words at a time"
                )
        return rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Layout:
    """Rows dealt to batches, and the sizes that hold every batch (letters as in `decoder`)."""

    cost: float  # in tokens
    batches: list[list[Row]]
    B: int
    T: int
    P: int
    U: int
    M: int


def _ceil(length: int, step: int = 8) -> int:
    return -(-length // step) * step


def _cheapest_layout(groups: Sequence[_Group], batch_tokens: int, devices: int) -> _Layout:
    """One static shape for all groups, at the row length that costs least."""
    groups = _mixed(groups)
    least = _ceil(max(group.longest for group in groups))
    lengths = {max(least, length) for length in (least, *_ROWS)}
    layouts = (
        _deal([row for group in groups for row in group.rows(T)], T, batch_tokens, devices)
        for T in sorted(lengths)
    )
    return min(layouts, key=lambda layout: layout.cost)


def _mixed(groups: Sequence[_Group]) -> list[_Group]:
    """Groups from short to long trunks -> long and short in turns, so that batches weigh alike."""
    half = len(groups) // 2
    turns = itertools.zip_longest(reversed(groups[half:]), groups[:half])
    return [group for pair in turns for group in pair if group is not None]


def _deal(rows: list[Row], T: int, batch_tokens: int, devices: int) -> _Layout:
    """Rows in order into as few batches as the budget allows, evenly filled."""
    total = sum(_tokens(part) for part in _by_budget(rows, batch_tokens))
    most = max(_tokens([row]) for row in rows)
    count = _ceil(max(1, -(-total // batch_tokens)), devices)
    budget = max(most, -(-total // count))
    while len(batches := _by_budget(rows, budget)) > count:  # a little more room, until all fit
        budget += max(8, budget // 64)
    U = _ceil(max(len(row.trunk) for row in rows))
    B = max(map(len, batches))
    P = max(len({row.trunk for row in part}) for part in batches) if U else 1
    M = _ceil(max(map(_tokens, batches)), 16)
    rounds = -(-len(batches) // devices)
    pairs = B * T * (U + T) + P * U * U // 2  # trunks look back only
    cost = rounds * (M + pairs / _PAIRS + _BATCH_COST)
    return _Layout(cost=cost, batches=batches, B=B, T=T, P=P, U=U, M=M)


def _tokens(rows: Sequence[Row]) -> int:
    """Of rows and their trunks, each trunk once."""
    return sum(row.tokens for row in rows) + sum(map(len, {row.trunk for row in rows}))


def _by_budget(rows: Sequence[Row], budget: int) -> list[list[Row]]:
    """Rows in order; a batch ends where the next row would pass the budget."""
    batches: list[list[Row]] = []
    used, trunks = 0, set()
    for row in rows:
        more = row.tokens + (0 if row.trunk in trunks else len(row.trunk))
        if not batches or used + more > budget:
            batches.append([])
            used, trunks, more = 0, set(), row.tokens + len(row.trunk)
        batches[-1].append(row)
        used += more
        trunks.add(row.trunk)
    return batches


def _workload(layout: _Layout) -> Workload:
    used = [row.size() for part in layout.batches for row in part]
    most = {
        field.name: _ceil(max(getattr(size, field.name) for size in used), 4)
        for field in dataclasses.fields(RowLimits)
    }
    size = RowLimits(**(most | {"tokens": layout.T}))
    readouts = _ceil(max(sum(row.readouts for row in part) for part in layout.batches))
    shape = BatchShape(size, layout.B, layout.P, layout.U, layout.M, readouts)
    return Workload(
        batches=[stack(part, shape) for part in layout.batches],
        queries=[[row.queries for row in part] for part in layout.batches],
        empty=empty_batch(shape),
        used_tokens=sum(map(_tokens, layout.batches)),
        all_tokens=len(layout.batches) * layout.M,
    )
