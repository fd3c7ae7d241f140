"""The shapes a run computes with, made by the run's own code: its items, its batching, its texts.

Lengths depend on a tokenizer. Where the model's own is not at hand (nothing is downloaded), the
embedded model's stands in: with its 49,152 tokens it cuts text no coarser than larger vocabularies
do, so that shapes come out alike or a little larger.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from antiimit_jax.evaluation.config import ControlConfig
from antiimit_jax.evaluation.control import VARIANTS, two_word_items
from antiimit_jax.evaluation.drift import choose_prompts, row_tokens
from antiimit_jax.run_config import RunConfig
from antiimit_jax.scoring.batching import plan
from antiimit_jax.scoring.packing import PackedBatch
from antiimit_jax.scoring.terminators import build_terminators
from antiimit_jax.scoring.texts import TextRow, text_row
from antiimit_jax.scoring.trie import FormPath, WordQuery, word_query
from antiimit_jax.tasks.output_control import Item, evaluation_items
from antiimit_jax.text.formats import build_prompt, neutral_tokens
from antiimit_jax.text.tokenizer import Tokenizer
from antiimit_jax.training.batches import Asking
from antiimit_jax.training.terms import make_batch, make_terms

_PATHS = 24  # asked for after each prompt in a round of the search
Batches = tuple[PackedBatch, ...]


class Shaper:
    """Makes batches of padding in the shapes that configurations use, under one tokenizer."""

    def __init__(self, tokenizer: Tokenizer, prompt_format: str) -> None:
        """`prompt_format` is "chat" or "base"; base is taken where there is no chat template."""
        self._tokenizer = tokenizer
        self._style = prompt_format if tokenizer.hf.chat_template else "base"
        self._stops = build_terminators(tokenizer, tokenizer.size).standard
        self._trained: dict[tuple, dict[str, Any]] = {}

    def words(self, run: RunConfig) -> Batches:
        """The largest batches of the control suite; none where it is not run."""
        return self._words(run.control, run.forms, run.seed) if "control" in run.suites else ()

    def variants(self, run: RunConfig) -> Batches:
        """The largest batches under other scoring rules."""
        if "control" not in run.suites or not run.control.n_variants:
            return ()
        return self._variants(run.control, run.forms, run.seed)

    def search(self, run: RunConfig) -> Batches:
        """The largest batches of the search for the words that were said instead."""
        if "control" not in run.suites or not run.control.n_explored:
            return ()
        items = two_word_items(run.control, run.seed, run.control.n_explored)
        queries = [_searched(self._ask(item, item.messages, run.forms)) for item in items]
        return largest(self._batches(queries))

    def text(self, run: RunConfig) -> TextRow | None:
        """A row of the drift suite; None where it is not run."""
        if "drift" not in run.suites:
            return None
        texts = [
            neutral_tokens(self._tokenizer, prompt.messages, prompt.text, self._style)
            for prompt in choose_prompts(run.drift.n_prompts)
        ]
        return text_row([], row_tokens(texts))

    def asking(self, run: RunConfig) -> Asking:
        """How words are asked for in training."""
        return Asking(
            tokenizer=self._tokenizer, prompt_format=self._style, forms=run.forms, stops=self._stops
        )

    def train(self, run: RunConfig) -> dict[str, Any]:
        """The batch of a training step, by the terms' names."""
        key = (run.train, run.forms, run.seed)
        if key not in self._trained:
            terms = make_terms(run.train, self.asking(run), seed=run.seed)
            self._trained[key] = make_batch(terms, 0)
        return self._trained[key]

    @functools.cache
    def _words(self, control: ControlConfig, forms: str, seed: int) -> Batches:
        items = [
            item
            for split in control.splits
            for item in evaluation_items(control.mixture, split, control.n_items, seed)
        ]
        prior = {(item.prior_messages, item.words): item for item in items}.values()
        asked = [self._ask(item, item.messages, forms) for item in items]
        before = [self._ask(item, item.prior_messages, forms) for item in prior]
        return largest([*self._batches(asked), *self._batches(before)])

    @functools.cache
    def _variants(self, control: ControlConfig, forms: str, seed: int) -> Batches:
        items = two_word_items(control, seed, control.n_variants)
        rules = {(other or forms, many) for other, _, many in VARIANTS.values()}
        found = [
            self._batches([self._ask(item, item.messages, *rule) for item in items])
            for rule in sorted(rules)
        ]
        return largest(list(itertools.chain.from_iterable(found)))

    def _ask(self, item: Item, messages: tuple, forms: str, tokenisations: int = 1) -> WordQuery:
        prompt = build_prompt(self._tokenizer, messages, self._style)
        return word_query(
            self._tokenizer, prompt, item.words, forms=forms, max_tokenisations=tokenisations
        )

    def _batches(self, queries: Sequence[WordQuery]) -> list[PackedBatch]:
        return [work.empty for work in plan(queries, self._stops)]


def _searched(query: WordQuery) -> WordQuery:
    """The prompt with a round's paths after it: as many as are asked for, of two tokens each."""
    paths = tuple(FormPath("", (token, token + 1), token) for token in range(_PATHS))
    return WordQuery(query.prompt_ids, paths, len(paths))


def largest(batches: Sequence[PackedBatch]) -> Batches:
    """Those with most logit positions, most tokens (activations) and most pairs (attention)."""
    positions = lambda batch: batch.read_at.size
    chosen = [max(batches, key=size) for size in (positions, _tokens, _pairs)] if batches else ()
    return tuple({shape_key(batch): batch for batch in chosen}.values())


def shape_key(tree: Any) -> str:
    """Equal for trees of equal structure, shapes and dtypes."""
    return str(jax.tree.map(lambda leaf: (np.shape(leaf), leaf.dtype.name), tree))


def _tokens(batch: PackedBatch) -> int:
    return batch.forest.tokens.size + batch.forest.trunk_tokens.size


def _pairs(batch: PackedBatch) -> int:
    (B, T), (P, U) = batch.forest.tokens.shape, batch.forest.trunk_tokens.shape
    return B * T * (U + T) + P * U * U
