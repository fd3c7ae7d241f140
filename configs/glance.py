"""The whole study in five minutes on two fast cores: measure, fine-tune, measure again.

    make glance

The quickstart with a tenth of its training and of its items, in a folder of its own. To expect: the
tuned model has learned to answer with one of the asked words, and not yet how often each is asked
for; intervals are wide. The skill is what `configs/quickstart.py` shows.
"""

import runpy
from pathlib import Path

import ml_collections

_QUICKSTART = runpy.run_path(str(Path(__file__).with_name("quickstart.py")))


def get_config() -> ml_collections.ConfigDict:
    """The quickstart's fields, and what is smaller here."""
    config = _QUICKSTART["get_config"]()
    config.suites = ("control", "drift")
    config.train.steps = 45
    config.train.placebo_steps = 12
    config.train.warmup_steps = 10
    config.train.eval_every = 0
    config.train.checkpoint_every = 15
    config.control.splits = ("heldout_words",)
    config.control.n_items = 96
    config.drift.n_prompts = 16
    config.drift.rulers = ("int8_channel",)
    return config
