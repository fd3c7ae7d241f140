"""The table of items as arrays, one row an item."""

import numpy as np

from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.results import Columns


def results_of(table: Columns) -> ControlResults:
    """Arrays [n, W] of a table's items of one stage and split, words in the order named."""
    first = np.flatnonzero(table["word_index"] == 0)  # [n]
    item = np.cumsum(table["word_index"] == 0) - 1  # of each row of the table
    k = table["k"][first]

    def wide(name: str) -> np.ndarray:
        array = np.zeros((len(first), k.max()))
        array[item, table["word_index"]] = table[name]
        empty = np.isnan(array[:, 0])
        array[empty] = np.nan
        return array

    word = np.zeros((len(first), k.max()), int)
    word[item, table["word_index"]] = np.unique(table["word"], return_inverse=True)[1]
    of_item = {name: table[name][first] for name in ("cluster", "shot_set", "n_shots", "template")}
    by_word = {name: wide(name) for name in ("target", "q", "last_shot", "prior")}
    longest = np.maximum.reduceat(table["token_count"], first)
    return ControlResults(k=k, word=word, token_count=longest, **of_item, **by_word)
