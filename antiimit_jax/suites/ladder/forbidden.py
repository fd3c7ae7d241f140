"""L12: three words are named, one of them is not to be said.

No shares of the other two are the right ones, but they should be as they were: as the same model
has them where none is forbidden. `suppression` is 1 - (share of the forbidden word) / (its share
where it was allowed), each summed over all requests: 0 where the prohibition changes nothing, below
0 where naming the word once more brings it forth. `others_tvd` is the distance between the shares
of the other two among themselves, before and now. Row "baseline:heedless" answers every
prohibition as the base answers where none is made.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from antiimit_jax.metrics.control import FLOOR
from antiimit_jax.metrics.intervals import ratio
from antiimit_jax.suites import suite
from antiimit_jax.suites.ladder import shares
from antiimit_jax.tasks.items import Item

FORBIDDEN, HEEDLESS = "ladder_forbidden", "baseline:heedless"
_Q = ("q_1", "q_2", "q_3")  # of the words in the order named
TABLES = {
    FORBIDDEN: pa.schema(
        {name: pa.string() for name in ("stage", "split", "item", "cluster", "kind")}
        | {"forbidden": pa.int32()}  # place of the word, -1: none
        | {name: pa.float64() for name in (*_Q, "residual")}
        | {"scoring": pa.string(), "dtype": pa.string()}
    )
}
_ASKED = len(_Q) + 1  # requests of a set in one order: the allowing one first
_AT = np.eye(len(_Q), dtype=bool)  # [requests, words] which word a request forbids
_SUPPRESSION = suite.Statistic(
    name="suppression",
    columns=("now", "before"),
    finish=lambda now, before: 1 - ratio(now, before),
    missing="the words were hardly said before either",
)
_STATISTICS = (
    _SUPPRESSION,
    *(suite.mean(name, name) for name in ("forbidden", "others_tvd", "mass")),
)


def forbidden_answers(asker: suite.Asker, items: Sequence[Item]) -> dict[str, list]:
    """The probabilities of all three words."""
    answers = shares.asked(asker, items, "ladder, a word forbidden")
    own = {name: [item.facets[name] for item in items] for name in ("kind", "forbidden")}
    own |= {"split": [item.split for item in items]}
    own |= {name: [float(answer.q[j]) for answer in answers] for j, name in enumerate(_Q)}
    return suite.columns_of_items(asker, items, answers) | own


def forbidden_rows(table: suite.Columns, stage: str, boot: suite.Bootstrap) -> list[suite.Row]:
    """What is left of the forbidden word, and what became of the others; of one stage."""
    rows = _rows(table, stage, boot)
    if stage == "base":
        allowing = np.arange(len(table["kind"])) // _ASKED * _ASKED
        heedless = {name: table[name][allowing] for name in (*_Q, "residual")}
        rows += _rows(dict(table) | heedless, HEEDLESS, boot)
    return rows


def _rows(table: suite.Columns, stage: str, boot: suite.Bootstrap) -> list[suite.Row]:
    q = np.stack([table[name] for name in _Q], axis=-1)  # [items, words]
    share = q / np.maximum(q.sum(axis=1, keepdims=True), FLOOR)
    before, now = np.split(share.reshape(-1, _ASKED, len(_Q)), [1], axis=1)  # [sets, 1 or 3, words]
    columns = {
        "now": now[:, _AT],
        "before": np.broadcast_to(before, now.shape)[:, _AT],
        "others_tvd": abs(_others(now) - _others(before)).sum(axis=-1) / 2,
        "forbidden": q.reshape(-1, _ASKED, len(_Q))[:, 1:][:, _AT],
        "mass": (1 - table["residual"]).reshape(-1, _ASKED)[:, 1:],
    }  # each [sets, requests]
    cluster, kind = (table[name].reshape(-1, _ASKED)[:, 1:].ravel() for name in ("cluster", "kind"))
    slices = {"all": np.ones(len(kind), bool)} | {f"kind={k}": kind == k for k in np.unique(kind)}
    rows = []
    for name, mask in slices.items():
        place = dict(stage=stage, suite="ladder", split="L12", slice=name)
        part = {metric: values.ravel()[mask] for metric, values in columns.items()}
        rows += suite.rows_at(place, _STATISTICS, part, cluster[mask], boot)
    return rows


def _others(share: np.ndarray) -> np.ndarray:
    """Shares [sets, requests, words] of the words that are not forbidden, among themselves."""
    left = np.where(_AT, 0, share)
    return left / np.maximum(left.sum(axis=-1, keepdims=True), FLOOR)
