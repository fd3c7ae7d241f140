"""What the model would say, whatever it is: the most probable words over the open vocabulary.

Best-first search over token paths after a prompt. A path's *reach* is the probability that the
answer begins with it; part of that stops there (a terminator follows: the path is a word) and the
rest goes on. In each round the widest-reaching open paths of every prompt are asked for together.
What was never asked for is a known amount, so every list comes with its bound.
"""

import collections
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.scoring.packing import PackedBatch
from antiimit_jax.scoring.trie import FormPath, Ids, WordQuery
from antiimit_jax.scoring.word_probs import next_token_probs
from antiimit_jax.text.formats import Prompt
from antiimit_jax.text.tokenizer import Tokenizer

Array = jax.Array
CONTINUATIONS = 48  # next tokens looked at after every path


class Continuations(NamedTuple):
    """What follows each token path of a batch."""

    stop: Array  # [B, Z] probability that the path ends there
    token: Array  # [B, Z, CONTINUATIONS] most probable next tokens that do not end it
    prob: Array  # [B, Z, CONTINUATIONS]


def continuations(
    decoder: Decoder, variables: dict, stops: Array, batch: PackedBatch
) -> Continuations:
    """Stop probability and most probable continuations after every path of a packed batch.

    After the empty path nothing has been said yet, so nothing can end: every token continues it.
    Where a logit is not finite all probabilities are NaN.
    """
    probs = next_token_probs(decoder, variables, stops, batch)
    ending = stops[None, None] & (batch.path_token >= 0).any(-1)[..., None]
    prob, token = jax.lax.top_k(jnp.where(ending, 0.0, probs), CONTINUATIONS)
    return Continuations(stop=jnp.where(ending, probs, 0.0).sum(-1), token=token, prob=prob)


class TopWord(NamedTuple):
    """One word found: its text as the model would write it, and its probability."""

    text: str
    p: float


class Search:
    """The search after one prompt."""

    def __init__(self, prompt: Prompt, tokenizer: Tokenizer, *, width: int = 24) -> None:
        """Starts with the empty path; `width` paths are asked for in a round."""
        self._prompt, self._tokenizer, self._width = prompt, tokenizer, width
        self._open: dict[Ids, float] = {(): 1.0}  # path -> reach
        self._asked: list[Ids] = []
        self._words: collections.Counter[str] = collections.Counter()  # text -> probability

    def query(self) -> WordQuery:
        """The next round's paths, each as a word of its own."""
        self._asked = sorted(self._open, key=self._open.get, reverse=True)[: self._width]
        paths = tuple(FormPath("", path, number) for number, path in enumerate(self._asked))
        return WordQuery(self._prompt.ids, paths, len(paths))

    def learn(self, stop: np.ndarray, token: np.ndarray, prob: np.ndarray) -> None:
        """Takes in the round's answers, one line a path: [Z], [Z, C], [Z, C]."""
        ends = self._tokenizer.eos_ids
        for z, path in enumerate(self._asked):
            reach = self._open.pop(path)
            if stop[z] > 0:
                self._words[self._tokenizer.decode(path)] += reach * float(stop[z])
            for token_id, p in zip(token[z].tolist(), prob[z].tolist()):
                if p > 0 and token_id in ends:  # only after the empty path: the answer is empty
                    self._words[""] += reach * p
                elif p > 0:
                    self._open[(*path, token_id)] = reach * p

    @property
    def words(self) -> list[TopWord]:
        """What was found, most probable first; texts keep their leading space."""
        return [TopWord(text, p) for text, p in self._words.most_common()]

    @property
    def unvisited(self) -> float:
        """Probability of everything not found: the bound on any word that is not in the list."""
        return max(0.0, 1.0 - self._words.total())
