"""L7: “rarely”, “often” in place of numbers. No share is the right one, but an order is.

A scale is one word set with one of its words at all quantifiers, in one wording. Over its pairs of
quantifiers, `tau` is the mean of sign(share at the higher - share at the lower): Kendall's τ, where
equal shares count 0. `agreement` is the same between the scales of two wordings.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from antiimit_jax.metrics.control import FLOOR
from antiimit_jax.suites import suite
from antiimit_jax.suites.ladder import shares
from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.unnumbered import ORDERS, QUANTIFIERS

QUANTIFIED = "ladder_quantifiers"
TABLES = {
    QUANTIFIED: pa.schema(
        {name: pa.string() for name in ("stage", "split", "item", "cluster", "kind", "word")}
        | {"level": pa.int32()}  # place in `tasks.unnumbered.QUANTIFIERS`
        | {name: pa.float64() for name in ("q_word", "q_other", "residual")}
        | {"scoring": pa.string(), "dtype": pa.string()}
    )
}


def quantified_answers(asker: suite.Asker, items: Sequence[Item]) -> dict[str, list]:
    """The probabilities of the word that a quantifier is about and of the other one."""
    answers = shares.asked(asker, items, "ladder, quantifiers")
    own = {name: [item.facets[name] for item in items] for name in ("kind", "level")}
    own |= {"split": [item.split for item in items], "word": [item.words[0] for item in items]}
    for place, name in enumerate(("q_word", "q_other")):
        own[name] = [float(answer.q[place]) for answer in answers]
    return suite.columns_of_items(asker, items, answers) | own


def quantifier_rows(table: suite.Columns, stage: str, boot: suite.Bootstrap) -> list[suite.Row]:
    """Whether shares rise with the quantifier, alike in all wordings; of one stage.

    Beside the base also of one who always gives equal shares.
    """
    rows = _rows(table, stage, boot)
    if stage == "base":
        half = np.full(len(table["level"]), 0.5)
        equal = dict(q_word=half, q_other=half, residual=np.zeros(len(half)))
        rows += _rows(dict(table) | equal, shares.UNIFORM, boot)
    return rows


def _rows(table: suite.Columns, stage: str, boot: suite.Bootstrap) -> list[suite.Row]:
    share = table["q_word"] / np.maximum(table["q_word"] + table["q_other"], FLOOR)
    where = dict(stage=stage, suite="ladder", split="L7")
    slices = {f"often={often}": table["level"] == n for n, often in enumerate(QUANTIFIERS)}
    rows = []
    for name, mask in slices.items():
        columns, cluster = {"share": share[mask]}, table["cluster"][mask]
        statistics = [suite.mean("share", "share")]
        rows += suite.rows_at(where | {"slice": name}, statistics, columns, cluster, boot)

    kinds = range(len(np.unique(table["kind"])))
    shape = -1, len(kinds), len(ORDERS), len(QUANTIFIERS)  # as `quantified` gives them
    of_set = lambda values: values.reshape(shape)  # [sets, wordings, words, levels]
    scales = of_set(share)
    pairs = itertools.combinations(range(len(QUANTIFIERS)), 2)
    signs = np.stack([np.sign(scales[..., j] - scales[..., i]) for i, j in pairs], axis=-1)
    alike = [signs[:, i] * signs[:, j] for i, j in itertools.combinations(kinds, 2)]
    figures = {
        "tau": signs.mean(axis=(1, 2, 3)),
        "agreement": np.mean(alike, axis=(0, 2, 3)),
        "mass": of_set(1 - table["residual"]).mean(axis=(1, 2, 3)),
    }
    statistics = [suite.mean(name, name) for name in figures]
    cluster = of_set(table["cluster"])[:, 0, 0, 0]
    return rows + suite.rows_at(where | {"slice": "all"}, statistics, figures, cluster, boot)
