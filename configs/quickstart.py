"""SmolLM2-135M-Instruct on a laptop: measure, fine-tune, measure again.

    python -m launch.study --config=configs/quickstart.py --workdir=runs/quickstart

What to expect on two CPU cores stands in the README.
"""

import ml_collections

from antiimit_jax.run_config import RunConfig, to_dict


def get_config() -> ml_collections.ConfigDict:
    """All fields with their defaults, and what this study sets."""
    config = ml_collections.ConfigDict(to_dict(RunConfig()))
    config.model = "smollm2-135m-instruct"

    # Trained on two words without examples: what two CPU cores can learn in a quarter of an hour.
    # More words, examples and other phrasings are then requests that it never saw.
    config.train.mixture.ks = (2,)
    config.train.mixture.k_weights = (1.0,)
    config.train.mixture.shots = (0,)
    config.train.mixture.shot_weights = (1.0,)
    config.train.dtype = "bfloat16"
    config.train.steps = 400
    config.train.placebo_steps = 150
    config.train.learning_rate = 1.1e-3
    config.train.anchor_weight = 6.0
    config.train.anchor_tokens = 128
    config.train.rows = (
        8  # of 64 tokens: a word set with both its requests, and little to attend to
    )
    config.train.row_tokens = 64

    config.control.mixture.ks = (2, 3, 4, 5)
    config.control.mixture.k_weights = (0.76, 0.08, 0.08, 0.08)
    config.control.mixture.shots = (0, 2)
    config.control.mixture.shot_weights = (0.88, 0.12)
    config.control.n_items = 260
    for suite in ("scoring", "precision", "residual"):
        config[suite].n_items = 24
    config.drift.n_prompts = 64
    return config
