"""The leaf table: one entry per parameter, read by loading, saving, GGUF, LoRA and PEFT names.

`data/leaves.jsonl` says where the parameter lives in our tree, what Hugging Face and GGUF call it,
and its shape. Linear weights are stored (in, out) here and (out, in) on disk; every layout change
is a transpose and so its own inverse. Where families store the same parameter under different
names, alone or as some rows of a fused tensor, it has an entry for each, and `needs` chooses: so
does Llama's norm before the MLP bear the name that others give to the one after attention.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.tables import read_table

Places = dict[str, list[tuple["Leaf", int]]]  # stored name -> the parameters it holds, with layers


def _size(cfg: ModelConfig, name: str) -> int:
    H, norm_all = cfg.head_dim, cfg.qk_norm == "full"
    sizes = {
        "vocab": cfg.vocab_size,
        "hidden": cfg.hidden_size,
        "mlp": cfg.mlp_size,
        "query": cfg.n_heads * H,
        "key": cfg.n_kv_heads * H,
        "query_norm": cfg.n_heads * H if norm_all else H,
        "key_norm": cfg.n_kv_heads * H if norm_all else H,
    }
    return sizes[name]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
    """One parameter. `{i}` in the names is the layer; our arrays stack layers on axis 0."""

    name: str  # the path, dotted
    hf: str
    gguf: str
    sizes: Sequence[str]  # of this parameter in disk order, per layer, see `_size`
    rotary_heads: str | None = None  # field of ModelConfig: GGUF interleaves each head's rows
    stored_rows: Sequence[str] | None = None  # sizes of all parameters in a fused tensor
    part: int = 0  # which of them this is
    needs: Mapping[str, bool] = dataclasses.field(default_factory=dict)  # ModelConfig fields

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.name.split("."))

    @property
    def stacked(self) -> bool:
        return "{i}" in self.hf

    @property
    def transposed(self) -> bool:
        """On disk (out, in), here (in, out)."""
        return self.path[-1] == "kernel"

    @property
    def axes(self) -> tuple[str, ...]:
        """What each axis of our array is: "layers" where stacked, and `sizes` in our order."""
        names = tuple(self.sizes[::-1] if self.transposed else self.sizes)
        return ("layers", *names) if self.stacked else names

    def needed(self, cfg: ModelConfig) -> bool:
        """Whether this model has the parameter under these names."""
        return all(bool(getattr(cfg, field)) == wanted for field, wanted in self.needs.items())

    def shape(self, cfg: ModelConfig) -> tuple[int, ...]:
        """Of this parameter in disk order, per layer."""
        return tuple(_size(cfg, name) for name in self.sizes)

    def stored_shape(self, cfg: ModelConfig) -> tuple[int, ...]:
        """Of the tensor on disk, which may hold other parameters too."""
        first, *rest = self.shape(cfg)
        return (sum(_size(cfg, name) for name in self.stored_rows or ()) or first, *rest)

    def rows(self, cfg: ModelConfig) -> slice:
        """This parameter's rows of the tensor on disk."""
        first = sum(_size(cfg, name) for name in (self.stored_rows or ())[: self.part])
        return slice(first, first + self.shape(cfg)[0])


LEAVES = tuple(Leaf(**row) for row in read_table("leaves"))

# Where LoRA may attach: our short module name -> its entry, with the projections stored apart.
LORA_TARGETS: dict[str, Leaf] = {
    leaf.path[2]: leaf for leaf in LEAVES if leaf.transposed and leaf.stored_rows is None
}


def leaves_of(cfg: ModelConfig) -> tuple[Leaf, ...]:
    """The entries this model has."""
    return tuple(leaf for leaf in LEAVES if leaf.needed(cfg))


def stored_tensors(cfg: ModelConfig) -> Places:
    """All tensors of a checkpoint in Hugging Face's names, layer by layer; no tied head."""
    leaves = leaves_of(cfg)
    places: Places = {leaf.hf: [(leaf, 0)] for leaf in leaves if leaf.path[0] == "embed"}
    for i in range(cfg.n_layers):
        for leaf in (leaf for leaf in leaves if leaf.stacked):
            places.setdefault(leaf.hf.format(i=i), []).append((leaf, i))
    return places | {leaf.hf: [(leaf, 0)] for leaf in leaves if not leaf.stacked}


def lora_leaves(cfg: ModelConfig) -> dict[str, Leaf]:
    """Short module name -> this model's entry, whose stored tensor may hold several modules."""
    return {leaf.path[2]: leaf for leaf in leaves_of(cfg) if leaf.transposed}
