"""Tokenizers out of GGUF metadata: no torch, no hub.

A GGUF file names its way of cutting text (`tokenizer.ggml.pre`) and leaves it to the reader to know
what the name means; `data/gguf_cuts.jsonl` holds the published expressions. A name that is not
listed is refused: another cut gives other tokens without any error.
"""

import functools
import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as RawTokenizer
from transformers import PreTrainedTokenizerFast
from transformers.tokenization_utils_base import generate_merges

from antiimit_jax.errors import UserError
from antiimit_jax.models.gguf import GgufCheckpoint

CUTS = Path(__file__).with_name("data") / "gguf_cuts.jsonl"
SPACE_MARK = "\u2581"  # SentencePiece's visible space
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # token types; the last two stand whole in a text


@functools.cache
def _flavours() -> dict[str, dict[str, Any]]:
    """`tokenizer.ggml.pre` -> how text is cut and joined.

    `cuts` are expressions, applied one after the other. `adds_bos` counts where a file does not
    say. `whole_words_first`: a word that is a token is never merged up to.
    """
    lines = [json.loads(line) for line in CUTS.read_text("utf-8").splitlines()]
    return {name: line for line in lines for name in line["names"]}


def tokenizer_of_gguf(checkpoint: GgufCheckpoint) -> tuple[PreTrainedTokenizerFast, set[int]]:
    """The tokenizer, and the ids that end a text or turn besides its `eos_token`.

    Raises:
      UserError: a kind of tokenizer that is not read, or incomplete metadata.
    """
    get = lambda key, default=None: checkpoint.field(f"tokenizer.ggml.{key}", default)
    path, architecture = checkpoint.path, str(checkpoint.field("general.architecture"))
    kind, pre, tokens, types = get("model"), get("pre"), get("tokens"), get("token_type")
    flavour, sentencepiece = _flavours().get(pre), kind == "llama"
    if not sentencepiece and (kind != "gpt2" or flavour is None):
        raise UserError(
            f"{path}: GGUF tokenizer {kind}/{pre} is not read; use the model's Hugging Face folder"
        )
    if not tokens or not types or len(types) != len(tokens):
        raise UserError(f"{path}: tokenizer tokens or token types are missing")
    if get("add_eos_token"):
        raise UserError(f"{path}: a tokenizer that adds an end token is not read")
    needed = "scores" if sentencepiece else "merges"
    joins = get(needed)
    if not joins or sentencepiece and len(joins) != len(tokens):
        raise UserError(f"{path}: tokenizer {needed} are missing")
    if sentencepiece:
        # Runs of spaces are stored as they are read, other spaces by their mark.
        tokens = [SPACE_MARK * len(t) if t and not t.strip(" ") else t for t in tokens]
        gemma = architecture.startswith("gemma")
        raw = _sentencepiece(tokens, types, joins, gemma, get("add_space_prefix", not gemma))
    else:
        raw = _byte_level(tokens, joins, flavour)
    _add(raw, tokens, types, swallows=architecture == "phi3")

    ids = {key: get(f"{key}_token_id") for key in ("bos", "eos", "unknown", "padding")}
    named = {key: tokens[i] for key, i in ids.items() if i is not None and i < len(tokens)}
    adds_bos = get("add_bos_token")
    if adds_bos is None:  # what llama.cpp takes for granted then
        adds_bos = sentencepiece or flavour["adds_bos"]
    if adds_bos and (bos := named.get("bos")):
        special = [(bos, ids["bos"])]
        raw.post_processor = processors.TemplateProcessing([bos, "$A"], special_tokens=special)
    hf = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=named.get("bos"),
        eos_token=named.get("eos"),
        unk_token=named.get("unknown"),
        pad_token=named.get("padding"),
        chat_template=checkpoint.field("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
    )
    ends = {get("eot_token_id"), get("eom_token_id")}
    return hf, {i for i in ends if isinstance(i, int) and i < len(tokens)}


def _byte_level(tokens: list[str], merges: list[str], flavour: dict[str, Any]) -> RawTokenizer:
    vocab = {token: i for i, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    raw = RawTokenizer(models.BPE(vocab, pairs, ignore_merges=flavour["whole_words_first"]))
    if flavour["nfc"]:
        raw.normalizer = normalizers.NFC()
    cuts = [pre_tokenizers.Split(Regex(cut), "isolated") for cut in flavour["cuts"]]
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.pre_tokenizer = pre_tokenizers.Sequence([*cuts, as_bytes])
    raw.decoder = decoders.ByteLevel()
    return raw


def _sentencepiece(
    tokens: list[str], types: list[int], scores: list[float], gemma: bool, prefix: bool
) -> RawTokenizer:
    """SentencePiece BPE: pieces join by their scores, unknown characters fall back to bytes."""
    vocab = {token: i for i, token in enumerate(tokens)}
    rank = {t: -i if gemma else scores[i] for t, i in vocab.items()}  # Gemma's merges: by place
    whole = {t for t, kind in zip(tokens, types) if kind == _CONTROL}
    merges = generate_merges(vocab, rank, whole)
    unknown = next((t for t, kind in zip(tokens, types) if kind == _UNKNOWN), None)
    pieces = models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    raw = RawTokenizer(pieces)
    first = [normalizers.Prepend(SPACE_MARK)] if prefix else []
    raw.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", SPACE_MARK)])
    steps = [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    raw.decoder = decoders.Sequence(steps)
    return raw


def _add(raw: RawTokenizer, tokens: list[str], types: list[int], swallows: bool) -> None:
    """Control and user-defined tokens stand whole; Phi-3's swallow the white space after them."""
    keeps_space = ("<unk>", "<s>", "<|endoftext|>")
    for token, kind in zip(tokens, types):
        if kind == _CONTROL:
            rstrip = swallows and token not in keeps_space
            added = AddedToken(token, normalized=False, special=True, rstrip=rstrip)
            raw.add_special_tokens([added])
        elif kind == _USER_DEFINED and token.strip(SPACE_MARK):
            raw.add_tokens([AddedToken(token, normalized=False, special=False)])
