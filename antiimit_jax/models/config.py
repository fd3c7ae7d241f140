"""The shape of a decoder: a fact a field, filled by `families`, read by `decoder` and `leaves`."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rope:
    """How positions become angles. Frequencies are those of Hugging Face's half-split layout."""

    kind: str = "default"  # default, none, linear, dynamic, yarn, longrope or llama3
    theta: float = 10_000.0
    dim: int = 0  # rotated features of a head, the first ones; the rest passes as it is
    factor: float = 1.0
    original: int = 0  # positions before scaling; for "dynamic" the window itself
    attention_factor: float = 1.0  # multiplies cos and sin
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0
    truncate: bool = True
    short_factors: tuple[float, ...] = ()  # longrope, and divisors stored in GGUF files
    long_factors: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What the decoder must know. Sizes come from the checkpoint's config, not a preset."""

    family: str  # Hugging Face `model_type`
    vocab_size: int  # rows of the embedding, may exceed the tokenizer
    hidden_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int  # given or hidden // heads where the config leaves it out
    mlp_size: int
    max_positions: int  # the window: a longer prompt is refused
    norm_eps: float
    tied_head: bool
    activation: str = "silu"  # of the gate: silu, gelu_tanh or gelu
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False

    # Layers may differ in where they look and in how they rotate: each names one of these by index.
    windows: tuple[int, ...] = (0,)  # tokens a layer sees, itself included; 0: all
    layer_window: tuple[int, ...] = ()  # [L] index into windows; (): all layers the first
    ropes: tuple[Rope, ...] = (Rope(),)
    layer_rope: tuple[int, ...] = ()  # [L] index into ropes; (): all layers the first

    norm_offset: bool = False  # the stored weight w means 1 + w (Gemma)
    norm_wide: bool = False  # the weight multiplies in float32, before the cast (Gemma, OLMo-2)
    pre_norm: bool = True  # norms before attention and MLP
    post_norm: bool = False  # norms after them, before the residual sum
    qk_norm: str = ""  # norm of queries and keys: "head" each by itself, "full" all heads at once
    embed_scale: float = 1.0  # rounded to the embedding's dtype, as the releases do
    query_scale: float = 0.0  # of the attention scores; 0: head_dim ** -0.5
    attention_softcap: float = 0.0  # scores become cap * tanh(scores / cap); 0: none
    final_softcap: float = 0.0  # likewise of the logits
    fused_projections: bool = False  # on disk q, k, v are one matrix, gate and up another (Phi-3)
