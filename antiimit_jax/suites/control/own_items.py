"""The control suite on a user's own items: their slices, and the baselines that they lack."""

import json
from collections.abc import Sequence

import numpy as np

from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.rows import standard_slices
from antiimit_jax.results import Row

_OURS = ("template", "shots")  # slices by what only our own items have
_LIKE = "baseline:uniform"  # has all figures
_LACKING = {
    "prior": "a user's items have no prompt without percentages",
    "few_shot_copy": "a user's items have no known examples",
}


def own_slices(results: ControlResults, facets: Sequence[str]) -> dict[str, np.ndarray]:
    """The standard slices, and "FACET=VALUE" for all values of the items' facets.

    Args:
      facets: [n] JSON objects, texts by name.
    """
    standard = standard_slices(results)
    slices = {name: mask for name, mask in standard.items() if name.split("=")[0] not in _OURS}
    known = list(map(json.loads, facets))
    for name, value in dict.fromkeys(pair for of_item in known for pair in of_item.items()):
        slices[f"{name}={value}"] = np.array([of_item.get(name) == value for of_item in known])
    return slices


def lacking_rows(rows: Sequence[Row]) -> list[Row]:
    """The figures of the baselines that need what a user's items lack: null, with a note.

    Args:
      rows: those of the baselines that there are.
    """
    nothing = {"value": None, "ci_low": None, "ci_high": None, "n": 0, "clusters": 0}
    return [
        {**row, **nothing, "stage": f"baseline:{name}", "note": note}
        for name, note in _LACKING.items()
        for row in rows
        if row["stage"] == _LIKE
    ]
