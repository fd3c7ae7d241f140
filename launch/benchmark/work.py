"""How many operations a workload needs at least: the measure for the share of a machine's rate.

Counted are matmuls only, a multiplication and an addition as two, and each token once however many
prompts begin with it: the tree of all prompts with their token paths. The head counts where a
distribution is needed. Training adds the backward pass to the inputs of the frozen weights, and the
adapters' own gradients.
"""

from collections.abc import Sequence
from typing import NamedTuple

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.leaves import LORA_TARGETS
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.scoring.trie import WordQuery


class Needed(NamedTuple):
    """What a set of queries needs, whoever computes it."""

    tokens: int  # nodes of the tree of all sequences
    context: int  # sum over tokens of how many tokens each sees, itself among them
    logit_positions: int  # tokens after which a distribution is needed


def needed(queries: Sequence[WordQuery]) -> Needed:
    """The tree of all queries."""
    root: dict = {}
    tokens = context = 0
    positions: set[int] = set()
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
                    positions.add(id(node))
    return Needed(tokens, context, len(positions))


def flops(cfg: ModelConfig, queries: Sequence[WordQuery], lora: LoraConfig | None = None) -> int:
    """Operations of an evaluation, or of a training step of adapters.

    The adapters are on q, k and v at least, in all layers. The first layer's q, k and v need no
    gradient of their input. The optimizer's own operations are left out.
    """
    need = needed(queries)
    shapes = {name: leaf.shape(cfg) for name, leaf in LORA_TARGETS.items()}
    linear = need.tokens * sum(out * inp for out, inp in shapes.values())
    attention = 2 * cfg.n_heads * cfg.head_dim * need.context  # scores, and the mix of values
    head = cfg.vocab_size * cfg.hidden_size * need.logit_positions
    frozen = 2 * (cfg.n_layers * (linear + attention) + head)
    if lora is None:
        return frozen
    thin = 2 * need.tokens * cfg.n_layers * lora.rank * sum(sum(shapes[n]) for n in lora.targets)
    backward = frozen + 2 * thin + 2 * cfg.n_layers * attention
    unneeded = sum(
        shapes[name][0] * shapes[name][1] + lora.rank * shapes[name][1] * (name in lora.targets)
        for name in "qkv"
    )
    return frozen + thin + backward - 2 * need.tokens * unneeded
