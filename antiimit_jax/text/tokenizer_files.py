"""Tokenizers out of a model's files, and what is checked before one is trusted."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as RawTokenizer
from tokenizers import normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from antiimit_jax.errors import UserError, first_line
from antiimit_jax.json_files import read_json
from antiimit_jax.models.gguf import GgufCheckpoint
from antiimit_jax.text.gguf_tokenizer import tokenizer_of_gguf
from antiimit_jax.text.limited_process import PROCESS

FILE = "tokenizer.json"
# Of processor time for building one: more where there is more to read, as Gemma's 262144 tokens.
_SECONDS, MOST_SECONDS, _TOKENS_A_SECOND, _BYTES_A_SECOND = 3, 8, 2**16, 8 * 2**20
WALL_SECONDS = 60.0  # the same by the clock, on a machine that is busy
_PROBES = Path(__file__).with_name("data") / "probes.json"


def build(source: Path | GgufCheckpoint) -> tuple[PreTrainedTokenizerFast, set[int]]:
    """The tokenizer of a model folder or a GGUF file, and the ids that its files name as ends.

    Raises:
      UserError: none there, or one that cannot be read.
    """
    if isinstance(source, GgufCheckpoint):
        return tokenizer_of_gguf(source)
    if not (source / FILE).is_file():
        raise UserError(
            f"{source}: no usable tokenizer (no {FILE}); fetch it, or save the tokenizer "
            "with transformers"
        )
    try:
        hf = PreTrainedTokenizerFast.from_pretrained(source, trust_remote_code=False)
        return hf, _declared_ends(source)
    except BaseException as error:  # `tokenizers` raises plain Exception, and panics are none
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise UserError(f"{source}: no usable tokenizer ({first_line(error)})") from error


def build_in_child(source: Path | GgufCheckpoint, path: Path, key: str) -> None:
    """Has `limited_child` build and check the tokenizer at `path`; it stays there under a key.

    Raises:
      UserError: it cannot be read or trusted, or takes too long or too much memory.
    """
    file, more = path / FILE, 0
    if isinstance(source, GgufCheckpoint):
        tokens = source.field("tokenizer.ggml.tokens")
        more = len(tokens) // _TOKENS_A_SECOND if isinstance(tokens, list) else 0
    elif file.is_file():
        more = file.stat().st_size // _BYTES_A_SECOND
    request = {"do": "build", "key": key, "path": os.path.abspath(path)}
    asked = [request | {"seconds": min(_SECONDS + more, MOST_SECONDS)}]
    if file.is_file():
        asked.append(request | {"do": "check", "path": os.path.abspath(file)})
    for request in asked:
        if reply := PROCESS.ask(request, f"{path}: the tokenizer", seconds=WALL_SECONDS):
            raise UserError(reply.get("error") or f"{path}: the process that reads it ended")


def _declared_ends(path: Path) -> set[int]:
    """`eos_token_id` of the folder's configs: an integer or a list."""
    ends: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        if (path / name).is_file():
            declared = read_json(path / name).get("eos_token_id")
            listed = declared if isinstance(declared, list) else [declared]
            ends |= {i for i in listed if isinstance(i, int)}
    return ends


def check_ids(path: Path, hf: PreTrainedTokenizerFast, first: Sequence[int]) -> None:
    """Raises UserError unless ids count up from 0 and those that begin a text are among them."""
    ids = sorted(hf.get_vocab().values())
    if ids != list(range(len(ids))) or not set(first) <= set(ids):
        raise UserError(
            f"{path}: the tokenizer's ids repeat, leave gaps or go beyond its tokens; fetch the "
            "model's own tokenizer again"
        )


def check_against_file(hf: PreTrainedTokenizerFast, file: Path) -> None:
    """Ids and round trips of the texts in `data/probes.json` must be those of the raw file.

    Libraries rebuild tokenizers by class name: transformers 5 drops the spaces of some DeepSeek
    models and the doubled first space of Llama-2.

    Raises:
      UserError: the first probe that is read differently.
    """
    raw = RawTokenizer.from_file(str(file))
    raw.no_truncation()
    raw.no_padding()
    short = lambda ids: str(ids[:8])[:-1] + (", ...]" if len(ids) > 8 else "]")
    for probe in json.loads(_PROBES.read_text("utf-8")):
        ids = hf.encode(probe, add_special_tokens=False)
        expected = raw.encode(probe, add_special_tokens=False).ids
        if ids != expected or hf.decode(ids) != raw.decode(expected, skip_special_tokens=False):
            raise UserError(
                f"{file}: transformers reads {probe!r} as {short(ids)}, the file itself as "
                f"{short(expected)}; this tokenizer cannot be trusted, use another transformers "
                "release"
            )


def puts_space_first(raw: RawTokenizer) -> bool:
    """Whether it puts a space before a text, as SentencePiece does."""
    steps, splitter = raw.normalizer, raw.pre_tokenizer
    steps = list(steps) if isinstance(steps, normalizers.Sequence) else [steps]
    marks = isinstance(splitter, pre_tokenizers.Metaspace) and splitter.prepend_scheme != "never"
    return marks or any(isinstance(step, normalizers.Prepend) for step in steps)
