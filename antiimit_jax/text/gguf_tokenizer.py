"""Tokenizers out of GGUF metadata: no torch, no hub.

A GGUF file names its way of cutting text (`tokenizer.ggml.pre`) and leaves it to the reader to know
what the name means; `data/gguf_cuts.jsonl` holds the published expressions. A name that is not
listed is refused: another cut gives other tokens without any error.
"""

import functools
import json
import math
from collections.abc import Callable
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
_MOST_WHOLE = 2**15  # control and user-defined tokens; Gemma-3, which has most, has 6415
_LONGEST = 1_000  # characters of a token; the longest known are a tenth of it
_NAMED, _ENDS = ("bos", "eos", "unknown", "padding"), ("eot", "eom")  # ..._token_id
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
      UserError: a kind of tokenizer that is not read, or metadata that are incomplete or make no
        sense; the message names the key.
    """
    get = lambda key, default=None: checkpoint.field(f"tokenizer.ggml.{key}", default)
    listed = functools.partial(_listed, checkpoint)
    flag = functools.partial(_flag, checkpoint)
    path, architecture = checkpoint.path, str(checkpoint.field("general.architecture"))
    kind, pre = str(get("model")), str(get("pre"))
    flavour, sentencepiece = _flavours().get(pre), kind == "llama"
    if not sentencepiece and (kind != "gpt2" or flavour is None):
        what = f"GGUF tokenizer {kind:.40}/{pre:.40}"
        raise UserError(f"{path}: {what} is not read; use the model's Hugging Face folder")
    if flag("add_eos_token", False):
        raise UserError(f"{path}: a tokenizer that adds an end token is not read")
    tokens = listed("tokens", f"text of at most {_LONGEST} characters", _is_short)
    types = listed("token_type", "one of 0 to 6", range(7).__contains__, len(tokens))
    if sentencepiece:
        scores = listed("scores", "a finite number", _is_finite, len(tokens))
        # Runs of spaces are stored as they are read, other spaces by their mark.
        tokens = [SPACE_MARK * len(t) if t and not t.strip(" ") else t for t in tokens]
    if (count := sum(kind in (_CONTROL, _USER_DEFINED) for kind in types)) > _MOST_WHOLE:
        what = f"tokenizer.ggml.token_type holds {count} control and user-defined tokens"
        raise UserError(f"{path}: metadata {what}; at most {_MOST_WHOLE} are read")
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) < len(tokens):
        again = next(i for i, token in enumerate(tokens) if vocab[token] != i)
        what = f"tokenizer.ggml.tokens holds {tokens[again]!r:.60} twice"
        raise UserError(f"{path}: metadata {what} (places {again} and {vocab[tokens[again]]})")
    if sentencepiece:
        gemma = architecture.startswith("gemma")
        raw = _sentencepiece(vocab, types, scores, gemma, flag("add_space_prefix", not gemma))
    else:
        joins = functools.partial(_joins, vocab)
        merges = listed("merges", "two tokens that join to a third", joins)
        raw = _byte_level(vocab, merges, flavour)
    _add(raw, tokens, types, swallows=architecture == "phi3")

    ids = {key: get(f"{key}_token_id") for key in _NAMED + _ENDS}
    for key, i in ids.items():
        if i is not None and not (isinstance(i, int) and 0 <= i < len(tokens)):
            what = f"tokenizer.ggml.{key}_token_id is {i!r:.60}, and there are {len(tokens)} tokens"
            raise UserError(f"{path}: metadata {what}")
    named = {key: tokens[ids[key]] for key in _NAMED if ids[key] is not None}
    # What llama.cpp takes for granted where a file does not say.
    adds_bos = flag("add_bos_token", sentencepiece or flavour["adds_bos"])
    if adds_bos and (bos := named.get("bos")):
        special = [(bos, ids["bos"])]
        raw.post_processor = processors.TemplateProcessing([bos, "$A"], special_tokens=special)
    template = checkpoint.field("tokenizer.chat_template")
    if not isinstance(template, str | None):
        raise UserError(f"{path}: metadata tokenizer.chat_template is no text")
    hf = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=named.get("bos"),
        eos_token=named.get("eos"),
        unk_token=named.get("unknown"),
        pad_token=named.get("padding"),
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )
    return hf, {ids[key] for key in _ENDS} - {None}


def _listed(
    checkpoint: GgufCheckpoint,
    key: str,
    what: str,
    holds: Callable[[Any], bool],
    length: int | None = None,
) -> list:
    """A list of the tokenizer's metadata, of that length and without a value that does not hold.

    Raises:
      UserError: it is not there, or a value is not `what`.
    """
    key = f"tokenizer.ggml.{key}"
    values = checkpoint.field(key)
    if not isinstance(values, list) or not values:
        fault = "is missing, or no list"
    elif length is not None and len(values) != length:
        fault = f"holds {len(values)} values for {length} tokens"
    elif (wrong := next((i for i, value in enumerate(values) if not holds(value)), -1)) >= 0:
        fault = f"holds {values[wrong]!r:.60} at place {wrong}, which is not {what}"
    else:
        return values
    raise UserError(f"{checkpoint.path}: metadata {key} {fault}")


def _flag(checkpoint: GgufCheckpoint, key: str, default: bool) -> bool:
    value = checkpoint.field(f"tokenizer.ggml.{key}", default)
    if not isinstance(value, bool):
        what = f"tokenizer.ggml.{key} is {value!r:.60}, not true or false"
        raise UserError(f"{checkpoint.path}: metadata {what}")
    return value


def _is_short(token: Any) -> bool:
    return isinstance(token, str) and len(token) <= _LONGEST


def _is_finite(score: Any) -> bool:
    return isinstance(score, int | float) and math.isfinite(score)


def _joins(vocab: dict[str, int], merge: Any) -> bool:
    parts = merge.split(" ") if isinstance(merge, str) else ()
    return len(parts) == 2 and {*parts, "".join(parts)} <= vocab.keys()


def _byte_level(vocab: dict[str, int], merges: list[str], flavour: dict[str, Any]) -> RawTokenizer:
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
    vocab: dict[str, int], types: list[int], scores: list[float], gemma: bool, prefix: bool
) -> RawTokenizer:
    """SentencePiece BPE: pieces join by their scores, unknown characters fall back to bytes."""
    rank = {t: -i if gemma else scores[i] for t, i in vocab.items()}  # Gemma's merges: by place
    whole = {t for t, kind in zip(vocab, types) if kind == _CONTROL}
    merges = generate_merges(vocab, rank, whole)
    unknown = next((t for t, kind in zip(vocab, types) if kind == _UNKNOWN), None)
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
    control, whole = [], []
    for token, kind in zip(tokens, types):
        if kind == _CONTROL:
            rstrip = swallows and token not in keeps_space
            control.append(AddedToken(token, normalized=False, special=True, rstrip=rstrip))
        elif kind == _USER_DEFINED and token.strip(SPACE_MARK):
            whole.append(AddedToken(token, normalized=False, special=False))
    raw.add_special_tokens(control)  # all at once: each call looks at all tokens
    raw.add_tokens(whole)
