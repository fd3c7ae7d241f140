"""The shapes a run computes with, made by the run's own code: its items, its batching, its texts.

Lengths depend on a tokenizer. Where the model's own is not at hand (nothing is downloaded), the
embedded model's stands in: with its 49,152 tokens it cuts text no coarser than larger vocabularies
do, so that shapes come out alike or a little larger.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from antiimit_jax.evaluation.runner import SEARCH_ROUNDS
from antiimit_jax.models.decoder import n_tokens
from antiimit_jax.run_config import RunConfig
from antiimit_jax.scoring.asks import Ask, Program
from antiimit_jax.scoring.batching import PackedBatches, pack_batches
from antiimit_jax.scoring.differences import sequence_tokens
from antiimit_jax.scoring.generate import Draws, pack_draws
from antiimit_jax.scoring.lexicon_search import SEARCH_TOKENS
from antiimit_jax.scoring.packing import PackedBatch
from antiimit_jax.scoring.terminators import build_terminators
from antiimit_jax.scoring.texts import pack_texts
from antiimit_jax.scoring.trie import FormPath, WordQuery, first_token_query, word_query
from antiimit_jax.suites import SUITES
from antiimit_jax.text.formats import Prompt, build_prompt, neutral_tokens
from antiimit_jax.text.tokenizer import Tokenizer
from antiimit_jax.training.batches import Asking
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.terms import make_batch, make_terms

_PATHS = 24  # asked for after each prompt in a round of the search
_ALIKE = 36  # prompts of a search through a lexicon that stand for all of them


def programs_of(run: RunConfig) -> list[Program]:
    """What the suites of a configuration ask of a model."""
    suites = {name: SUITES[name] for name in run.suites if hasattr(SUITES[name], "programs")}
    seed, rule = run.eval_seed, run.rule
    asked = (suite.programs(run.of(name), seed, rule) for name, suite in suites.items())
    return list(itertools.chain(*asked))


class Shaper:
    """Makes batches of padding in the shapes that configurations use, under one tokenizer."""

    def __init__(self, tokenizer: Tokenizer, prompt_format: str) -> None:
        """`prompt_format` is "chat" or "base"; base is taken where there is no chat template."""
        self._tokenizer = tokenizer
        self._style = prompt_format if tokenizer.hf.chat_template else "base"
        self._stops = build_terminators(tokenizer, tokenizer.size).standard

    @functools.cache
    def batches(self, program: Program) -> tuple[Any, ...]:
        """The largest batches of a suite's program: `PackedBatch`, `PackedTexts` or `Draws`."""
        if program.kind == "texts":
            return (pack_texts([], sequence_tokens(self._texts(program))),)
        if program.kind == "generate":
            prompts = [prompt.ids for prompt in self._prompts(program.asks)]
            place = np.zeros((len(prompts), program.n, program.max_tokens), np.float32)
            return (max((work.empty for work in pack_draws(prompts, place, None)), key=_kept),)
        return largest([work.empty for work in self._work(program)])

    def tokens(self, program: Program) -> int:
        """Tokens that a model reads for a program; every text twice, since two are compared.

        Of what is generated every token that may come.
        """
        if program.kind == "texts":
            return 2 * sum(len(ids) for ids, _ in self._texts(program))
        if program.kind == "generate":
            said = program.n * program.max_tokens
            return sum(len(prompt.ids) + said for prompt in self._prompts(program.asks))
        counted = n_tokens([work.batches for work in self._work(program)])
        if program.kind == "lexicon_words":
            return counted * len(program.asks) // min(len(program.asks), _ALIKE)
        return counted * (SEARCH_ROUNDS if program.kind == "top_words" else 1)

    def _texts(self, program: Program) -> list[tuple[Sequence[int], int]]:
        tokenizer, style = self._tokenizer, self._style
        return [neutral_tokens(tokenizer, t.messages, t.text, style) for t in program.asks]

    def _prompts(self, asks: Sequence[Ask]) -> list[Prompt]:
        return [build_prompt(self._tokenizer, ask.messages, self._style) for ask in asks]

    def _work(self, program: Program) -> list[PackedBatches]:
        asks = program.asks[: _ALIKE if program.kind == "lexicon_words" else None]
        prompts = self._prompts(asks)
        if program.kind == "lexicon_words":
            searched = [_searched(prompt.ids, program.paths) for prompt in prompts]
            return pack_batches(searched, self._stops, batch_tokens=SEARCH_TOKENS)
        if program.kind == "top_words":
            rounds = [[_searched(prompt.ids) for prompt in prompts]]
        elif program.kind == "first_tokens":
            rounds = [[first_token_query(prompt.ids) for prompt in prompts]]
        else:
            words = [ask.words for ask in program.asks]
            rules = dict.fromkeys((s.forms, s.tokenisations) for s in program.scorings)
            query = functools.partial(word_query, self._tokenizer)
            rounds = [
                [query(*one, forms=forms, max_tokenisations=many) for one in zip(prompts, words)]
                for forms, many in rules
            ]
        return [work for some in rounds for work in pack_batches(some, self._stops)]

    def asking(self, forms: str) -> Asking:
        """How words are asked for in training."""
        known = dict(tokenizer=self._tokenizer, prompt_format=self._style, stops=self._stops)
        return Asking(forms=forms, **known)

    @functools.cache
    def train(self, cfg: TrainConfig, forms: str, seed: int) -> dict[str, Any]:
        """The batch of a training step, by the terms' names."""
        return make_batch(make_terms(cfg, self.asking(forms), seed=seed), 0)


def _searched(prompt_ids: Sequence[int], many: int = _PATHS) -> WordQuery:
    """A prompt and a round's paths after it: as many as are asked for, of two tokens each."""
    paths = tuple(FormPath("", (token, token + 1), token) for token in range(many))
    return WordQuery(tuple(prompt_ids), paths, len(paths))


def largest(batches: Sequence[PackedBatch]) -> tuple[PackedBatch, ...]:
    """Those with most logit positions, most tokens (activations) and most pairs (attention)."""
    positions = lambda batch: batch.read_at.size
    chosen = [max(batches, key=size) for size in (positions, _tokens, _pairs)] if batches else ()
    return tuple({shape_key(batch): batch for batch in chosen}.values())


def shape_key(tree: Any) -> str:
    """Equal for trees of equal structure, shapes and dtypes."""
    return str(jax.tree.map(lambda leaf: (np.shape(leaf), leaf.dtype.name), tree))


def _tokens(batch: PackedBatch) -> int:
    return batch.forest.tokens.size + batch.forest.trunk_tokens.size


def _kept(batch: Draws) -> int:
    """Tokens whose keys and values are kept: of all prompts, and of a chunk's rows and samples."""
    _, B, W, S = batch.place.shape
    return batch.tokens.size + B * (batch.tokens.shape[1] + W * S)


def _pairs(batch: PackedBatch) -> int:
    (B, T), (P, U) = batch.forest.tokens.shape, batch.forest.trunk_tokens.shape
    return B * T * (U + T) + P * U * U
