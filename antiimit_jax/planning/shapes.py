"""The shapes a run computes with, made by the run's own code: its items, its batching, its texts.

Lengths depend on a tokenizer. Where the model's own is not at hand (nothing is downloaded), the
embedded model's stands in: with its 49,152 tokens it cuts text no coarser than larger vocabularies
do, so that shapes come out alike or a little larger.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import numpy as np

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
from antiimit_jax.training.batches import BatchSource, TrainBatch

_PATHS = 24  # asked for behind each prompt in a round of the search


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapes:
    """Batches of padding in the shapes a run uses; empty tuples where it does not use a function."""

    words: tuple[PackedBatch, ...]  # the largest of the control suite
    variants: tuple[PackedBatch, ...]  # the largest under other scoring rules
    search: tuple[PackedBatch, ...]  # the largest of the search for other words
    text: TextRow | None  # of the drift suite
    train: TrainBatch


def shapes_of(run: RunConfig, tokenizer: Tokenizer, prompt_format: str) -> Shapes:
    """The shapes of a configuration under a tokenizer.

    Args:
      prompt_format: "chat" or "base"; base where the tokenizer has no template.
    """
    style = prompt_format if tokenizer.hf.chat_template else "base"
    stops = build_terminators(tokenizer, tokenizer.size).mask(run.terminators)

    def ask(item: Item, messages, forms: str = run.forms, tokenisations: int = 1) -> WordQuery:
        prompt = build_prompt(tokenizer, messages, style)
        return word_query(
            tokenizer, prompt, item.words, forms=forms, max_tokenisations=tokenisations
        )

    words, variants, search = [], [], []
    control = run.control
    if "control" in run.suites:
        items = [
            item
            for split in control.splits
            for item in evaluation_items(control.mixture, split, control.n_items, run.seed)
        ]
        words = [ask(item, item.messages) for item in items]
        prior = {(item.prior_messages, item.words): item for item in items}
        words_prior = [ask(item, item.prior_messages) for item in prior.values()]
        explored = two_word_items(control, run.seed, control.n_explored)
        search = [_searched(ask(item, item.messages)) for item in explored]
        chosen = two_word_items(control, run.seed, control.n_variants)
        variants = [
            [ask(item, item.messages, forms or run.forms, many) for item in chosen]
            for forms, _, many in VARIANTS.values()
        ]
        words = [*_largest(words, stops), *_largest(words_prior, stops)]
        variants = list(itertools.chain.from_iterable(_largest(one, stops) for one in variants))
        search = _largest(search, stops)
    text = None
    if "drift" in run.suites:
        texts = [
            neutral_tokens(tokenizer, prompt.messages, prompt.text, style)
            for prompt in choose_prompts(run.drift.n_prompts)
        ]
        text = text_row([], row_tokens(texts))
    source = BatchSource(
        run.train, tokenizer, stops, prompt_format=style, forms=run.forms, seed=run.seed,
        placebo=False,
    )  # fmt: skip
    return Shapes(
        words=_top(words),
        variants=_top(variants),
        search=_top(search),
        text=text,
        train=source(0),
    )


def _searched(query: WordQuery) -> WordQuery:
    """The prompt with a round's paths behind it: as many as are asked for, of two tokens each."""
    paths = tuple(FormPath("", (token, token + 1), token) for token in range(_PATHS))
    return WordQuery(query.prompt_ids, paths, len(paths))


def _largest(queries: Sequence[WordQuery], stops: np.ndarray) -> list[PackedBatch]:
    return [work.empty for work in plan(queries, stops)] if queries else []


def _top(batches: Sequence[PackedBatch]) -> tuple[PackedBatch, ...]:
    """Those with most readouts (logits), most tokens (activations) and most pairs (attention)."""
    distinct = {str(jax.tree.map(np.shape, batch)): batch for batch in batches}.values()
    chosen = {}
    for size in (_readouts, _tokens, _pairs):
        if distinct:
            best = max(distinct, key=size)
            chosen[id(best)] = best
    return tuple(chosen.values())


def _readouts(batch: PackedBatch) -> int:
    return batch.read_at.size


def _tokens(batch: PackedBatch) -> int:
    return batch.forest.tokens.size + batch.forest.trunk_tokens.size


def _pairs(batch: PackedBatch) -> int:
    (B, T), (P, U) = batch.forest.tokens.shape, batch.forest.trunk_tokens.shape
    return B * T * (U + T) + P * U * U
