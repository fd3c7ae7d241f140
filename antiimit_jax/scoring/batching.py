"""Many queries into few static shapes: who shares a prefix, which sequences share a batch.

Queries are sorted by their prompts, so that shared beginnings are neighbours. An exact dynamic
programme cuts the sorted list into groups, each after one shared prefix (`trunk`), such that most
tokens are computed only once. A second one cuts the groups, sorted by the length of that prefix, so
that each part has one static shape; every shape is one compilation. Batches are filled by a budget
of tokens.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.scoring.packing import (
    BatchShape,
    PackedBatch,
    PackedSequence,
    SequenceLimits,
    common_prefix,
    empty_batch,
    needed,
    stack,
)
from antiimit_jax.scoring.trie import WordQuery

_WIDEST_GROUP = 512  # queries after one prefix that the programme looks back over
_OPEN = 8  # sequences that a query may still join
_LENGTHS = (64, 96, 128, 192, 256, 320)  # tokens; longer only for an item that needs it
_SHAPE_COST = 3000  # what one more compilation costs, in tokens
_BATCH_COST = 100  # what starting a batch costs, in tokens
_PAIRS = 900  # query-key pairs, padding included, that cost as much as a token


@dataclasses.dataclass(frozen=True)
class PackedBatches:
    """Batches of one static shape, and which queries each sequence of each batch holds."""

    batches: list[PackedBatch]
    queries: list[list[list[int]]]  # [batch][sequence] -> indices of queries
    empty: PackedBatch
    used_tokens: int
    all_tokens: int


def pack_batches(
    queries: Sequence[WordQuery], stops: np.ndarray, *, batch_tokens: int = 3072, devices: int = 1
) -> list[PackedBatches]:
    """Packs queries into batches of a few shapes, which are chosen from the data.

    Args:
      stops: bool [V], the terminators.
      batch_tokens: tokens of a batch (more only where one sequence with its prefix needs more).
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
    return [_packed(layout) for layout in best[-1][1]]


def share_trunks(queries: Sequence[WordQuery]) -> list[tuple[list[int], tuple[int, ...]]]:
    """Groups of query indices and what each shares: a proper beginning of all its prompts.

    Over all ways to cut the sorted prompts into runs, this one saves the most tokens: the sum of
    (members - 1) * shared length is greatest.
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
    """Queries after one shared prefix, and the sequences they fill at a given length."""

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
        self._filled: dict[int, list[PackedSequence]] = {}

    def sequences(self, length: int) -> list[PackedSequence]:
        """First fit among the last ones; neighbours share most, so they come in order."""
        if length not in self._filled:
            self._filled[length] = list(self._fill(length))
        return self._filled[length]

    def _fill(self, length: int) -> list[PackedSequence]:
        limits = SequenceLimits(*[length] * len(SequenceLimits._fields))
        sequences: list[PackedSequence] = []
        for i in self._members:
            query = self._queries[i]
            if any(one.add(i, query) for one in sequences[-_OPEN:]):
                continue
            sequences.append(PackedSequence(limits, self._stops, self.trunk))
            if not sequences[-1].add(i, query):
                raise UserError(
                    f"{query.n_words} words with {len(query.paths)} token paths take more room "
                    f"than their sequence of {length} tokens: score fewer words at a time"
                )
        return sequences


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Layout:
    """Sequences dealt to batches, and sizes that hold every batch (letters as in `decoder`)."""

    cost: float  # in tokens
    batches: list[list[PackedSequence]]
    B: int
    T: int
    P: int
    U: int
    M: int


def _ceil(length: int, step: int = 8) -> int:
    return -(-length // step) * step


def _cheapest_layout(groups: Sequence[_Group], batch_tokens: int, devices: int) -> _Layout:
    """One static shape for all groups, at the sequence length that costs least."""
    groups = _mixed(groups)
    least = _ceil(max(group.longest for group in groups))
    lengths = {max(least, length) for length in (least, *_LENGTHS)}
    layouts = (
        _deal([one for group in groups for one in group.sequences(T)], T, batch_tokens, devices)
        for T in sorted(lengths)
    )
    return min(layouts, key=lambda layout: layout.cost)


def _mixed(groups: Sequence[_Group]) -> list[_Group]:
    """Groups by growing prefix -> long and short in turns, so that batches weigh alike."""
    half = len(groups) // 2
    turns = itertools.zip_longest(reversed(groups[half:]), groups[:half])
    return [group for pair in turns for group in pair if group is not None]


def _deal(sequences: list[PackedSequence], T: int, batch_tokens: int, devices: int) -> _Layout:
    """In order into as few batches as the budget allows, evenly filled."""
    total = sum(_tokens(part) for part in _by_budget(sequences, batch_tokens))
    most = max(_tokens([one]) for one in sequences)
    count = _ceil(max(1, -(-total // batch_tokens)), devices)
    budget = max(most, -(-total // count))
    while len(batches := _by_budget(sequences, budget)) > count:
        budget += max(8, budget // 64)  # a little more room, until all fit
    U = _ceil(max(len(one.trunk) for one in sequences))
    B = max(map(len, batches))
    P = max(len({one.trunk for one in part}) for part in batches) if U else 1
    M = _ceil(max(map(_tokens, batches)), 16)
    rounds = -(-len(batches) // devices)
    pairs = B * T * (U + T) + P * U * U // 2  # prefixes look back only
    cost = rounds * (M + pairs / _PAIRS + _BATCH_COST)
    return _Layout(cost=cost, batches=batches, B=B, T=T, P=P, U=U, M=M)


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
    used = [one.size() for part in layout.batches for one in part]
    most = (_ceil(max(sizes), 4) for sizes in zip(*used))
    size = SequenceLimits(*most)._replace(tokens=layout.T)
    readouts = _ceil(max(sum(one.readouts for one in part) for part in layout.batches))
    shape = BatchShape(size, layout.B, layout.P, layout.U, layout.M, readouts)
    return PackedBatches(
        batches=[stack(part, shape) for part in layout.batches],
        queries=[[one.queries for one in part] for part in layout.batches],
        empty=empty_batch(shape),
        used_tokens=sum(map(_tokens, layout.batches)),
        all_tokens=len(layout.batches) * layout.M,
    )
