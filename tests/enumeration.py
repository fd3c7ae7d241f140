"""Word probabilities the slow way: one plain sequence at a time, events from their meaning.

The event of a token path z is every text that goes on from the prompt with z and then a terminator.
A text that lies in several paths' events counts for the longest of these paths only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax

from antiimit_jax.models.decoder import Decoder, sequences

Ids = tuple[int, ...]


class PlainModel:
    """A decoder that reads one causal sequence at a time, without trees, trunks or packing."""

    def __init__(self, decoder: Decoder, variables: Any, longest: int) -> None:
        self._variables, self._longest = variables, longest
        self._known: dict[Ids, np.ndarray] = {}

        @jax.jit
        def logits(variables, tokens, ends):
            forest = sequences(tokens, jnp.arange(longest)[None], ends)
            return decoder.apply(variables, decoder.apply(variables, forest), method="logits")

        self._logits = logits

    def log_probs(self, ids: Ids) -> np.ndarray:
        """[len(ids), V] float64: log-probability of each next token after each token."""
        if ids not in self._known:
            n = len(ids)
            tokens, ends = (np.zeros((1, self._longest), np.int32) for _ in range(2))
            tokens[0, :n], ends[0, :n] = ids, n
            logits = np.asarray(self._logits(self._variables, tokens, ends))[0, :n]
            self._known[ids] = log_softmax(logits.astype(np.float64), axis=-1)
        return self._known[ids]

    def log_path(self, prompt: Ids, path: Ids) -> float:
        """log P(path | prompt)."""
        after = self.log_probs(prompt + path)[len(prompt) - 1 :]
        return float(sum(after[i, token] for i, token in enumerate(path)))

    def log_next(self, ids: Ids) -> np.ndarray:
        """[V] after all ids."""
        return self.log_probs(ids)[-1]


def word_probabilities(
    model: PlainModel, prompt: Ids, words: Sequence[Sequence[Ids]], stops: np.ndarray
) -> np.ndarray:
    """q of each word, given all of its token paths; float64."""
    paths = [path for of_word in words for path in of_word]

    def whole(path: Ids) -> float:
        ends = np.exp(model.log_next(prompt + path))[stops].sum()
        return float(np.exp(model.log_path(prompt, path)) * ends)

    def own(path: Ids) -> float:
        longer = [
            other
            for other in paths
            if len(other) > len(path) and other[: len(path)] == path and stops[other[len(path)]]
        ]
        outermost = [
            other
            for other in longer
            if not any(
                len(path) < len(between) < len(other)
                and other[: len(between)] == between
                and stops[other[len(between)]]
                for between in longer
            )
        ]
        return whole(path) - sum(whole(other) for other in outermost)

    return np.array([sum(own(path) for path in of_word) for of_word in words])
