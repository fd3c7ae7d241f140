"""Unrelated text on which training holds the model to its base, as a function of (seed, step)."""

import functools

import jax
import numpy as np

from antiimit_jax.scoring.texts import PackedTexts, pack_texts
from antiimit_jax.tasks.neutral import load_neutral
from antiimit_jax.text.formats import neutral_tokens
from antiimit_jax.training.batches import Asking

_ANCHOR_STREAM = 13  # keeps random streams apart


class AnchorSource:
    """Makes step s's row of unrelated text from the seed and s alone."""

    def __init__(self, size: int, asking: Asking, *, seed: int) -> None:
        """`size` is the number of tokens of a row."""
        self._size, self._asking, self._seed = size, asking, seed

    @functools.cached_property
    def _texts(self) -> list[tuple[tuple[int, ...], int]]:
        tokenizer, style = self._asking.tokenizer, self._asking.prompt_format
        texts = load_neutral("anchor")
        return [neutral_tokens(tokenizer, text.messages, text.text, style) for text in texts]

    def __call__(self, step: int) -> PackedTexts:
        """Texts in random order, side by side, until the row is full; one microbatch."""
        rng = np.random.default_rng([self._seed, _ANCHOR_STREAM, step])
        row = pack_texts([self._texts[i] for i in rng.permutation(len(self._texts))], self._size)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[None], row)
