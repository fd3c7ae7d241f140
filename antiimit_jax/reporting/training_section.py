"""The page's part on training: curves of the adapters, how far each ran, what was skipped."""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np

from antiimit_jax.reporting import plots
from antiimit_jax.reporting.rows import ordered
from antiimit_jax.reporting.run_files import Run
from antiimit_jax.results import Picture, Section, stage_named, stage_order

_TITLES = {  # column -> (title, log axis)
    "loss": ("loss (log axis)", True),
    "kl_fwd": ("KL(asked‖given), nats (log axis)", True),
    "residual": ("residual (log axis)", True),
    "anchor_kl": ("anchor KL to the base model", False),
    "dev_tvd": ("TVD on dev_words", False),
    "dev_mass": ("mass on dev_words", False),
    "grad_norm": ("gradient norm", False),
    "lr": ("learning rate", False),
}
_SAID = {"kl_fwd": "KL", "dev_tvd": "TVD on dev_words", "dev_mass": "mass on dev_words"}
_NO_CURVE = ("adapter", "step", "tokens_per_s", "skipped")


def step_counts(run: Run) -> dict[str, int]:
    """Training steps of each adapter, in the stages' order; {} without training.parquet."""
    if run.training is None:
        return {}
    pairs = set(zip(run.training["adapter"].tolist(), run.training["step"].tolist()))
    steps = collections.Counter(name for name, _ in pairs)
    return {name: steps[name] for name in stage_order([stage_named(name) for name in steps])}


def training_section(run: Run) -> Section:
    """Curves of every column of the log, known ones first."""
    if run.training is None:
        return Section("Training", absent=["training.parquet is not in this run."])
    steps = step_counts(run)
    adapter, step = run.training["adapter"], run.training["step"]
    skipped = run.training["skipped"].astype(float)
    sentences = []
    for name, count in steps.items():
        skips = int(np.nansum(skipped[adapter == name]))
        ending = f", {skips} of them skipped." if skips else "."
        sentences.append(f"The {name} adapter ran {count:,} steps{ending}")
    if {"tuned", "placebo"} <= steps.keys() and steps["tuned"] != steps["placebo"]:
        word = "fewer" if steps["placebo"] < steps["tuned"] else "more"
        sentences.append(
            f"The placebo ran {word} steps than the tuned adapter: differences "
            "between the two are also differences in training length."
        )
    drawn, absent = [], []
    for column in ordered((c for c in run.training if c not in _NO_CURVE), _TITLES):
        title, log = _TITLES.get(column, (column, False))
        values = run.training[column].astype(float)
        good = np.isfinite(values)
        if not good.any() or not np.nanmax(np.abs(values)) > 0:
            absent.append(f"{title}: not recorded.")
            continue
        chosen = {name: (adapter == name) & good for name in reversed(steps)}
        series = {name: (step[here], values[here]) for name, here in chosen.items() if here.any()}
        drawing, label = plots.training_figure(title, series, log), f"{title} over steps"
        drawn.append(Picture(drawing=drawing, name=f"training-{column}", label=label))
    return Section(
        "Training",
        sentences,
        drawn,
        legend=plots.legend(list(steps)),
        notes=["Pale lines: each step as recorded; full lines: running means."],
        absent=absent,
    )


def in_words(row: Mapping[str, Any], *columns: str) -> str:
    """Those of the columns of a row of the training log that it has, for people."""
    known = [name for name in columns if row.get(name) is not None]
    return ", ".join(f"{_SAID.get(name, name)} {row[name]:.3f}" for name in known)
