"""L9: the same chances for every word of a long answer.

The words before a place are drawn from the target, so what a model does at that place is read
exactly and nothing it said itself is in the way. They also tell what is requested: who copies their
shares and reads no request has a γ of his own, which stands beside ("baseline:copies"). In a second
ask the words before are the model's own: a description, since a model that strayed is then asked in
places of its own making.
"""

import numpy as np

from antiimit_jax.metrics.control import tvd_res
from antiimit_jax.metrics.moments import MOMENTS, moment_columns, slope
from antiimit_jax.suites import control, suite
from antiimit_jax.suites.ladder import shares
from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.sequences import PLACES, after

OWN = "ladder_own"
COPIES = "baseline:copies"
TABLES = {OWN: shares.SCHEMA}
MOST_TOKENS = 4 * PLACES[-1]  # of the model's own answer: words, and the spaces before them
_DRIFT = suite.Statistic(name="drift_slope", columns=MOMENTS, finish=slope)
_GAMBLER = suite.Statistic(
    name="gambler",
    columns=MOMENTS,
    finish=slope,
    missing="the words have too little probability at all places of a request but one",
)


def own_answers(asker: suite.Asker, requests: list[Item]) -> dict[str, list]:
    """The words' probabilities after what the model itself said before each place but the first."""
    told = asker.generate(
        [item.messages for item in requests], what="long answers", max_tokens=MOST_TOKENS
    )
    items = []
    for item, (answer,) in zip(requests, told):
        said = answer.text.split()
        whole = said if answer.ended else said[:-1]  # the last one may have been cut
        items += [
            after(item, whole[: place - 1]) for place in PLACES[1:] if place <= len(whole) + 1
        ]
    return shares.answered(asker, items, "ladder, own words before") if items else {}


def sequence_rows(table: suite.Columns, stage: str, boot: suite.Bootstrap) -> list[suite.Row]:
    """How distance grows along the answer, and whether what is missing is made up for.

    Args:
      table: of one stage, words drawn from the target.
    """
    rows = _along(table, stage, boot)
    if stage == "base":
        first = table["word_index"] == 0
        q = copied(table["word_index"], table["place"][first], table["said"][first])
        copying = dict(table, q=q)
        rows += [*shares.rung_rows(copying, COPIES, boot), *_along(copying, COPIES, boot)]
    return rows


def _along(table: suite.Columns, stage: str, boot: suite.Bootstrap) -> list[suite.Row]:
    items, first = control.results_of(table), table["word_index"] == 0
    place, said = table["place"][first], table["said"][first]  # [n]
    where = dict(stage=stage, suite="ladder", split="L9", slice="all")
    distance = moment_columns(place.astype(float), tvd_res(items.target, items.q))
    rows = suite.rows_at(where, [_DRIFT], distance, items.cluster, boot)
    request = np.array([name.rpartition("/")[0] for name in table["item"][first]])
    missing = items.target[:, 0] * (place - 1) - said  # how many words it is behind
    kept = items.readable.astype(float)
    x, y = (_within(request, values, kept) for values in (missing, items.shares[:, 0]))
    columns = {name: kept * column for name, column in moment_columns(x, y).items()}
    return rows + suite.rows_at(where, [_GAMBLER], columns, items.cluster, boot)


def copied(word_index: np.ndarray, place: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Probabilities of one who gives two words as often as they stand before, half a time more.

    Args:
      word_index: of each row of a table; place, said: of each of its items.

    Returns:
      One a row.
    """
    first = (said + 0.5) / place  # of the place - 1 words before, and one
    of_item = np.cumsum(word_index == 0) - 1
    return np.where(word_index == 0, first[of_item], 1 - first[of_item])


def _within(request: np.ndarray, values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Values [n] less their mean over what is kept of the same request."""
    of = np.unique(request, return_inverse=True)[1]
    mean = np.bincount(of, values * kept) / np.maximum(np.bincount(of, kept), 1)
    return values - mean[of]


def own_rows(table: suite.Columns, stage: str, boot: suite.Bootstrap) -> list[suite.Row]:
    """Distance from the target after a model's own words, by place; of one stage."""
    items, first = control.results_of(table), table["word_index"] == 0
    distance, place = tvd_res(items.target, items.q), table["place"][first]
    slices = {"all": place > 0} | {f"kind=place {p}": place == p for p in np.unique(place)}
    rows = []
    for name, mask in slices.items():
        where = dict(stage=stage, suite="ladder", split="L9", slice=name)
        columns, cluster = {"distance": distance[mask]}, items.cluster[mask]
        statistics = [suite.mean("own_tvd", "distance")]
        rows += suite.rows_at(where, statistics, columns, cluster, boot)
    return rows
