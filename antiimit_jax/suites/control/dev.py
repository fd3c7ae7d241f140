"""A short look at control while an adapter trains, on words that are kept for such choices."""

import dataclasses

import numpy as np

from antiimit_jax.metrics.control import tvd_res
from antiimit_jax.suites import control, suite

SPLIT, N_ITEMS = "dev_words", 40


def dev_figures(asker: suite.Asker, cfg: control.Config) -> dict[str, float]:
    """`dev_tvd` and `dev_mass`: means over plain requests for two words of the split dev_words.

    Nothing is drawn at random but the items, by the asker's eval_seed.
    """
    own = dataclasses.replace(cfg, splits=(SPLIT,), items_file="", limit=0)
    items = control.plain_pairs(own, asker.eval_seed, N_ITEMS)
    answers = asker.words(suite.asks_of(items), what=SPLIT)
    asked, given = np.array([item.targets for item in items]), np.array([a.q for a in answers])
    tvd, mass = tvd_res(asked, given).mean(), given.sum(axis=1).mean()
    return {"dev_tvd": float(tvd), "dev_mass": float(mass)}
