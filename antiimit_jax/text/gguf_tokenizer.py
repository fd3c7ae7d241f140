"""Tokenizers out of GGUF metadata: no torch, no hub.

A GGUF file names its way of cutting text (`tokenizer.ggml.pre`) and leaves it to the reader to know
what the name means; `_SPLITS` holds the published expressions. A name that is not listed is
refused: another cut gives other tokens without any error.
"""

from collections.abc import Callable, Iterable
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as RawTokenizer
from transformers import PreTrainedTokenizerFast
from transformers.tokenization_utils_base import generate_merges

from antiimit_jax.errors import UserError
from antiimit_jax.models.gguf import GgufCheckpoint

_CONTROL, _USER_DEFINED = 3, 4  # token types that stand whole in a text
_MARK = "\u2581"  # SentencePiece's visible space

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_WORDS}|\p{{N}}{{1,3}}{_REST}"
_QWEN2 = rf"{_WORDS}|\p{{N}}{_REST}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CJK = r"[一-龥\u3040-\u309f\u30a0-\u30ff]+"
_DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CODER = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}"]
# Letters with cases as DeepSeek-LLM's own file lists them; \p{Lu} and \p{Ll} hold more.
_CASED = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ"
    "-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹ"
    "ℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_DEEPSEEK = [
    r"[\r\n]",
    rf"\s?[{_CASED}]+",
    r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
    r"\s+$",
    r"[一-龥ࠀ-一가-퟿]+",
    r"\p{N}",
]

# `tokenizer.ggml.pre` -> expressions that cut the text, one after the other.
_SPLITS: dict[str, list[str]] = {
    **dict.fromkeys(("gpt-2", "olmo"), [_GPT2]),
    "smollm": [r"\p{N}", _GPT2],
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "dbrx", "smaug-bpe"), [_LLAMA3]),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), [_QWEN2]),
    "tekken": [_TEKKEN],
    "deepseek-coder": _CODER,
    "deepseek-llm": _DEEPSEEK,
    "deepseek-v3": [r"\p{N}{1,3}", _CJK, _DEEPSEEK3],
}
_ADDS_BOS = ("llama-bpe", "llama3", "llama-v3")  # where the file does not say
_WHOLE_WORDS_FIRST = (*_ADDS_BOS, "tekken")  # a word that is a token is never merged up to


def tokenizer_of_gguf(checkpoint: GgufCheckpoint) -> tuple[PreTrainedTokenizerFast, set[int]]:
    """The tokenizer, and the ids that end a text or turn besides its `eos_token`.

    Raises:
      UserError: a kind of tokenizer that is not read, or incomplete metadata.
    """
    get = lambda key, default=None: checkpoint.field(f"tokenizer.ggml.{key}", default)
    kind, flavour = get("model"), get("pre")
    tokens, types = get("tokens"), get("token_type")
    if not (kind == "llama" or kind == "gpt2" and flavour in _SPLITS):
        raise UserError(
            f"{checkpoint.path}: GGUF tokenizer {kind}/{flavour} is not read; use the model's "
            "Hugging Face folder"
        )
    if not tokens or not types or len(types) != len(tokens):
        raise UserError(f"{checkpoint.path}: tokenizer tokens or token types are missing")
    if get("add_eos_token"):
        raise UserError(f"{checkpoint.path}: a tokenizer that adds an end token is not read")
    if kind == "llama":
        raw = _sentencepiece(checkpoint, tokens, types, get)
    else:
        raw = _byte_level(checkpoint, tokens, flavour, get)
    architecture = str(checkpoint.field("general.architecture"))
    _add(raw, tokens, types, swallows=architecture == "phi3")

    def name(key: str) -> str | None:
        token_id: Any = get(f"{key}_token_id")
        return tokens[token_id] if token_id is not None and token_id < len(tokens) else None

    adds_bos = get("add_bos_token")
    if adds_bos is None:  # what llama.cpp takes for granted then
        adds_bos = kind == "llama" or flavour in _ADDS_BOS
    if adds_bos and (bos := name("bos")):
        raw.post_processor = processors.TemplateProcessing(
            single=[bos, "$A"], special_tokens=[(bos, get("bos_token_id"))]
        )
    hf = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=name("bos"),
        eos_token=name("eos"),
        unk_token=name("unknown"),
        pad_token=name("padding"),
        chat_template=checkpoint.field("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
    )
    ends = {get("eot_token_id"), get("eom_token_id")}
    return hf, {i for i in ends if isinstance(i, int) and i < len(tokens)}


def _byte_level(
    checkpoint: GgufCheckpoint, tokens: list[str], flavour: str, get: Callable
) -> RawTokenizer:
    merges = get("merges")
    if not merges:
        raise UserError(f"{checkpoint.path}: tokenizer merges are missing")
    raw = RawTokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ")) for merge in merges],
            ignore_merges=flavour in _WHOLE_WORDS_FIRST,
        )
    )
    if flavour in ("qwen2", "deepseek-r1-qwen"):
        raw.normalizer = normalizers.NFC()
    splits = [pre_tokenizers.Split(Regex(cut), "isolated") for cut in _SPLITS[flavour]]
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    raw.decoder = decoders.ByteLevel()
    return raw


def _sentencepiece(
    checkpoint: GgufCheckpoint, tokens: list[str], types: list[int], get: Callable
) -> RawTokenizer:
    """SentencePiece BPE: pieces join by their scores, unknown characters fall back to bytes."""
    scores = get("scores")
    if not scores or len(scores) != len(tokens):
        raise UserError(f"{checkpoint.path}: tokenizer scores are missing")
    # Runs of spaces are stored as they are read, other spaces by their mark.
    tokens[:] = [_MARK * len(t) if t and not t.strip(" ") else t for t in tokens]
    vocab = {token: i for i, token in enumerate(tokens)}
    gemma = str(checkpoint.field("general.architecture")).startswith("gemma")
    rank = {t: -i if gemma else scores[i] for t, i in vocab.items()}  # Gemma's merges: by place
    whole = {t for t, kind in zip(tokens, types) if kind == _CONTROL}
    raw = RawTokenizer(
        models.BPE(
            vocab=vocab,
            merges=generate_merges(vocab, rank, whole),
            unk_token=next((t for t, kind in zip(tokens, types) if kind == 2), None),
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces = [normalizers.Replace(" ", _MARK)]
    if get("add_space_prefix", not gemma):
        spaces.insert(0, normalizers.Prepend(_MARK))
    raw.normalizer = normalizers.Sequence(spaces)
    steps = [decoders.Replace(_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    raw.decoder = decoders.Sequence(steps)
    return raw


def _add(raw: RawTokenizer, tokens: list[str], types: Iterable[int], swallows: bool) -> None:
    """Control and user-defined tokens stand whole; Phi-3's swallow the white space after them."""
    keeps_space = ("<unk>", "<s>", "<|endoftext|>")
    for token, kind in zip(tokens, types):
        if kind == _CONTROL:
            rstrip = swallows and token not in keeps_space
            raw.add_special_tokens(
                [AddedToken(token, normalized=False, special=True, rstrip=rstrip)]
            )
        elif kind == _USER_DEFINED and token.strip(_MARK):
            raw.add_tokens([AddedToken(token, normalized=False, special=False)])
