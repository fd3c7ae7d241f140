"""The quickstart, measured on requests for two to ten words; trained on two, as there.

    python -m launch.study --config=configs/words.py --workdir=runs/words

Twenty word sets of each number of words from three on, 38 of pairs, on held-out words alone.
"""

import runpy
from pathlib import Path

import ml_collections

_QUICKSTART = runpy.run_path(str(Path(__file__).with_name("quickstart.py")))


def get_config() -> ml_collections.ConfigDict:
    """The quickstart's fields, and what is asked here."""
    config = _QUICKSTART["get_config"]()
    config.suites = ("control", "drift")
    config.control.splits = ("heldout_words",)
    config.control.mixture.ks = tuple(range(2, 11))
    config.control.mixture.k_weights = (38.0, *[20.0] * 8)
    config.control.mixture.shots = (0,)
    config.control.mixture.shot_weights = (1.0,)
    config.control.mixture.heldout_weight = 0.0
    config.control.n_items = 980
    return config
