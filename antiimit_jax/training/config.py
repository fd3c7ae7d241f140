"""What a fine-tuning run is made of."""

import dataclasses

from antiimit_jax.fields import between, bounded, free, one_of, own_file, unweighed
from antiimit_jax.tasks.output_control import Mixture
from antiimit_jax.tasks.rung_training import TRAINABLE, RungTask
from antiimit_jax.tasks.user_items import load_items
from antiimit_jax.training.objectives import OBJECTIVES

DTYPES = ("auto", "float32", "bfloat16")
_STEPS, _MANY, _TOKENS = 10_000_000, 4096, 2**17  # beyond any use: a slip of the finger


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One adapter's training."""

    mixture: Mixture = Mixture()
    tasks: tuple[str, ...] = one_of(
        ("mixture", *TRAINABLE), ("mixture",), "the mixture, rungs of the ladder", filled=True
    )
    task_weights: tuple[float, ...] = between(
        0.0, 1e6, (1.0,), "how often a group's requests are of each task"
    )
    items_file: str = own_file(
        load_items, "your own items, in place of the mixture's", skip="skip_bad_items"
    )
    skip_bad_items: bool = free(False, "leave out lines of items_file that are no items")
    limit: int = between(0, _STEPS, 0, "of your own items, the first ones; 0: all")
    objective: str = one_of(OBJECTIVES, "kl", "what pulls probabilities to the target")
    symmetry: float = between(
        0.0, 1e3, 0.0, "weight of the preference between the words of exchanged requests"
    )
    mass: float = between(
        0.0, 1e3, 0.0, "weight of -log of the words' mass, beside its part in the objective"
    )
    seeds: tuple[int, ...] = between(
        0, 2**32 - 1, (0,), "one tuned and one placebo adapter each", filled=True
    )
    steps: int = between(1, _STEPS, 400, "training steps of the tuned adapter")
    placebo_steps: int = between(0, _STEPS, 100, "training steps of the placebo adapter")
    groups: int = between(1, _MANY, 1, "of a (micro)batch: one template and shot set each")
    rows: int = between(1, _MANY, 4, "of a group: so many full rows and the longest shared prefix")
    row_tokens: int = between(32, _TOKENS, 128, "a row holds whole items")
    accumulate: int = between(1, _MANY, 2, "microbatches of a step, in turns or on several devices")
    learning_rate: float = between(1e-12, 1.0, 2e-3, "of AdamW, at its highest")
    warmup_steps: int = between(0, _STEPS, 20, "steps in which the learning rate rises")
    final_lr_fraction: float = between(
        0.0, 1.0, 0.02, "of the learning rate, what a cosine ends with"
    )
    weight_decay: float = between(0.0, 1e3, 0.0, "of AdamW")
    adam_b2: float = bounded(
        0.99,
        "at least 0 and below 1",
        lambda decay: 0 <= decay < 1,
        "decay of the squared gradients' mean",
    )
    clip_norm: float = between(1e-9, 1e6, 1.0, "gradients are scaled down to this norm")
    anchor_weight: float = between(0.0, 1e6, 1.0, "of KL(base || tuned) on unrelated text; 0: none")
    anchor_tokens: int = between(0, _TOKENS, 64, "tokens of unrelated text a step; 0: none")
    dtype: str = one_of(DTYPES, "auto", "of the frozen weights in training")
    remat: bool = free(False, "compute layers again in the backward pass, in less memory")
    eval_every: int = between(0, _STEPS, 100, "steps between two looks at dev_words; 0: none")
    checkpoint_every: int = between(1, _STEPS, 50, "steps between checkpoints")
    max_skips: int = between(1, _STEPS, 5, "non-finite steps in a row before the run stops")

    def problems(self, path: str) -> list[str]:
        """A limit of items that are not there; weights that do not fit the tasks."""
        found = unweighed(self, path, tasks="task_weights")
        if self.limit and not self.items_file:
            found += [
                f"{path}.limit = {self.limit}: it counts your own items; set {path}.items_file"
            ]
        return found

    def task(self, name: str) -> Mixture | RungTask:
        """What makes the items of one of `tasks`."""
        return self.mixture if name == "mixture" else RungTask(name)
