"""Training batches as a function of (seed, step): no iterator, no hidden state.

A batch consists of groups. Each group takes one template (and shot set), whose common beginning is
its trunk, and adds items until its tokens are spent, so that little is computed twice and almost
nothing is padding. Losses are averaged over items, however many a step holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.scoring.packing import (
    BatchShape,
    PackedBatch,
    PackedSequence,
    SequenceLimits,
    needed,
    shared_beginning,
    stack,
)
from antiimit_jax.scoring.texts import PackedTexts, pack_texts
from antiimit_jax.scoring.trie import WordQuery, word_query
from antiimit_jax.tasks.neutral import load_neutral
from antiimit_jax.tasks.output_control import N_SHOT_SETS, Item, probe_items, training_items
from antiimit_jax.text.formats import build_prompt, neutral_tokens
from antiimit_jax.text.tokenizer import Tokenizer
from antiimit_jax.training.config import TrainConfig

_LABEL_STREAM, _PLACEBO_STREAM, _ANCHOR_STREAM = 11, 12, 13
_LEAST_ITEM_TOKENS = 16  # no item takes fewer behind its trunk
_TOKENS_A_READOUT = 3  # at least as many tokens of a group as there are for each readout
Shares = tuple[float, ...]  # of one item's words


class TrainBatch(NamedTuple):
    """One step: a packed batch, the target share of every word slot, unrelated text."""

    packed: PackedBatch  # leading axis A
    target: np.ndarray  # [A, B, W] 0 on padding
    n_items: np.ndarray  # float32 []
    anchor: PackedTexts


class BatchSource:
    """Makes step s's batch of one adapter ("tuned" or "placebo") from the seed and s alone."""

    def __init__(
        self,
        cfg: TrainConfig,
        tokenizer: Tokenizer,
        stops: np.ndarray,
        *,
        prompt_format: str,
        forms: str,
        seed: int,
        placebo: bool,
    ) -> None:
        self._cfg, self._tokenizer, self._stops = cfg, tokenizer, stops
        self._format, self._forms, self._seed, self._placebo = prompt_format, forms, seed, placebo
        self._limits = row_limits(cfg)
        self._trunk_tokens = self._longest_trunk()
        self._group_tokens = cfg.rows * cfg.row_tokens + self._trunk_tokens
        self._group_readouts = self._group_tokens // _TOKENS_A_READOUT
        # More than full rows, since none is quite full; and some for short trunks' sake.
        spare = max(1, cfg.rows // 4) + min(cfg.rows, self._trunk_tokens // cfg.row_tokens)
        self._group_rows = cfg.rows + spare
        self._anchors = [
            neutral_tokens(tokenizer, prompt.messages, prompt.text, prompt_format)
            for prompt in load_neutral("anchor")
        ]

    def __call__(self, step: int) -> TrainBatch:
        """The batch of one step.

        Raises:
          UserError: one item alone does not fit a row.
        """
        micro = [self._micro(step, number) for number in range(self._cfg.accumulate)]
        return TrainBatch(
            packed=jax.tree.map(lambda *arrays: np.stack(arrays), *(m[0] for m in micro)),
            target=np.stack([m[1] for m in micro]),
            n_items=np.float32(sum(m[2] for m in micro)),
            anchor=self._anchor(step),
        )

    def examples(self, step: int) -> list[tuple[WordQuery, Shares]]:
        """One step's questions with their target shares, for other software to train on."""
        found = []
        for group in range(self._cfg.accumulate * self._cfg.groups):
            rows, items, shares = self._group(step, group)
            found += [(self._query(items[i]), shares[i]) for row in rows for i in row.queries]
        return found

    def _micro(self, step: int, number: int) -> tuple[PackedBatch, np.ndarray, int]:
        cfg = self._cfg
        rows, targets, n_items = [], [], 0
        for g in range(cfg.groups):
            group = number * cfg.groups + g
            filled, items, shares = self._group(step, group)
            rows += filled
            targets += [[shares[i] for i in row.queries] for row in filled]
            n_items += sum(len(row.queries) for row in filled)
        target = np.zeros((len(rows), self._limits.words), np.float32)
        for b, of_row in enumerate(targets):
            flat = list(itertools.chain.from_iterable(of_row))
            target[b, : len(flat)] = flat
        tokens, readouts = cfg.groups * self._group_tokens, cfg.groups * self._group_readouts
        shape = BatchShape(
            self._limits, len(rows), cfg.groups, self._trunk_tokens, tokens, readouts
        )
        return stack(rows, shape), target, n_items

    def _group(
        self, step: int, group: int
    ) -> tuple[list[PackedSequence], list[Item], list[Shares]]:
        """The rows of one group, the items they number, and each item's target shares."""
        rows, items = self._fill(training_items(self._cfg.mixture, self._seed, step, group))
        return rows, items, self._targets(items, step, group)

    def _fill(self, stream: Iterator[Item]) -> tuple[list[PackedSequence], list[Item]]:
        """The rows of one group, filled in order until its tokens are spent."""
        cfg = self._cfg
        items = list(itertools.islice(stream, self._group_tokens // _LEAST_ITEM_TOKENS))
        queries = [self._query(item) for item in items]
        trunk = shared_beginning(queries, self._trunk_tokens)
        rows: list[PackedSequence] = [PackedSequence(self._limits, self._stops, trunk)]
        left = self._group_tokens - len(trunk)
        for i, query in enumerate(queries):
            need = needed(query, self._stops, len(trunk))
            if need.tokens > left - sum(row.tokens for row in rows):
                break
            if need.readouts > self._group_readouts - sum(row.readouts for row in rows):
                break
            if rows[-1].add(i, query):
                continue
            if not rows[-1].queries:
                raise UserError(
                    f"a training item of {len(query.prompt_ids)} prompt tokens does not fit a row: "
                    f"raise train.row_tokens (now {cfg.row_tokens})"
                )
            if len(rows) == self._group_rows:
                break
            rows.append(PackedSequence(self._limits, self._stops, trunk))
            if not rows[-1].add(i, query):
                raise UserError(f"train.row_tokens = {cfg.row_tokens} is too small for one item")
        spare = self._group_rows - len(rows)
        return [
            *rows,
            *(PackedSequence(self._limits, self._stops, trunk) for _ in range(spare)),
        ], items

    def _query(self, item: Item) -> WordQuery:
        prompt = build_prompt(self._tokenizer, item.messages, self._format)
        return word_query(self._tokenizer, prompt, item.words, forms=self._forms)

    def _longest_trunk(self) -> int:
        """Tokens of the longest common beginning that the mixture's items can have."""
        mixture, longest = self._cfg.mixture, 0
        for template, n_shots, k in itertools.product(mixture.templates, mixture.shots, mixture.ks):
            for shot_set in range(N_SHOT_SETS if n_shots else 1):
                pair = probe_items(template, k, n_shots, shot_set)
                queries = [self._query(item) for item in pair]
                longest = max(longest, len(shared_beginning(queries, 1 << 20)))
        return longest

    def _targets(self, items: list[Item], step: int, number: int) -> list[Shares]:
        targets = [item.targets for item in items]
        if self._placebo:
            rng = np.random.default_rng([self._seed, _PLACEBO_STREAM, step, number])
            targets = permute_targets(targets, rng)
        if self._cfg.objective == "sampled":
            rng = np.random.default_rng([self._seed, _LABEL_STREAM, step, number])
            targets = [tuple(rng.multinomial(1, t).astype(float)) for t in targets]
        return targets

    def _anchor(self, step: int) -> PackedTexts:
        """Anchor texts in random order, side by side, until the row is full."""
        size = max(self._cfg.anchor_tokens, 1)
        rng = np.random.default_rng([self._seed, _ANCHOR_STREAM, step])
        order = rng.permutation(len(self._anchors))
        return pack_texts([self._anchors[i] for i in order], size)


def permute_targets(targets: list[Shares], rng: np.random.Generator) -> list[Shares]:
    """The placebo: target shares permuted across the items of equal word count.

    In a random cycle, so that no item keeps its own (unless it is the only one of its count).
    """
    permuted = list(targets)
    for k in sorted({len(t) for t in targets}):
        members = rng.permutation([i for i, t in enumerate(targets) if len(t) == k])
        for i, j in zip(members, np.roll(members, 1)):
            permuted[i] = targets[j]
    return permuted


def row_limits(cfg: TrainConfig) -> SequenceLimits:
    """Static sizes that a full row of ordinary items stays under."""
    return SequenceLimits(
        tokens=cfg.row_tokens,
        readouts=cfg.row_tokens // 3,
        paths=cfg.row_tokens // 5,
        steps=8,
        words=cfg.row_tokens // 10,
        terms=6,
    )
