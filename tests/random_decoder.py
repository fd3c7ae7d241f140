"""A random decoder of a few layers and tokenizers of a few hundred tokens, made in the test."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from antiimit_jax.models.config import ModelConfig, Rope
from antiimit_jax.models.decoder import Decoder, sequences
from antiimit_jax.models.lora import LoraConfig, init_adapter
from antiimit_jax.text.tokenizer import Tokenizer

END_OF_TURN = "<|im_end|>"
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_config(vocab_size: int, **changes: Any) -> ModelConfig:
    """Two layers, three query heads on one key head; `changes` replace fields."""
    fields = dict(
        family="llama",
        vocab_size=vocab_size,
        hidden_size=24,
        n_layers=2,
        n_heads=3,
        n_kv_heads=1,
        head_dim=8,
        mlp_size=40,
        max_positions=512,
        ropes=(Rope(dim=8),),
        norm_eps=1e-5,
        tied_head=True,
    )
    return ModelConfig(**(fields | changes))


def random_params(cfg: ModelConfig, seed: int) -> Any:
    """Weights of uneven size, whose next-token distributions are far from uniform."""
    tokens = jnp.zeros((1, 2), jnp.int32)
    forest = sequences(tokens, tokens, tokens)
    shapes = jax.eval_shape(Decoder(cfg).init, jax.random.key(0), forest)["params"]
    rng = np.random.default_rng(seed)

    def leaf(path, shape) -> np.ndarray:
        noise = rng.normal(size=shape.shape)
        if path[-1].key == "scale":
            return (1.5 + 0.3 * noise).astype(np.float32)
        inputs = shape.shape[-2] if path[-1].key == "kernel" else shape.shape[-1]
        return (2.0 * noise / np.sqrt(inputs)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def random_adapter(cfg: ModelConfig, lora: LoraConfig, seed: int) -> Any:
    """An adapter that changes the model: b is not zero."""
    shapes = jax.eval_shape(lambda: init_adapter(jax.random.key(0), cfg, lora))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: (0.2 * rng.normal(size=x.shape)).astype(np.float32), shapes)


def byte_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """Byte-level BPE trained on `texts`: spells anything; has a chat template."""
    raw = RawTokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|im_start|>", END_OF_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    return Tokenizer(
        PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END_OF_TURN, chat_template=_CHATML)
    )


def sentencepiece_tokenizer(texts: Iterable[str], size: int, prefix: str) -> Tokenizer:
    """BPE of SentencePiece's kind: visible spaces, bytes for unknown characters; a chat template.

    Args:
      prefix: "always" puts a space before every stretch of text (Llama-2), "first" before the first
        (Mistral 0.3), "never" nowhere (Gemma).
    """
    trained = RawTokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    special = ["<unk>", "<|im_start|>", END_OF_TURN]
    names = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    vocab = {name: i for i, name in enumerate(dict.fromkeys([*names, "\u2581"]))}
    merges = [tuple(merge) for merge in model["merges"]]
    raw = RawTokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    spaces = normalizers.Replace(" ", "\u2581")
    if prefix == "first":
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    elif prefix == "always":
        raw.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), spaces])
    else:
        raw.normalizer = spaces
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    raw.decoder = decoders.Sequence(steps)
    raw.add_special_tokens(special)
    return Tokenizer(
        PreTrainedTokenizerFast(
            tokenizer_object=raw, eos_token=END_OF_TURN, unk_token="<unk>", chat_template=_CHATML
        )
    )


def char_tokenizer(
    pieces: list[str], merges: Sequence[tuple[str, str]] = (), unk: str | None = None
) -> Tokenizer:
    """One token for each of `pieces`, joined by `merges` alone.

    Args:
      unk: the one of `pieces` that other characters become; without it they are dropped.
    """
    vocab = {piece: i for i, piece in enumerate(pieces)}
    raw = RawTokenizer(models.BPE(vocab=vocab, merges=list(merges), unk_token=unk))
    return Tokenizer(
        PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END_OF_TURN, unk_token=unk)
    )
