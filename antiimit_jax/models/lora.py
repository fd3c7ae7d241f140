"""LoRA adapters: a tree of their own, shaped like the layers they attach to.

The tree is {layers: {attn: {q: {a, b}, ...}, mlp: {...}}} with a [L, r, in] and b [L, out, r], the
orientation PEFT stores. It is the `lora` collection of `Decoder`; without it the model is the base,
bit for bit. b starts at zero, so a fresh adapter changes nothing.
Source: Hu et al. 2021 (arXiv 2106.09685); scale alpha / r as in PEFT.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from antiimit_jax.errors import UserError
from antiimit_jax.fields import between, one_of, problems
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.leaves import LORA_TARGETS

Tree = Any
ALL_LINEAR = tuple(LORA_TARGETS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which adapters exist and train."""

    rank: int = between(1, 4096, 16, "rank of every adapter matrix")
    alpha: float = between(
        1e-3, 1e5, 32.0, "updates are scaled by alpha / rank"
    )  # `peft_config` reads it
    targets: tuple[str, ...] = one_of(
        LORA_TARGETS, ALL_LINEAR, "linear layers that have adapters", filled=True
    )
    first_layer: int = between(0, 1000, 0, "adapters train from this layer on")
    last_layer: int = between(-1, 1000, -1, "and below this one; -1: to the top")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def check(self, cfg: ModelConfig) -> None:
        """Raises UserError where a field makes no sense or does not fit the model; all at once."""
        found = problems(self, "lora")
        first, last = self.layer_range(cfg)
        if not 0 <= first < last <= cfg.n_layers:
            asked = f"lora layers {self.first_layer}..{self.last_layer}"
            found.append(f"{asked} do not fit a model of {cfg.n_layers} layers")
        if found:
            raise UserError("; ".join(found))

    def layer_range(self, cfg: ModelConfig) -> tuple[int, int]:
        """(first, last) with last exclusive."""
        last = cfg.n_layers if self.last_layer == -1 else self.last_layer
        return self.first_layer, last


def init_adapter(key: jax.Array, cfg: ModelConfig, lora: LoraConfig) -> Tree:
    """A fresh adapter: a uniform in ±1/sqrt(in) (PEFT's default), b zero, in float32."""
    tree: dict = {}
    for number, (name, leaf) in enumerate(LORA_TARGETS.items()):
        if name not in lora.targets:
            continue
        out, inp = leaf.shape(cfg)
        own, shape = jax.random.fold_in(key, number), (cfg.n_layers, lora.rank, inp)
        a = jax.random.uniform(own, shape, jnp.float32, -1.0, 1.0)
        b = jnp.zeros((cfg.n_layers, out, lora.rank), jnp.float32)
        tree.setdefault(leaf.path[1], {})[name] = {"a": a * inp**-0.5, "b": b}
    return {"layers": tree}


def train_mask(adapter: Tree, cfg: ModelConfig, lora: LoraConfig) -> Tree:
    """1.0 where an adapter trains, else 0.0: [L, 1, 1] per leaf, by module name and layer range."""
    first, last = lora.layer_range(cfg)
    layer = jnp.arange(cfg.n_layers)
    rows = ((layer >= first) & (layer < last)).astype(jnp.float32)[:, None, None]
    trains = lambda path, _: rows * float(path[2].key in lora.targets)
    return jax.tree_util.tree_map_with_path(trains, adapter)
