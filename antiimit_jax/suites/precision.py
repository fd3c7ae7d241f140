"""The precision guard: how far a share moves when the base's weights are rounded to bfloat16.

    python -m launch.evaluate --suites=precision --workdir=runs/precision

Shares are read on all items, since a shift of mass is not one of share. The comparison starts from
the weights as the checkpoint stores them, whatever dtype the run computes in.

What is found of a model that does as asked on the default's items when rounding (tests):
                                                      precision_error
  changes nothing                                            0
  leaves it half of its mass, or 1e-12, shares as before     0
  adds .01 to the share of each word named first            .01
  adds .02 on one request of the 64                         .02  (the largest, not the mean)
  exchanges the two words                                   .90
  leaves it no mass at all: both shares count as 0          .95
"""

import dataclasses

import numpy as np

from antiimit_jax.models.weights import cast_matrices
from antiimit_jax.suites import control, suite

NEEDS = ("words", "changed")
FIGURES = suite.figures("precision")
TABLES = {"precision": control.ITEMS}
_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """How many of the control suite's items are asked twice."""

    n_items: int = suite.count(0, 64, "plain requests for two words")
    control: "control.Config" = suite.shared("control")


def programs(cfg: Config, seed: int, scoring: suite.Scoring) -> list[suite.Program]:
    """Words under rounded weights."""
    asks = tuple(suite.asks_of(control.plain_pairs(cfg.control, seed, cfg.n_items)))
    common = dict(kind="words", asks=asks, scorings=(scoring,), weights="rounded")
    return [suite.Program(name="precision", of_base=2, **common)] if asks else []


def measure(asker: suite.Asker, cfg: Config) -> suite.Tables:
    """The base's answers in float32 and with rounded weights; nothing at other stages."""
    items = control.plain_pairs(cfg.control, asker.eval_seed, cfg.n_items)
    if asker.stage.kind != "base" or not items:
        return {}
    stored, asks, pieces = asker.stored, suite.asks_of(items), []
    for dtype in _DTYPES:
        changed = stored if dtype == "float32" else stored.changed(_rounded)
        answers = changed.words(asks, what=f"weights in {dtype}")
        pieces.append(control.item_columns(asker, items, answers, suite="precision", dtype=dtype))
    return {"precision": suite.joined(pieces)}


def _rounded(params):
    return cast_matrices(params, "bfloat16")


def score(tables: suite.Tables, cfg: Config, boot: suite.Bootstrap) -> list[suite.Row]:
    """The largest difference of a share between the two dtypes: slice "dtype=bfloat16"."""
    rows = []
    for stage, table in suite.parts(tables["precision"], "stage"):
        one, other = (
            control.results_of(suite.taken(table, table["dtype"] == dtype)) for dtype in _DTYPES
        )
        shares = [r.q / np.maximum(r.q.sum(axis=1, keepdims=True), 1e-30) for r in (one, other)]
        largest = float(np.abs(shares[0] - shares[1]).max())
        place = dict(stage=stage, suite="precision", split=table["split"][0])
        place |= dict(slice="dtype=bfloat16", metric="precision_error")
        count = dict(n=len(one.k), clusters=len(np.unique(one.cluster)))
        note = "a maximum has no interval"
        rows.append(suite.make_row(**place, value=largest, **count, note=note))
    return rows


def section(tables: suite.Tables, rows: suite.Rows) -> suite.Section:
    """One sentence."""
    found = [row for row in rows.all if row["suite"] == "precision"]
    text = [
        f"Rounding the weights of stage “{row['stage']}” to bfloat16 moves the share of a word by "
        f"at most {row['value']:.4f} on {row['n']} requests for two words ({row['split']})."
        for row in found
    ]
    return suite.Section("Precision", text, absent=[] if found else ["Not measured in this run."])
