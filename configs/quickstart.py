"""SmolLM2-135M-Instruct on a laptop: measure, fine-tune, measure again.

    python -m launch.study --config=configs/quickstart.py --workdir=runs/quickstart

To expect on two CPU cores (float32 matmuls at 460 GFLOP/s): 24 to 28 minutes with installation; on
`heldout_words`, two words, TVD .163 [.127, .207] and mass .961 where the base has .965 and .038.
LoRA of rank 16 on all linear layers, AdamW with warm-up and cosine, about 35 requests a step, each
word set asked twice, exact forward KL, and KL to the base on unrelated text (the anchor).

What was tried (two words, `heldout_words`; 120 to 240 items, the last two rows whole studies):

    changed                                             steps  TVD   mass  within  top-1 agreement
    learning_rate 2e-3, anchor weight 1, 64 tokens        300  .189  .967    .508  not measured
    learning_rate 2e-3, anchor weight 10, 128 tokens      240  .209  .946    .449  .877
    learning_rate 1e-3, anchor weight 5, 128 tokens       240  .204  .949    .418  .938
    the same in half the batch, anchor of 64 tokens       480  .222  .955    .424  .916
    this file, but each word set asked once               140  .299  .922    .273  .942
    this file                                             140  .286  .932    .303  .936
    four times the learning rate on b                     140  .292  .933    .169  .842
    Muon instead of Adam                                  140  .323  .932    .117  .916
    clear percentages first, anchor of 64 tokens          400  .160  .961    .604  .912
    this file                                             400  .163  .961    .593  .933

A low learning rate holds the rest of the model better than a heavy anchor does. More steps do not
bring the placebo to equal shares (TVD .36 from 140 to 300 steps): it keeps a preference between the
words of a set, even when it is trained on exactly one half for each word.
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
    config.train.steps = 460
    config.train.placebo_steps = 90
    config.train.learning_rate = 1.1e-3
    config.train.anchor_weight = 6.0
    config.train.anchor_tokens = 128
    config.train.rows = 8
    config.train.row_tokens = 64  # a word set with both its requests, and little to attend to

    for suite in ("scoring", "precision", "residual"):
        config[suite].n_items = 24
    config.drift.n_prompts = 64
    return config
