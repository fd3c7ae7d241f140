"""The precision guard: how far a share moves when the base's weights are rounded to bfloat16.

    python -m launch.evaluate --suites=precision --workdir=runs/precision

Shares are read on all items, since a shift of mass is not one of share. The comparison starts from
the weights as the checkpoint stores them, whatever dtype the run computes in.
"""

import dataclasses

import numpy as np

from antiimit_jax.models.weights import cast_matrices
from antiimit_jax.suites import control
from antiimit_jax.suites.suite import (
    Asker,
    Bootstrap,
    Figure,
    Program,
    Row,
    Rows,
    Scoring,
    Section,
    Tables,
    at_least,
    make_row,
    shared,
    taken,
)

NEEDS = ("words", "changed")
FIGURES = (
    Figure(
        name="precision_error",
        label="largest change of a share",
        explanation="how far a word's share moves at most when weights are rounded to bfloat16.",
        best="zero",
    ),
)
TABLES = {"precision": control.ITEMS}
_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """How many of the control suite's items are asked twice."""

    n_items: int = at_least(0, 64)  # plain requests for two words
    control: "control.Config" = shared("control")


def programs(cfg: Config, seed: int, scoring: Scoring) -> list[Program]:
    """Words under rounded weights."""
    asks = tuple(control.asks_of(control.plain_pairs(cfg.control, seed, cfg.n_items)))
    common = dict(kind="words", asks=asks, scorings=(scoring,), weights="rounded")
    return [Program(name="precision", **common)] if asks else []


def measure(asker: Asker, cfg: Config) -> Tables:
    """The base's answers in float32 and with rounded weights; nothing at other stages."""
    items = control.plain_pairs(cfg.control, asker.seed, cfg.n_items)
    if asker.stage.kind != "base" or not items:
        return {}
    stored, columns = asker.stored, {name: [] for name in control.ITEMS.names}
    for dtype in _DTYPES:
        changed = stored if dtype == "float32" else stored.changed(_rounded)
        answers = changed.words(control.asks_of(items), what=f"weights in {dtype}")
        for name, values in control.item_columns(asker, "precision", items, answers).items():
            columns[name] += [dtype] * len(values) if name == "dtype" else values
    return {"precision": columns}


def _rounded(params):
    return cast_matrices(params, "bfloat16")


def score(tables: Tables, cfg: Config, boot: Bootstrap) -> list[Row]:
    """The largest difference of a share between the two dtypes: slice "dtype=bfloat16"."""
    rows, table = [], tables["precision"]
    for stage in dict.fromkeys(table["stage"]):
        of_stage = taken(table, table["stage"] == stage)
        one, other = (
            control.results_of(taken(of_stage, of_stage["dtype"] == dtype)) for dtype in _DTYPES
        )
        shares = [r.q / np.maximum(r.q.sum(axis=1, keepdims=True), 1e-30) for r in (one, other)]
        rows.append(
            make_row(
                stage=stage,
                suite="precision",
                split=of_stage["split"][0],
                slice="dtype=bfloat16",
                metric="precision_error",
                value=float(np.abs(shares[0] - shares[1]).max()),
                n=len(one.k),
                clusters=len(np.unique(one.cluster)),
                note="a maximum has no interval",
            )
        )
    return rows


def section(tables: Tables, rows: Rows) -> Section:
    """One sentence."""
    found = [row for row in rows.all if row["suite"] == "precision"]
    text = [
        f"Rounding the weights of stage “{row['stage']}” to bfloat16 moves the share of a word by "
        f"at most {row['value']:.4f} on {row['n']} requests for two words ({row['split']})."
        for row in found
    ]
    return Section("Precision", text, absent=[] if found else ["Not measured in this run."])
