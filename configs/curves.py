"""Learning curves: what more training word sets, and more phrasings, bring on new ones.

    python -m launch.sweep --config=configs/curves.py --workdir=runs/curves

Eleven cells, each the quickstart's training of one adapter: a few hours on two cores; it resumes.
A cell of the first series trains on so many word sets ("all": no end of them) in all phrasings of
training, one of the second in so many phrasings on all word sets; fewer are always among more.
Steps, batches and the items of the evaluation are the same everywhere. With
--config.train.seeds="(0,1,2)" each cell trains three adapters, and three points show the luck.
"""

import runpy
from pathlib import Path

import ml_collections

from antiimit_jax.reporting.sweep import Place, Sweep
from antiimit_jax.tasks.templates import TRAIN_TEMPLATES

_QUICKSTART = runpy.run_path(str(Path(__file__).with_name("quickstart.py")))
_PLAIN, _HELDOUT = "k=2", "k=2,templates=heldout"


def get_config() -> ml_collections.ConfigDict:
    """The quickstart's fields; pairs of held-out words, some in phrasings never trained on."""
    config = _QUICKSTART["get_config"]()
    config.suites = ("control",)
    config.control.splits = ("heldout_words",)
    config.control.mixture.ks = (2,)
    config.control.mixture.k_weights = (1.0,)
    config.control.mixture.shots = (0,)
    config.control.mixture.shot_weights = (1.0,)
    config.control.mixture.heldout_weight = 0.4
    config.control.n_items = 480
    return config


def get_sweep() -> Sweep:
    """The cells, and the figures that the curves show."""
    sets = {str(n): {"train.mixture.word_sets": n} for n in (10, 30, 100, 300, 1000)}
    phrasings = {str(n): {"train.mixture.templates": TRAIN_TEMPLATES[:n]} for n in (1, 2, 4, 8)}
    everything = {"all": {}}
    where = ("control", "heldout_words")
    return Sweep(
        cells={"word_sets": sets | everything, "phrasings": phrasings | everything},
        figures=(
            Place(*where, _PLAIN, "tvd_res", "TVD, new words"),
            Place(*where, _PLAIN, "gamma", "γ, new words"),
            Place(*where, _HELDOUT, "tvd_res", "TVD, new words and phrasings"),
        ),
    )
