"""The narrow arm: three adapters trained on plain requests for two words, and nothing else.

    python -m launch.study --config=configs/narrow.py --workdir=runs/narrow

Whatever else they control they were not taught: hypothesis F5 is read from their ladder, and F6
from what `configs/broad.py` adds to it on rungs that neither arm is trained on.
"""

import runpy
from pathlib import Path

import ml_collections

_FULL = runpy.run_path(str(Path(__file__).with_name("full.py")))


def get_config() -> ml_collections.ConfigDict:
    """The full study's ladder and control; two words, our trained phrasings, no examples."""
    config = _FULL["get_config"]()
    config.suites = ("control", "ladder")
    config.train.tasks, config.train.task_weights = ("mixture",), (1.0,)
    config.train.mixture.ks, config.train.mixture.k_weights = (2,), (1.0,)
    config.train.mixture.shots, config.train.mixture.shot_weights = (0,), (1.0,)
    return config
