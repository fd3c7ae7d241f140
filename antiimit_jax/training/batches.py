"""Training batches as functions of (seed, step): no iterator, no hidden state.

A batch of requests consists of groups. Each group takes one template (and shot set), whose common
beginning is its shared prefix, and adds items until its tokens are spent, so that little is
computed twice and almost nothing is padding. A user's own items are shuffled and cut into groups
once, and each epoch visits all groups in an order of its own. Losses are averaged over items,
however many a step holds. All leaves of a batch are [A, ...]: A microbatches whose losses add up.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.scoring import packing
from antiimit_jax.scoring.trie import FormPath, WordQuery, word_query
from antiimit_jax.tasks.cells import normal
from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.user_items import load_items
from antiimit_jax.text.formats import Message, build_prompt
from antiimit_jax.text.tokenizer import Tokenizer
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.targets import SAMPLED, Shares, Transform

_ITEM_STREAM, _OWN_STREAM, _TASK_STREAM = 1, 4, 5  # 11 and 12: `targets`, 13: `anchor`
_LEAST_ITEM_TOKENS = 16  # no item takes fewer after its shared prefix
_TOKENS_A_POSITION = 3  # at least as many tokens of a group as there are for each logit position
Asked = tuple[list[Item], list[WordQuery]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asking:
    """How a model is asked for the probabilities of words."""

    tokenizer: Tokenizer
    prompt_format: str  # "chat" or "base"
    forms: str
    stops: np.ndarray  # bool [V], the terminators

    def query(self, messages: tuple[Message, ...], words: tuple[str, ...]) -> WordQuery:
        """Words after messages."""
        prompt = build_prompt(self.tokenizer, messages, self.prompt_format)
        return word_query(self.tokenizer, prompt, words, forms=self.forms)

    def canonical_query(self, messages: tuple[Message, ...], words: tuple[str, ...]) -> WordQuery:
        """The same with one form of each word: after a visible character the one with a space."""
        tail = build_prompt(self.tokenizer, messages, self.prompt_format).tail
        spaced = bool(tail) and not tail[-1].isspace()
        query = self.query(messages, words)
        chosen: dict[int, FormPath] = {}
        for path in sorted(query.paths, key=lambda path: path.text.startswith(" ") != spaced):
            chosen.setdefault(path.word, path)
        return dataclasses.replace(query, paths=tuple(chosen[i] for i in range(len(words))))


class ControlBatch(NamedTuple):
    """Packed requests, the target share of every word slot, and counts of the whole step.

    Two requests are a pair where they name the same two words in the same order and ask for the
    first what the other asks for the second.
    """

    packed: packing.PackedBatch
    target: np.ndarray  # [A, B, W] 0 on padding
    pair: np.ndarray  # int32 [A, B, W] number of the word's pair in its microbatch, -1: none
    side: np.ndarray  # float32 [A, B, W] 1 for a pair's word named first, -1 for the second, else 0
    n_items: np.ndarray  # float32 [A], the same for all
    n_pairs: np.ndarray  # float32 [A], the same for all


class _Group(NamedTuple):
    """Requests after one common beginning; rows and pairs number them."""

    rows: list[packing.PackedSequence]
    queries: list[WordQuery]
    shares: list[Shares]
    pairs: list[tuple[int, int]]


def _pairs(items: Sequence[Item]) -> list[tuple[int, int]]:
    """Which items are pairs (`ControlBatch`); one for equal shares has no partner."""
    found, alone = [], {}
    for i, (words, targets) in enumerate((item.words, item.targets) for item in items):
        if len(words) == 2 and targets[0] != targets[1]:
            if (words, targets[::-1]) in alone:
                found.append((alone.pop((words, targets[::-1])), i))
            else:
                alone[words, targets] = i
    return found


class BatchSource:
    """Makes step s's requests of one adapter from the seed and s alone."""

    def __init__(
        self, cfg: TrainConfig, asking: Asking, *, seed: int, transforms: tuple[Transform, ...] = ()
    ) -> None:
        """`transforms` change the targets one after the other, before those of the objective."""
        self._cfg, self._asking, self._seed = cfg, asking, seed
        self._transforms = transforms + ((SAMPLED,) if cfg.objective == "sampled" else ())
        canonical = cfg.objective == "kl_canonical"
        self._query = asking.canonical_query if canonical else asking.query

    @functools.cached_property
    def _limits(self) -> packing.SequenceLimits:
        """The static size of a row."""
        size = self._cfg.row_tokens  # a full row of ordinary items stays under these limits
        usual = packing.SequenceLimits(
            tokens=size, readouts=size // 3, paths=size // 5, steps=8, words=size // 10, terms=6
        )
        queries = self._own[1] if self._cfg.items_file else self._rung_queries
        own = [packing.needed(query, self._asking.stops) for query in queries]
        return packing.SequenceLimits(*map(max, zip(usual, *own)))._replace(tokens=size)

    @functools.cached_property
    def _shape(self) -> packing.BatchShape:
        """The static size of a group."""
        cfg, prefix = self._cfg, self._longest_prefix()
        tokens = cfg.rows * cfg.row_tokens + prefix
        # More than full rows, since none is quite full; and some for short prefixes' sake.
        spare = max(1, cfg.rows // 4) + min(cfg.rows, prefix // cfg.row_tokens)
        rows, positions = cfg.rows + spare, tokens // _TOKENS_A_POSITION
        return packing.BatchShape(self._limits, rows, 1, prefix, tokens, positions)

    def __call__(self, step: int) -> ControlBatch:
        """The requests of one step.

        Raises:
          UserError: one item alone does not fit a row.
        """
        micro = [self._micro(step, number) for number in range(self._cfg.accumulate)]
        batch = jax.tree.map(lambda *arrays: np.stack(arrays), *micro)
        of_step = lambda counts: np.full(len(micro), counts.sum(), np.float32)
        return batch._replace(n_items=of_step(batch.n_items), n_pairs=of_step(batch.n_pairs))

    def examples(self, step: int) -> list[tuple[WordQuery, Shares]]:
        """One step's questions with their target shares, for other software to train on."""
        found = []
        for group in range(self._cfg.accumulate * self._cfg.groups):
            made = self._group(step, group)
            found += [(made.queries[i], made.shares[i]) for row in made.rows for i in row.queries]
        return found

    def _micro(self, step: int, number: int) -> ControlBatch:
        """A microbatch, with its own counts; leaves without the axis of microbatches."""
        n, one = self._cfg.groups, self._shape
        rows, words, n_pairs = [], [], 0
        for group in range(number * n, (number + 1) * n):
            made = self._group(step, group)
            asked = {i for row in made.rows for i in row.queries}
            whole = [both for both in made.pairs if asked.issuperset(both)]
            pair_of = {i: n_pairs + at for at, both in enumerate(whole) for i in both}
            n_pairs += len(whole)
            for row in made.rows:
                rows.append(row)
                words.append(
                    [
                        (share, pair_of.get(i, -1), place)
                        for i in row.queries
                        for place, share in enumerate(made.shares[i])
                    ]
                )
        target, side = np.zeros((2, len(rows), self._limits.words), np.float32)
        pair = np.full(target.shape, -1, np.int32)
        for b, of_row in enumerate(words):
            for w, (share, its_pair, place) in enumerate(of_row):
                target[b, w], pair[b, w] = share, its_pair
                side[b, w] = 1 - 2 * place if its_pair >= 0 else 0
        tokens, readouts = n * one.dense_tokens, n * one.readouts
        shape = one._replace(sequences=len(rows), trunks=n, dense_tokens=tokens, readouts=readouts)
        n_items = sum(len(row.queries) for row in rows)
        packed, counts = packing.stack(rows, shape), np.array([n_items, n_pairs], np.float32)
        return ControlBatch(packed, target, pair, side, *counts)

    def _group(self, step: int, group: int) -> _Group:
        items, queries = (self._own_items if self._cfg.items_file else self._drawn)(step, group)
        targets = [item.targets for item in items]
        for transform in self._transforms:
            rng = np.random.default_rng([self._seed, transform.stream, step, group])
            targets = transform.change(targets, rng)
        return _Group(self._fill(queries), queries, targets, _pairs(items))

    def _drawn(self, step: int, group: int) -> Asked:
        """A group of one task's items, more of them than it has room for."""
        cfg, most = self._cfg, self._shape.dense_tokens // _LEAST_ITEM_TOKENS
        drawn, rng = (
            np.random.default_rng([self._seed, stream, step, group])
            for stream in (_TASK_STREAM, _ITEM_STREAM)
        )
        task = cfg.task(str(drawn.choice(cfg.tasks, p=normal(cfg.task_weights))))
        return self._asked(list(itertools.islice(task.training(rng), most)))

    @functools.cached_property
    def _rung_queries(self) -> list[WordQuery]:
        """Requests for all words that rungs ask for besides the lexicon's."""
        rungs = [self._cfg.task(name) for name in self._cfg.tasks if name != "mixture"]
        return [q for rung in rungs for items in rung.longest() for q in self._asked(items)[1]]

    def _asked(self, items: list[Item]) -> Asked:
        return items, [self._query(item.messages, item.words) for item in items]

    @functools.cached_property
    def _own(self) -> Asked:
        """A user's items, as far as they are trained on."""
        held = load_items(self._cfg.items_file, self._cfg.skip_bad_items)
        return self._asked(list(held.entries[: self._cfg.limit or None]))

    @functools.cached_property
    def _own_groups(self) -> list[list[int]]:
        """The numbers of a user's items, shuffled and cut where a group is full."""
        queries, groups = self._own[1], []
        left = np.random.default_rng([self._seed, _OWN_STREAM]).permutation(len(queries))
        while len(left):
            rows = self._fill([queries[i] for i in left[: self._shape.dense_tokens]])
            taken = sum(len(row.queries) for row in rows)  # the first ones
            groups.append(left[:taken].tolist())
            left = left[taken:]
        return groups

    def _own_items(self, step: int, group: int) -> Asked:
        """A group of a user's items: epoch by epoch all of them, each time in another order."""
        groups = self._own_groups
        number = step * self._cfg.accumulate * self._cfg.groups + group
        epoch, place = divmod(number, len(groups))
        rng = np.random.default_rng([self._seed, _OWN_STREAM, 1 + epoch])
        (items, queries), chosen = self._own, groups[rng.permutation(len(groups))[place]]
        return [items[i] for i in chosen], [queries[i] for i in chosen]

    def _fill(self, queries: list[WordQuery]) -> list[packing.PackedSequence]:
        """The rows of one group, filled in order until its tokens are spent."""
        shape, stops = self._shape, self._asking.stops
        prefix = packing.shared_beginning(queries, shape.trunk_tokens)
        rows = [packing.PackedSequence(self._limits, stops, prefix) for _ in range(shape.sequences)]
        left, at = shape.dense_tokens - len(prefix), 0
        for i, query in enumerate(queries):
            need = packing.needed(query, stops, len(prefix))
            if need.tokens > left - sum(row.tokens for row in rows):
                break
            if need.readouts > shape.readouts - sum(row.readouts for row in rows):
                break
            if rows[at].add(i, query):
                continue
            at += bool(rows[at].queries)
            if at == len(rows):
                break
            if not rows[at].add(i, query):
                raise self._too_long(query)
        if not rows[0].queries:
            raise self._too_long(queries[0])
        return rows

    def _too_long(self, query: WordQuery) -> UserError:
        return UserError(
            f"a training item of {len(query.prompt_ids)} prompt tokens does not fit a row: "
            f"raise train.row_tokens (now {self._cfg.row_tokens})"
        )

    def _longest_prefix(self) -> int:
        """Tokens of the longest common beginning that the mixture's items can have."""
        if self._cfg.items_file:
            return len(packing.shared_beginning(self._own[1], 1 << 20))
        longest = 0
        for task in map(self._cfg.task, self._cfg.tasks):
            for items in task.longest():
                queries = self._asked(items)[1]
                longest = max(longest, len(packing.shared_beginning(queries, 1 << 20)))
        return longest
