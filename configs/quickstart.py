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

    # Two words without examples: what two CPU cores can learn in a quarter of an hour.
    config.train.mixture.ks = (2,)
    config.train.mixture.k_weights = (1.0,)
    config.train.mixture.shots = (0,)
    config.train.mixture.shot_weights = (1.0,)
    config.train.dtype = "bfloat16"
    config.train.steps = 400
    config.train.placebo_steps = 100
    return config
