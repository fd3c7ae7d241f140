"""Skill against drift: what holding the model to its base on unrelated text costs in control.

    python -m launch.sweep --config=configs/frontier.py --workdir=runs/frontier

Six cells, one for each weight of training's anchor, each the quickstart's training of one adapter,
so a few hours on two cores; it resumes. Weight 6 is the quickstart's.
"""

import runpy
from pathlib import Path

import ml_collections

from antiimit_jax.reporting.sweep import Place, Sweep

_QUICKSTART = runpy.run_path(str(Path(__file__).with_name("quickstart.py")))
_WEIGHTS = (0.0, 0.5, 2.0, 6.0, 20.0, 60.0)


def get_config() -> ml_collections.ConfigDict:
    """The quickstart's fields; plain pairs of held-out words, and drift."""
    config = _QUICKSTART["get_config"]()
    config.suites = ("control", "drift", "leak")
    config.control.splits = ("heldout_words",)
    config.control.mixture = config.train.mixture
    config.control.n_items = 320
    config.drift.rulers = ("int8_channel",)
    return config


def get_sweep() -> Sweep:
    """The cells; skill and TVD against the divergence from the base."""
    where = ("control", "heldout_words", "k=2")
    return Sweep(
        cells={"anchor_weight": {f"{w:g}": {"train.anchor_weight": w} for w in _WEIGHTS}},
        figures=(
            Place(*where, "skill", "skill"),
            Place(*where, "gamma", "γ"),
            Place("drift", "neutral", "all", "top1_agree", "top-1 agreement"),
        ),
        against=Place("drift", "neutral", "all", "kl_base_tuned", "KL(base‖tuned), nats a token"),
    )
