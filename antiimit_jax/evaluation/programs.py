"""What a suite's programs make a model read, before any model is there, and what reads it."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from antiimit_jax.evaluation.runner import SEARCH_ROUNDS
from antiimit_jax.models.decoder import n_tokens
from antiimit_jax.scoring.asks import Ask, Program
from antiimit_jax.scoring.batching import PackedBatches, pack_batches
from antiimit_jax.scoring.differences import differences, sequence_tokens
from antiimit_jax.scoring.generate import Draws, pack_draws, sampled
from antiimit_jax.scoring.lexicon_search import SEARCH_TOKENS, following
from antiimit_jax.scoring.packing import PackedBatch
from antiimit_jax.scoring.terminators import build_terminators
from antiimit_jax.scoring.texts import pack_texts
from antiimit_jax.scoring.top_words import continuations
from antiimit_jax.scoring.trie import FormPath, WordQuery, first_token_query, word_query
from antiimit_jax.scoring.word_probs import next_token_probs, word_log_probs
from antiimit_jax.text.formats import Prompt, build_prompt, neutral_tokens
from antiimit_jax.text.tokenizer import Tokenizer

_PATHS = 24  # asked for after each prompt in a round of the search
_ALIKE = 36  # prompts of a search through a lexicon that stand for all of them

FUNCTIONS = {  # what reads the batches of each kind of program
    "words": word_log_probs,
    "first_tokens": next_token_probs,
    "top_words": continuations,
    "lexicon_words": following,
    "texts": differences,
    "generate": sampled,  # greedy ones set aside no more
}


class Work:
    """Programs as batches of padding and counts of tokens, under one tokenizer."""

    def __init__(self, tokenizer: Tokenizer, prompt_format: str) -> None:
        """`prompt_format` is "chat" or "base"; base is taken where there is no chat template."""
        self.tokenizer = tokenizer
        self.prompt_format = prompt_format if tokenizer.hf.chat_template else "base"
        self.stops = build_terminators(tokenizer, tokenizer.size).standard

    @functools.cache
    def batches(self, program: Program) -> tuple[Any, ...]:
        """A program's largest batches: `PackedBatch`, `PackedTexts` or `Draws`."""
        if program.kind == "texts":
            return (pack_texts([], sequence_tokens(self._texts(program))),)
        if program.kind == "generate":
            prompts = [prompt.ids for prompt in self._prompts(program.asks)]
            place = np.zeros((len(prompts), program.n, program.max_tokens), np.float32)
            return (max((work.empty for work in pack_draws(prompts, place, None)), key=_kept),)
        return largest([work.empty for work in self._packed(program)])

    def tokens(self, program: Program) -> int:
        """Tokens that a model reads for a program; every text twice, since two are compared.

        Of what is generated every token that may come.
        """
        if program.kind == "texts":
            return 2 * sum(len(ids) for ids, _ in self._texts(program))
        if program.kind == "generate":
            said = program.n * program.max_tokens
            return sum(len(prompt.ids) + said for prompt in self._prompts(program.asks))
        counted = n_tokens([work.batches for work in self._packed(program)])
        if program.kind == "lexicon_words":
            return counted * len(program.asks) // min(len(program.asks), _ALIKE)
        return counted * (SEARCH_ROUNDS if program.kind == "top_words" else 1)

    def _texts(self, program: Program) -> list[tuple[Sequence[int], int]]:
        tokenizer, style = self.tokenizer, self.prompt_format
        return [neutral_tokens(tokenizer, t.messages, t.text, style) for t in program.asks]

    def _prompts(self, asks: Sequence[Ask]) -> list[Prompt]:
        return [build_prompt(self.tokenizer, ask.messages, self.prompt_format) for ask in asks]

    def _packed(self, program: Program) -> list[PackedBatches]:
        kind, asks = program.kind, program.asks
        prompts = self._prompts(asks[:_ALIKE] if kind == "lexicon_words" else asks)
        if kind == "lexicon_words":
            searched = [_searched(prompt.ids, program.paths) for prompt in prompts]
            return pack_batches(searched, self.stops, batch_tokens=SEARCH_TOKENS)
        if kind == "words":
            rules = dict.fromkeys((s.forms, s.tokenisations) for s in program.scorings)
            query = functools.partial(word_query, self.tokenizer)
            queries = [
                [query(p, ask.words, forms=f, max_tokenisations=n) for p, ask in zip(prompts, asks)]
                for f, n in rules
            ]
        else:
            ask = {"top_words": _searched, "first_tokens": first_token_query}[kind]
            queries = [[ask(prompt.ids) for prompt in prompts]]
        return [work for some in queries for work in pack_batches(some, self.stops)]


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
