"""What the two peers share: from token paths to word probabilities, in torch."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import torch

from antiimit_jax.scoring.trie import WordQuery, event_parents


class Scorer(Protocol):
    """One way to ask a transformers model for word probabilities."""

    used: int  # tokens computed since it was last set to 0, without padding
    computed: int  # with padding

    def batches(self, queries: Sequence[WordQuery], size: int) -> Iterable[Sequence[int]]:
        """Indices of the queries of each batch, `size` at most."""

    def log_mass(self, queries: Sequence[WordQuery]) -> torch.Tensor:
        """log P(path, then a terminator | prompt) of all paths in one batch; differentiable."""


def word_probs(
    scorer: Scorer, queries: Sequence[WordQuery], size: int, stops: np.ndarray
) -> list[np.ndarray]:
    """q of every query's words, in batches of a size."""
    found: dict[int, np.ndarray] = {}
    with torch.inference_mode():
        for batch in scorer.batches(queries, size):
            few = [queries[i] for i in batch]
            q = word_sums(few, stops, scorer.log_mass(few))
            parts = q.split([query.n_words for query in few])
            found |= {i: part.numpy() for i, part in zip(batch, parts)}
    return [found[i] for i in range(len(queries))]


def word_sums(
    queries: Sequence[WordQuery], stops: np.ndarray, log_mass: torch.Tensor
) -> torch.Tensor:
    """From the paths of all queries to q of all their words, one after the other."""
    path, word, sign = [], [], []  # what is added to or taken from which word
    first_path = first_word = 0
    for query in queries:
        for z, parent in enumerate(event_parents(query.paths, stops)):
            owners = [(z, 1.0)] if parent < 0 else [(z, 1.0), (parent, -1.0)]
            for owner, added in owners:
                path.append(first_path + z)
                word.append(first_word + query.paths[owner].word)
                sign.append(added)
        first_path += len(query.paths)
        first_word += query.n_words
    mass = log_mass.exp()[torch.tensor(path)] * torch.tensor(sign)
    return torch.zeros(first_word).index_add(0, torch.tensor(word), mass)
