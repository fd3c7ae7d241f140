"""The leaf table: one entry per parameter, read by loading, saving, GGUF, LoRA and PEFT names.

It says where the parameter lives in our tree, what Hugging Face and GGUF call it, its shape, and
whether LoRA may attach. Linear weights are stored (in, out) here and (out, in) on disk; every
layout change is a transpose and so its own inverse. Where families store the same parameter under
different names it has an entry for each, and `needed` chooses.
"""

import dataclasses
from collections.abc import Callable

from antiimit_jax.models.config import ModelConfig

Size = Callable[[ModelConfig], int]
Places = dict[str, list[tuple["Leaf", int]]]  # stored name -> the parameters it holds, with layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
    """One parameter. `{i}` in the names is the layer; our arrays stack layers on axis 0."""

    path: tuple[str, ...]
    hf: str
    gguf: str
    shape: Callable[[ModelConfig], tuple[int, ...]]  # of this parameter in disk order, per layer
    transposed: bool = False  # on disk (out, in), here (in, out)
    rotary_heads: Size | None = None  # rows GGUF interleaves per head
    first_row: Size | None = None  # of a stored tensor that holds several parameters
    stored_rows: Size | None = None  # all rows of that tensor
    needed: Callable[[ModelConfig], bool] = lambda cfg: True

    @property
    def name(self) -> str:
        """The path, dotted."""
        return ".".join(self.path)

    @property
    def stacked(self) -> bool:
        return "{i}" in self.hf

    def stored_shape(self, cfg: ModelConfig) -> tuple[int, ...]:
        """Of the tensor on disk, which may hold other parameters too."""
        shape = self.shape(cfg)
        return (self.stored_rows(cfg), *shape[1:]) if self.stored_rows else shape

    def rows(self, cfg: ModelConfig) -> slice:
        """This parameter's rows of the tensor on disk."""
        first = self.first_row(cfg) if self.first_row else 0
        return slice(first, first + self.shape(cfg)[0])


_hidden: Size = lambda cfg: cfg.hidden_size
_query: Size = lambda cfg: cfg.n_heads * cfg.head_dim
_key: Size = lambda cfg: cfg.n_kv_heads * cfg.head_dim
_mlp: Size = lambda cfg: cfg.mlp_size
_query_heads: Size = lambda cfg: cfg.n_heads
_key_heads: Size = lambda cfg: cfg.n_kv_heads
_fused = lambda cfg: cfg.fused_projections
_apart = lambda cfg: not cfg.fused_projections


def _linear(name: str, hf: str, gguf: str, out: Size, inp: Size, **more) -> Leaf:
    group, block = ("attn", "self_attn") if name in "qkvo" else ("mlp", "mlp")
    return Leaf(
        path=("layers", group, name, "kernel"),
        hf=f"model.layers.{{i}}.{block}.{hf}.weight",
        gguf=f"blk.{{i}}.{gguf}.weight",
        shape=lambda cfg: (out(cfg), inp(cfg)),
        transposed=True,
        **more,
    )


def _bias(kernel: Leaf, flag: str) -> Leaf:
    return Leaf(
        path=(*kernel.path[:-1], "bias"),
        hf=kernel.hf.replace(".weight", ".bias"),
        gguf=kernel.gguf.replace(".weight", ".bias"),
        shape=lambda cfg: kernel.shape(cfg)[:1],
        rotary_heads=kernel.rotary_heads,
        needed=lambda cfg: getattr(cfg, flag),
    )


def _norm(name: str, hf: str, gguf: str, needed: Callable[[ModelConfig], bool]) -> Leaf:
    return Leaf(
        path=("layers", name, "scale"),
        hf=f"model.layers.{{i}}.{hf}.weight",
        gguf=f"blk.{{i}}.{gguf}.weight",
        shape=lambda cfg: (cfg.hidden_size,),
        needed=needed,
    )


def _qk_norm(name: str, heads: Size) -> Leaf:
    width = lambda cfg: cfg.head_dim * (heads(cfg) if cfg.qk_norm == "full" else 1)
    return Leaf(
        path=("layers", "attn", f"{name}_norm", "scale"),
        hf=f"model.layers.{{i}}.self_attn.{name}_norm.weight",
        gguf=f"blk.{{i}}.attn_{name}_norm.weight",
        shape=lambda cfg: (width(cfg),),
        needed=lambda cfg: bool(cfg.qk_norm),
    )


_Q = _linear("q", "q_proj", "attn_q", _query, _hidden, rotary_heads=_query_heads, needed=_apart)
_K = _linear("k", "k_proj", "attn_k", _key, _hidden, rotary_heads=_key_heads, needed=_apart)
_V = _linear("v", "v_proj", "attn_v", _key, _hidden, needed=_apart)
_O = _linear("o", "o_proj", "attn_output", _hidden, _query)
_GATE = _linear("gate", "gate_proj", "ffn_gate", _mlp, _hidden, needed=_apart)
_UP = _linear("up", "up_proj", "ffn_up", _mlp, _hidden, needed=_apart)
_DOWN = _linear("down", "down_proj", "ffn_down", _hidden, _mlp)


def _fuse(hf: str, gguf: str, *parts: Leaf) -> tuple[Leaf, ...]:
    """The parts once more, as rows of one stored tensor."""
    rows = lambda cfg, some: sum(part.shape(cfg)[0] for part in some)
    return tuple(
        dataclasses.replace(
            part,
            hf=part.hf.replace(part.hf.split(".")[-2], hf),
            gguf=part.gguf.replace(part.gguf.split(".")[-2], gguf),
            first_row=lambda cfg, n=n: rows(cfg, parts[:n]),
            stored_rows=lambda cfg: rows(cfg, parts),
            needed=_fused,
        )
        for n, part in enumerate(parts)
    )


_TABLE = lambda cfg: (cfg.vocab_size, cfg.hidden_size)

LEAVES: tuple[Leaf, ...] = (
    Leaf(
        path=("embed", "embedding"),
        hf="model.embed_tokens.weight",
        gguf="token_embd.weight",
        shape=_TABLE,
    ),
    _norm("attn_norm", "input_layernorm", "attn_norm", lambda cfg: cfg.pre_norm),
    *(_Q, _K, _V),
    *_fuse("qkv_proj", "attn_qkv", _Q, _K, _V),
    *(_bias(leaf, "qkv_bias") for leaf in (_Q, _K, _V)),
    _qk_norm("q", _query_heads),
    _qk_norm("k", _key_heads),
    _O,
    _bias(_O, "o_bias"),
    _norm(
        "attn_post_norm",
        "post_attention_layernorm",
        "post_attention_norm",
        lambda cfg: cfg.post_norm,
    ),
    # Llama's norm before the MLP bears the name that others give to the one after attention.
    _norm(
        "mlp_norm",
        "post_attention_layernorm",
        "ffn_norm",
        lambda cfg: cfg.pre_norm and not cfg.post_norm,
    ),
    _norm(
        "mlp_norm",
        "pre_feedforward_layernorm",
        "ffn_norm",
        lambda cfg: cfg.pre_norm and cfg.post_norm,
    ),
    *(_GATE, _UP),
    *_fuse("gate_up_proj", "ffn_up", _GATE, _UP),
    _DOWN,
    *(_bias(leaf, "mlp_bias") for leaf in (_GATE, _UP, _DOWN)),
    _norm(
        "mlp_post_norm", "post_feedforward_layernorm", "post_ffw_norm", lambda cfg: cfg.post_norm
    ),
    Leaf(
        path=("final_norm", "scale"),
        hf="model.norm.weight",
        gguf="output_norm.weight",
        shape=lambda cfg: (cfg.hidden_size,),
    ),
    Leaf(
        path=("head",),
        hf="lm_head.weight",
        gguf="output.weight",
        shape=_TABLE,
        needed=lambda cfg: not cfg.tied_head,
    ),
)

# Where LoRA may attach: our short module name -> its entry, with the projections stored apart.
LORA_TARGETS: dict[str, Leaf] = {leaf.path[2]: leaf for leaf in (_Q, _K, _V, _O, _GATE, _UP, _DOWN)}


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
    kernels = (leaf for leaf in leaves_of(cfg) if leaf.path[-1] == "kernel")
    return {leaf.path[2]: leaf for leaf in kernels}
