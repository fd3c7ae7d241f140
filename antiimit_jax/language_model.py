"""A model ready to be asked: its shape, weights, tokenizer and terminators in one place."""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh

from antiimit_jax.errors import UserError
from antiimit_jax.gguf_cache import GgufCache, Opened
from antiimit_jax.models.catalog import CATALOG
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.gguf import GgufCheckpoint
from antiimit_jax.models.quantized import FORMATS, check_format, quantize_layers
from antiimit_jax.models.sharding import mesh_of, placer
from antiimit_jax.models.weights import (
    Source,
    abstract_params,
    find_model,
    load_config,
    load_params,
)
from antiimit_jax.parallel import AUTO, make_mesh, mesh_name
from antiimit_jax.scoring.terminators import Terminators, build_terminators
from antiimit_jax.text.chat_templates import PROMPT_DATE, is_date
from antiimit_jax.text.formats import Message, Prompt, build_prompt, text_prompt
from antiimit_jax.text.limited_process import PROCESS
from antiimit_jax.text.tokenizer import Tokenizer, load_tokenizer

PROMPT_FORMATS = ("auto", "chat", "base")
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """One loaded model; `params` is the tree of `Decoder`.

    Its leaves are numpy arrays (read only) or, where devices share the weights, lie on the mesh.
    """

    source: Source
    cfg: ModelConfig
    params: Any
    tokenizer: Tokenizer
    terminators: Terminators
    prompt_format: str  # "chat" or "base"
    quantize: str = "none"  # how `params` hold the layers' matrices, see `models.quantized`
    mesh: Mesh = dataclasses.field(default_factory=lambda: make_mesh(jax.devices()))

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
    mesh: str = AUTO,
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
      mesh: of the devices of all processes, as `parallel.is_mesh` names it.

    Raises:
      UserError: anything about the checkpoint that does not fit, a file of it that is written to
        meanwhile, or a mesh for other devices.
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
    files = source.files  # held before anything is read
    if quantize != "none":
        check_format(load_config(source), quantize, model)
    PROCESS.start()  # ready when the weights are read
    cache = GgufCache(source.path, dtype if dtype != "auto" else f"auto-{jax.default_backend()}")
    cfg, params, tokenizer = cache.read() or _open(source, dtype, cache, mesh, quantize)
    if quantize != "none":
        quantize_layers(params, quantize)  # of what a GGUF file or its cache gave
    try:
        tokenizer.fit(cfg.vocab_size)
    except UserError as error:
        raise UserError(f"{source.path}: {error}") from error
    files.check_unchanged()
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
        mesh=_lay_out(cfg, dtype, mesh),
    )


def in_float32(lm: LanguageModel) -> LanguageModel:
    """The same model read again in float32 and not quantised, as precise as its checkpoint.

    Raises:
      UserError: a file was written to, replaced or added since the model was loaded.
    """
    cache, mesh = GgufCache(lm.source.path, "float32"), mesh_name(*lm.mesh.axis_sizes)
    _, params, _ = cache.read() or _open(lm.source, "float32", cache, mesh)
    lm.source.files.check_unchanged()
    return dataclasses.replace(lm, params=params, quantize="none")


def _lay_out(cfg: ModelConfig, dtype: str, mesh: str) -> Mesh:
    params = abstract_params(cfg, "bfloat16" if dtype == "auto" else dtype)
    return mesh_of(mesh, cfg, params, jax.devices())


def _open(
    source: Source, dtype: str, cache: GgufCache, mesh: str = AUTO, quantize: str = "none"
) -> Opened:
    checkpoint = source.open()
    cfg = parse_config(checkpoint.config(), str(source.path))
    gguf = isinstance(checkpoint, GgufCheckpoint)
    kept_whole = gguf and quantize != "none"  # the cache holds what the file does
    place = None if kept_whole else placer(cfg, _lay_out(cfg, dtype, mesh), quantize)
    cfg, params = load_params(source, dtype, checkpoint, place)
    tokenizer = load_tokenizer(
        checkpoint if gguf else source.path,
        needs_bos=source.name in CATALOG and cfg.family.startswith("gemma"),
    )
    if gguf:
        cache.keep(checkpoint.config(), params, tokenizer)
    return cfg, params, tokenizer
