"""How many operations a workload needs at least: the measure for the share of a machine's rate.

Counted are products only, a multiplication and an addition as two, and each token once however many
prompts begin with it: the tree of all prompts with their token paths. The head counts where a
distribution is needed. Training adds the way back to the inputs of the frozen weights, and the
adapters' own gradients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.leaves import LORA_TARGETS
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.scoring.trie import WordQuery


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needed:
    """What a set of queries needs, whoever computes it."""

    tokens: int  # nodes of the tree of all sequences
    context: int  # sum over tokens of how many tokens each sees, itself among them
    readouts: int  # tokens behind which a distribution is needed


def needed(queries: Sequence[WordQuery]) -> Needed:
    """The tree of all queries."""
    root: dict = {}
    tokens = context = 0
    readouts: set[int] = set()
    for query in queries:
        for path in query.paths:
            node = root
            for depth, token in enumerate((*query.prompt_ids, *path.tokens), start=1):
                if token not in node:
                    node[token] = {}
                    tokens += 1
                    context += depth
                node = node[token]
                if depth >= len(query.prompt_ids):
                    readouts.add(id(node))
    return Needed(tokens=tokens, context=context, readouts=len(readouts))


def forward_flops(cfg: ModelConfig, need: Needed) -> int:
    """Operations of a forward pass."""
    linear = sum(out * inp for out, inp in _linear_shapes(cfg).values())
    attention = 2 * cfg.n_heads * cfg.head_dim  # scores, and the mix of values
    layers = cfg.n_layers * (linear * need.tokens + attention * need.context)
    return 2 * (layers + cfg.vocab_size * cfg.hidden_size * need.readouts)


def step_flops(cfg: ModelConfig, need: Needed, lora: LoraConfig) -> int:
    """Operations of a training step with adapters on q, k and v at least, in all layers.

    The first layer's q, k and v need no gradient of their input. Without the optimizer's own.
    """
    shapes = _linear_shapes(cfg)
    thin = {name: lora.rank * sum(shapes[name]) for name in lora.targets}
    forward = forward_flops(cfg, need) + 2 * need.tokens * cfg.n_layers * sum(thin.values())
    attention = 2 * cfg.n_layers * cfg.n_heads * cfg.head_dim * need.context
    backward = 2 * forward - forward_flops(cfg, need) + 2 * attention
    unneeded = sum(
        shapes[name][0] * shapes[name][1] + lora.rank * shapes[name][1] * (name in lora.targets)
        for name in "qkv"
    )
    return forward + backward - 2 * need.tokens * unneeded


def _linear_shapes(cfg: ModelConfig) -> dict[str, tuple[int, int]]:
    return {name: leaf.shape(cfg) for name, leaf in LORA_TARGETS.items()}
