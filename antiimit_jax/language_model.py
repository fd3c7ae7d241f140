"""A model ready to be asked: its shape, weights, tokenizer and terminators in one place."""

import dataclasses
from typing import Any

import jax

from antiimit_jax.errors import UserError
from antiimit_jax.gguf_cache import GgufCache, Opened
from antiimit_jax.models.catalog import CATALOG
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.gguf import GgufCheckpoint
from antiimit_jax.models.quantized import FORMATS, check_format, quantize_layers
from antiimit_jax.models.weights import Source, find_model, load_config, load_params
from antiimit_jax.scoring.terminators import Terminators, build_terminators
from antiimit_jax.text.chat_templates import PROMPT_DATE, is_date
from antiimit_jax.text.formats import Message, Prompt, build_prompt, text_prompt
from antiimit_jax.text.limited_process import PROCESS
from antiimit_jax.text.tokenizer import Tokenizer, load_tokenizer

PROMPT_FORMATS = ("auto", "chat", "base")
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """One loaded model; `params` is the tree of `Decoder`, as numpy arrays (read only)."""

    source: Source
    cfg: ModelConfig
    params: Any
    tokenizer: Tokenizer
    terminators: Terminators
    prompt_format: str  # "chat" or "base"
    quantize: str = "none"  # how `params` hold the layers' matrices, see `models.quantized`

    def prompt(self, messages: tuple[Message, ...]) -> Prompt:
        """Messages in this model's format."""
        return build_prompt(self.tokenizer, messages, self.prompt_format)

    def is_raw(self, raw: bool | None = None) -> bool:
        """Whether a text is read as it is: as `raw` says, or for None as the model is made for."""
        return self.prompt_format == "base" if raw is None else raw

    def read(self, text: str, *, raw: bool | None = None, prefill: str = "") -> Prompt:
        """A text as the user's turn of a chat or, where `is_raw`, just as the tokenizer reads it.

        Args:
          prefill: how the answer already begins.

        Raises:
          UserError: an empty text, no chat template, or an open turn that ends in a space.
        """
        if self.is_raw(raw):
            return text_prompt(self.tokenizer, text + prefill)
        if not text.strip():
            raise UserError("the prompt is empty: give it at least one word")
        turns = (Message("user", text), Message("assistant", prefill))
        return build_prompt(self.tokenizer, turns, "chat")


def load_language_model(
    model: str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    quantize: str = "none",
    prompt_format: str = "auto",
    prompt_date: str = PROMPT_DATE,
) -> LanguageModel:
    """Finds, reads and checks a model.

    Args:
      model: alias, hub id, folder or GGUF file.
      dtype: of the matrices; norms and biases stay float32. "auto" is decided by
        `models.weights.fitting_dtype`.
      quantize: "none", or "int8" or "nf4": how the layers' matrices are held, widened to `dtype`
        where they are multiplied.
      prompt_format: "chat", "base", or "auto": what the catalog says, else chat where the
        tokenizer has a template.
      prompt_date: what chat templates take for today.

    Raises:
      UserError: anything about the checkpoint that does not fit.
    """
    if prompt_format not in PROMPT_FORMATS:
        raise UserError(f"prompt_format {prompt_format!r}: one of {', '.join(PROMPT_FORMATS)}")
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r}: one of {', '.join(DTYPES)}")
    if quantize not in FORMATS:
        raise UserError(f"quantize {quantize!r}: one of {', '.join(FORMATS)}")
    if not is_date(prompt_date):
        raise UserError(f"prompt_date {prompt_date!r}: a date as 2026-01-31")
    source = find_model(model, revision)
    if quantize != "none":
        check_format(load_config(source), quantize, model)
    PROCESS.start()  # ready when the weights are read
    cache = GgufCache(source.path, dtype if dtype != "auto" else f"auto-{jax.default_backend()}")
    cfg, params, tokenizer = cache.read() or _open(source, dtype, cache)
    if quantize != "none":
        quantize_layers(params, quantize)
    try:
        tokenizer.fit(cfg.vocab_size)
    except UserError as error:
        raise UserError(f"{source.path}: {error}") from error
    tokenizer.prompt_date = prompt_date
    if prompt_format == "auto":
        has_template = bool(tokenizer.hf.chat_template)
        prompt_format = source.prompt_format or ("chat" if has_template else "base")
    return LanguageModel(
        source=source,
        cfg=cfg,
        params=params,
        tokenizer=tokenizer,
        terminators=build_terminators(tokenizer, cfg.vocab_size),
        prompt_format=prompt_format,
        quantize=quantize,
    )


def in_float32(lm: LanguageModel) -> LanguageModel:
    """The same model read again in float32 and not quantised, as precise as its checkpoint."""
    cache = GgufCache(lm.source.path, "float32")
    _, params, _ = cache.read() or _open(lm.source, "float32", cache)
    return dataclasses.replace(lm, params=params, quantize="none")


def _open(source: Source, dtype: str, cache: GgufCache) -> Opened:
    checkpoint = source.open()
    cfg, params = load_params(source, dtype, checkpoint)
    gguf = isinstance(checkpoint, GgufCheckpoint)
    tokenizer = load_tokenizer(
        checkpoint if gguf else source.path,
        needs_bos=source.name in CATALOG and cfg.family.startswith("gemma"),
    )
    if gguf:
        cache.keep(checkpoint.config(), params, tokenizer)
    return cfg, params, tokenizer
