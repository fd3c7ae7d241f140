"""Tokenizers: loaded through transformers (or from a GGUF file), with what scoring needs of them.

`encode_text` reads text as the tokenizer does, `encode_plain` reads control tokens as text,
`pieces` gives every token's own bytes (decoding would drop a leading space in SentencePiece).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jinja2
from tokenizers import AddedToken, Tokenizer as RawTokenizer
from tokenizers import decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from antiimit_jax.errors import UserError
from antiimit_jax.models.gguf import GgufCheckpoint

_GGUF_NORMAL, _GGUF_CONTROL, _GGUF_USER_DEFINED = 1, 3, 4
# What a template, which is foreign code, may raise.
_TEMPLATE_ERRORS = (jinja2.TemplateError, ValueError, TypeError, LookupError, ArithmeticError)
_SPACE_MARK = "\u2581"  # SentencePiece's visible space


class Tokenizer:
    """One model's tokenizer."""

    def __init__(self, hf: PreTrainedTokenizerFast) -> None:
        self.hf = hf
        self.size = len(hf)
        self._added = {token.content: i for i, token in hf.added_tokens_decoder.items()}
        self.bos_ids: tuple[int, ...] = tuple(hf("", add_special_tokens=True)["input_ids"])
        self._plain_cache: dict[str, tuple[int, ...]] = {}

    @property
    def eos_ids(self) -> set[int]:
        """Ids that end a turn or a text."""
        ends = {self.hf.eos_token_id, self._added.get("<|endoftext|>"), self._added.get("</s>")}
        ends |= {self._added.get(name) for name in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")}
        return {i for i in ends if i is not None}

    def encode_text(self, text: str) -> list[int]:
        """As the tokenizer reads it: control tokens parsed, special tokens added."""
        return self.hf(text, add_special_tokens=True)["input_ids"]

    def encode_plain(self, text: str) -> tuple[int, ...]:
        """Control tokens stay text, nothing is added. Cached: prompts share tails and forms."""
        ids = self._plain_cache.get(text)
        if ids is None:
            ids = tuple(self.hf.encode(text, add_special_tokens=False, split_special_tokens=True))
            if len(self._plain_cache) < 200_000:
                self._plain_cache[text] = ids
        return ids

    def plain_tail(self, text: str) -> str:
        """What follows the last control token written in `text`."""
        ends = [text.rfind(token) + len(token) for token in self._added if token in text]
        return text[max(ends, default=0) :]

    def render_chat(
        self, messages: list[dict[str, str]], prefill: str | None
    ) -> tuple[list[int], str]:
        """Ids and text of a chat with an open assistant turn that begins with `prefill`.

        Raises:
          UserError: no chat template, or the template refuses the messages.
        """
        if not self.hf.chat_template:
            raise UserError("this tokenizer has no chat template; use --config.prompt_format=base")
        if prefill is not None:
            messages = [*messages, {"role": "assistant", "content": prefill}]
        kwargs = dict(
            add_generation_prompt=prefill is None, continue_final_message=prefill is not None
        )
        try:
            text = self.hf.apply_chat_template(messages, tokenize=False, **kwargs)
            ids = self.hf.apply_chat_template(
                messages, return_dict=False, sanitize_control_tokens=True, **kwargs
            )
        except _TEMPLATE_ERRORS as error:
            raise UserError(f"the chat template refuses these messages: {error}") from error
        return ids, text

    def decode(self, ids) -> str:
        return self.hf.decode(list(ids), skip_special_tokens=False)

    @functools.cached_property
    def pieces(self) -> tuple[bytes, ...]:
        """The bytes each token stands for, [size]; control tokens are empty."""
        byte_level = _is_byte_level(self.hf)
        to_byte = _byte_of_char()
        pieces = []
        for i, token in enumerate(self.hf.convert_ids_to_tokens(range(self.size))):
            if token is None or i in self.hf.added_tokens_decoder:
                pieces.append(b"")
            elif byte_level:
                pieces.append(bytes(to_byte.get(char, 0x3F) for char in token))
            elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
                pieces.append(bytes([int(token[3:5], 16)]))
            else:
                pieces.append(token.replace(_SPACE_MARK, " ").encode())
        return tuple(pieces)

    @functools.cached_property
    def id_of_piece(self) -> dict[bytes, int]:
        """Bytes -> the token that spells them."""
        return {piece: i for i, piece in enumerate(self.pieces) if piece}


def _is_byte_level(hf: PreTrainedTokenizerFast) -> bool:
    return "ByteLevel" in str(hf.backend_tokenizer.decoder)


def _byte_of_char() -> dict[str, int]:
    """GPT-2's printable stand-in of each byte, inverted."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(b): b for b in printable}
    rest = (b for b in range(256) if b not in set(printable))
    return table | {chr(256 + n): b for n, b in enumerate(rest)}


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a model folder or a GGUF file.

    Raises:
      UserError: none there, or one that cannot be read.
    """
    if path.is_file():
        return Tokenizer(_from_gguf(GgufCheckpoint(path)))
    try:
        hf = AutoTokenizer.from_pretrained(path, use_fast=True, trust_remote_code=False)
    except Exception as error:  # `tokenizers` raises plain Exception for a broken file
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{path}: no usable tokenizer ({reason})") from error
    if not hf.is_fast:
        raise UserError(f"{path}: has no fast tokenizer (tokenizer.json)")
    return Tokenizer(hf)


def _from_gguf(checkpoint: GgufCheckpoint) -> PreTrainedTokenizerFast:
    """Byte-level BPE from the metadata; no torch, no hub."""
    get = lambda key, default=None: checkpoint.field(f"tokenizer.ggml.{key}", default)
    kind, flavour = get("model"), get("pre")
    if kind != "gpt2" or flavour not in _PRE_TOKENIZERS:
        raise UserError(
            f"{checkpoint.path}: GGUF tokenizer {kind}/{flavour} is not read; use the model's "
            "Hugging Face folder"
        )
    tokens, merges, types = get("tokens"), get("merges"), get("token_type")
    if not tokens or not merges or not types or len(types) != len(tokens):
        raise UserError(
            f"{checkpoint.path}: tokenizer tokens, merges or token types are missing"
        )
    raw = RawTokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ")) for merge in merges],
        )
    )
    raw.pre_tokenizer = _PRE_TOKENIZERS[flavour]()
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([_added(t) for t, kind in zip(tokens, types) if kind == _GGUF_CONTROL])
    raw.add_tokens([_added(t) for t, kind in zip(tokens, types) if kind == _GGUF_USER_DEFINED])

    def name(key: str) -> str | None:
        token_id: Any = get(f"{key}_token_id")
        return None if token_id is None else tokens[token_id]

    if get("add_eos_token"):
        raise UserError(f"{checkpoint.path}: a tokenizer that adds an end token is not read")
    if get("add_bos_token"):
        bos = name("bos")
        raw.post_processor = processors.TemplateProcessing(
            single=[bos, "$A"], special_tokens=[(bos, get("bos_token_id"))]
        )

    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=name("bos"),
        eos_token=name("eos"),
        unk_token=name("unknown"),
        pad_token=name("padding"),
        chat_template=checkpoint.field("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
    )


def _added(token: str) -> AddedToken:
    return AddedToken(token, normalized=False, special=True)


_PRE_TOKENIZERS = {
    "smollm": lambda: pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    ),
}
