"""What a fine-tuning run is made of."""

from __future__ import annotations

import dataclasses

from antiimit_jax.tasks.output_control import Mixture

OBJECTIVES = ("kl", "sampled")
DTYPES = ("auto", "float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One adapter's training."""

    mixture: Mixture = Mixture()
    objective: str = "kl"  # exact forward KL, or next-token loss on one sampled word
    steps: int = 400
    placebo_steps: int = 100
    groups: int = 1  # of a (micro)batch: one template and shot set each, its beginning shared
    rows: int = 4  # of a group: so many full rows and the longest trunk are its tokens
    row_tokens: int = 128  # a row holds whole items
    accumulate: int = 2  # microbatches of a step, one after the other or on several devices
    learning_rate: float = 2e-3
    warmup_steps: int = 20
    final_lr_fraction: float = 0.02
    weight_decay: float = 0.0
    adam_b2: float = 0.99
    clip_norm: float = 1.0
    anchor_weight: float = 1.0  # times KL(base || tuned) on unrelated text; 0 switches it off
    anchor_tokens: int = 64  # tokens of unrelated text a step
    dtype: str = "auto"  # of the frozen weights' products in training
    remat: bool = False
    checkpoint_every: int = 50
    max_skips: int = 5  # non-finite steps in a row before the run stops

    def problems(self) -> list[str]:
        """What makes no sense, one sentence each."""
        problems = []
        if self.objective not in OBJECTIVES:
            problems.append(f"train.objective {self.objective!r}: one of {', '.join(OBJECTIVES)}")
        for field in (
            "steps",
            "groups",
            "rows",
            "row_tokens",
            "accumulate",
            "checkpoint_every",
            "max_skips",
        ):
            if getattr(self, field) < 1:
                problems.append(f"train.{field} = {getattr(self, field)}: at least 1")
        for field in (
            "placebo_steps",
            "warmup_steps",
            "weight_decay",
            "anchor_weight",
            "anchor_tokens",
            "final_lr_fraction",
        ):
            if getattr(self, field) < 0:
                problems.append(f"train.{field} = {getattr(self, field)}: not negative")
        if self.learning_rate <= 0 or self.clip_norm <= 0:
            problems.append("train.learning_rate and train.clip_norm must be positive")
        if self.dtype not in DTYPES:
            problems.append(f"train.dtype {self.dtype!r}: one of {', '.join(DTYPES)}")
        return problems + self.mixture.problems("train.mixture")
