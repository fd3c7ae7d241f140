"""The broad arm: three adapters trained on many kinds of request, in as many steps as the narrow.

    python -m launch.study --config=configs/broad.py --workdir=runs/broad

Half of the groups of requests are the mixture's, for two to five words; the others have long words,
phrases, digits, non-words and emoji (L4), other phrasings (L5), other ways to write chances (L6),
and other languages (L8). Rungs L10 and L11 are trained on by neither arm: hypothesis F6 compares
the two there. Steps and rows are the narrow arm's; rows and requests are longer, so that a step
has more tokens.
"""

import runpy
from pathlib import Path

import ml_collections

_NARROW = runpy.run_path(str(Path(__file__).with_name("narrow.py")))


def get_config() -> ml_collections.ConfigDict:
    """The narrow arm's fields, and more kinds of request to train on."""
    config = _NARROW["get_config"]()
    config.train.tasks = ("mixture", "L4", "L5", "L6", "L8")
    config.train.task_weights = (4.0, 1.0, 1.0, 1.0, 1.0)
    config.train.mixture.ks = (2, 3, 4, 5)
    config.train.mixture.k_weights = (4.0, 2.0, 1.0, 1.0)
    config.train.row_tokens = 128
    return config
