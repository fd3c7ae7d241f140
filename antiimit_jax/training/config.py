"""What a fine-tuning run is made of."""

import dataclasses

from antiimit_jax.fields import at_least, between, bounded, one_of, positive
from antiimit_jax.tasks.output_control import Mixture
from antiimit_jax.training.objectives import OBJECTIVES

DTYPES = ("auto", "float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One adapter's training."""

    mixture: Mixture = Mixture()
    objective: str = one_of(OBJECTIVES, "kl")
    seeds: tuple[int, ...] = between(0, 2**32 - 1, (0,), filled=True)  # one tuned, one placebo each
    steps: int = at_least(1, 400)
    placebo_steps: int = at_least(0, 100)
    groups: int = at_least(1, 1)  # of a (micro)batch: one template and shot set each
    rows: int = at_least(1, 4)  # of a group: so many full rows and the longest shared prefix
    row_tokens: int = at_least(32, 128)  # a row holds whole items
    accumulate: int = at_least(1, 2)  # microbatches of a step, in turns or on several devices
    learning_rate: float = positive(2e-3)
    warmup_steps: int = at_least(0, 20)
    final_lr_fraction: float = between(0.0, 1.0, 0.02)
    weight_decay: float = at_least(0.0, 0.0)
    adam_b2: float = bounded(0.99, "at least 0 and below 1", lambda decay: 0 <= decay < 1)
    clip_norm: float = positive(1.0)
    anchor_weight: float = at_least(0.0, 1.0)  # of KL(base || tuned) on unrelated text; 0: none
    anchor_tokens: int = at_least(0, 64)  # tokens of unrelated text a step; 0: none
    dtype: str = one_of(DTYPES, "auto")  # of the frozen weights in training
    remat: bool = False
    checkpoint_every: int = at_least(1, 50)
    max_skips: int = at_least(1, 5)  # non-finite steps in a row before the run stops
