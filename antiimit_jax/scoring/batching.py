"""Many queries into few static shapes: who shares a prefix, which sequences share a batch.

Queries are sorted by their prompts, so that shared beginnings are neighbours. An exact dynamic
programme cuts the sorted list into groups, each after one shared prefix (`trunk`), such that most
tokens are computed only once. A second one cuts the groups, sorted by the length of that prefix, so
that each part has one static shape; every shape is one compilation. Batches are filled by a budget
of tokens.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.scoring import packing
from antiimit_jax.scoring.packing import PackedBatch, PackedSequence, SequenceLimits
from antiimit_jax.scoring.trie import Ids, WordQuery

BATCH_TOKENS = 3072  # of a batch; more only where one sequence with its prefix needs more
_WIDEST_GROUP = 512  # queries after one prefix that the programme looks back over
_OPEN = 8  # sequences that a query may still join
_LENGTHS = (64, 96, 128, 192, 256, 320)  # tokens; longer only for an item that needs it
_SHAPE_COST = 3000  # what one more compilation costs, in tokens
_BATCH_COST = 100  # what starting a batch costs, in tokens
_PAIRS = 900  # query-key pairs, padding included, that cost as much as a token


class PackedBatches(NamedTuple):
    """Batches of one static shape, and which queries each sequence of each batch holds."""

    batches: list[PackedBatch]
    queries: list[list[list[int]]]  # [batch][sequence] -> indices of queries
    empty: PackedBatch
    used_tokens: int
    all_tokens: int


def pack_batches(
    queries: Sequence[WordQuery],
    stops: np.ndarray,
    *,
    batch_tokens: int = BATCH_TOKENS,
    devices: int = 1,
) -> list[PackedBatches]:
    """Packs queries into batches of a few shapes, which are chosen from the data.

    Args:
      stops: bool [V], the terminators.
      batch_tokens: see `BATCH_TOKENS`.
      devices: batches that run at the same time; their number is a multiple of it where possible.
    """
    shared = sorted(share_trunks(queries), key=lambda group: len(group[1]))
    groups = [_Group({i: queries[i] for i in members}, stops, trunk) for members, trunk in shared]
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
    return [_packed(layout) for layout in best[-1][1]]


def share_trunks(queries: Sequence[WordQuery]) -> list[tuple[list[int], Ids]]:
    """Groups of query indices and what each shares: a proper beginning of all its prompts.

    Over all ways to cut the sorted prompts into runs, this one saves the most tokens: the sum of
    (members - 1) * shared length is greatest.
    """
    order = sorted(range(len(queries)), key=lambda i: queries[i].prompt_ids)
    ids = [queries[i].prompt_ids for i in order]
    with_next = [packing.common_prefix(a, b) for a, b in zip(ids, ids[1:])]
    best = [(0, 0, 0)]  # of the first j: tokens saved, the last group's first, what that shares
    for j in range(1, len(ids) + 1):
        shared, chosen = len(ids[j - 1]) - 1, (best[-1][0], j - 1, 0)
        for i in range(j - 2, max(j - _WIDEST_GROUP, 0) - 1, -1):
            shared = min(shared, with_next[i], len(ids[i]) - 1)
            saved = best[i][0] + (j - i - 1) * shared
            if saved > chosen[0]:
                chosen = (saved, i, shared)
            if shared == 0:
                break
        best.append(chosen)
    groups, j = [], len(ids)
    while j:
        _, i, shared = best[j]
        groups.append((order[i:j], ids[i][:shared]))
        j = i
    return groups[::-1]


class _Group:
    """Queries after one shared prefix, and the sequences they fill at a given length."""

    def __init__(self, queries: dict[int, WordQuery], stops: np.ndarray, trunk: Ids) -> None:
        self._queries, self._stops, self.trunk = queries, stops, trunk
        needs = (packing.needed(query, stops, len(trunk)) for query in queries.values())
        self.longest = max(need.tokens for need in needs)
        self.sequences = functools.cache(self._fill)

    def _fill(self, length: int) -> list[PackedSequence]:
        """First fit among the last ones; neighbours share most, so they come in order."""
        limits = SequenceLimits(*[length] * len(SequenceLimits._fields))
        sequences: list[PackedSequence] = []
        for i, query in self._queries.items():
            if any(one.add(i, query) for one in sequences[-_OPEN:]):
                continue
            sequences.append(PackedSequence(limits, self._stops, self.trunk))
            if not sequences[-1].add(i, query):
                raise UserError(
                    f"{query.n_words} words with {len(query.paths)} token paths take more room "
                    f"than their sequence of {length} tokens: score fewer words at a time"
                )
        return sequences


class _Layout(NamedTuple):
    """Sequences dealt to batches, and sizes that hold every batch (letters as in `decoder`)."""

    cost: float  # in tokens
    batches: list[list[PackedSequence]]
    T: int
    others: tuple[int, int, int, int]  # B, P, U, M


def _ceil(length: int, step: int = 8) -> int:
    return -(-length // step) * step


def _cheapest_layout(groups: Sequence[_Group], batch_tokens: int, devices: int) -> _Layout:
    """One static shape for all groups, at the sequence length that costs least.

    Groups come by growing prefix, and are taken long and short in turns: batches weigh alike.
    """
    half = len(groups) // 2
    turns = itertools.zip_longest(reversed(groups[half:]), groups[:half])
    mixed = [group for pair in turns for group in pair if group is not None]
    least = _ceil(max(group.longest for group in groups))
    layouts = []
    for T in sorted({max(least, length) for length in (least, *_LENGTHS)}):
        sequences = [one for group in mixed for one in group.sequences(T)]
        layouts.append(_deal(sequences, T, batch_tokens, devices))
    return min(layouts, key=lambda layout: layout.cost)


def _deal(sequences: list[PackedSequence], T: int, batch_tokens: int, devices: int) -> _Layout:
    """In order into as few batches as the budget allows, evenly filled."""
    total = sum(_tokens(part) for part in _by_budget(sequences, batch_tokens))
    count = _ceil(max(1, -(-total // batch_tokens)), devices)
    budget = max(-(-total // count), *(_tokens([one]) for one in sequences))
    while len(batches := _by_budget(sequences, budget)) > count:
        budget += max(8, budget // 64)  # a little more room, until all fit
    U = _ceil(max(len(one.trunk) for one in sequences))
    B = max(map(len, batches))
    P = max(len({one.trunk for one in part}) for part in batches) if U else 1
    M = _ceil(max(map(_tokens, batches)), 16)
    rounds = -(-len(batches) // devices)
    pairs = B * T * (U + T) + P * U * U // 2  # prefixes look back only
    cost = rounds * (M + pairs / _PAIRS + _BATCH_COST)
    return _Layout(cost, batches, T, (B, P, U, M))


def _tokens(sequences: Sequence[PackedSequence]) -> int:
    """With their shared prefixes, each once."""
    return sum(one.tokens for one in sequences) + sum(map(len, {one.trunk for one in sequences}))


def _by_budget(sequences: Sequence[PackedSequence], budget: int) -> list[list[PackedSequence]]:
    """In order; a batch ends where the next sequence would pass the budget."""
    batches: list[list[PackedSequence]] = []
    used, trunks = 0, set()
    for one in sequences:
        more = one.tokens + (0 if one.trunk in trunks else len(one.trunk))
        if not batches or used + more > budget:
            batches.append([])
            used, trunks, more = 0, set(), one.tokens + len(one.trunk)
        batches[-1].append(one)
        used += more
        trunks.add(one.trunk)
    return batches


def _packed(layout: _Layout) -> PackedBatches:
    sizes = zip(*(one.size() for part in layout.batches for one in part))
    size = SequenceLimits(*(_ceil(max(each), 4) for each in sizes))._replace(tokens=layout.T)
    readouts = _ceil(max(sum(one.readouts for one in part) for part in layout.batches))
    shape = packing.BatchShape(size, *layout.others, readouts)
    return PackedBatches(
        batches=[packing.stack(part, shape) for part in layout.batches],
        queries=[[one.queries for one in part] for part in layout.batches],
        empty=packing.empty_batch(shape),
        used_tokens=sum(map(_tokens, layout.batches)),
        all_tokens=len(layout.batches) * shape.dense_tokens,
    )
