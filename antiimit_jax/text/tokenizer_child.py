"""Tokenizers built, checked and asked: the part of `limited_child` that knows them.

A tokenizer has a key that the program gave it. A few are kept; who asks for another one is told
that it is unknown, and sends it.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as RawTokenizer
from tokenizers import normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import encode_marked_chat

from antiimit_jax.errors import UserError, first_line
from antiimit_jax.models.gguf import GgufCheckpoint
from antiimit_jax.text.tokenizer_files import build, check_against_file, check_ids, puts_space_first

_KEPT = 4


class Encoder:
    """One tokenizer, as texts are read with it."""

    def __init__(self, hf: PreTrainedTokenizerFast) -> None:
        self.hf = hf
        self._raw = hf.backend_tokenizer
        self._raw.no_truncation()
        self._raw.no_padding()
        self._continuing = without_first_space(self._raw)

    def text(self, text: str) -> list[int]:
        """Control tokens are parsed and special tokens added."""
        self._raw.encode_special_tokens = False
        return self._raw.encode(text).ids

    def plain(self, texts: list[str], apart: list[bool], continued: bool) -> list[list[int]]:
        """Control tokens stay text; where a text stands `apart`, so do all added tokens."""
        raw = self._continuing if continued else self._raw
        raw.encode_special_tokens = True
        read = iter(
            raw.encode_batch_fast(
                [text for text, alone in zip(texts, apart) if not alone], add_special_tokens=False
            )
        )
        return [
            _encode_without_added_tokens(raw, text) if alone else next(read).ids
            for text, alone in zip(texts, apart)
        ]


def without_first_space(raw: RawTokenizer) -> RawTokenizer:
    """The tokenizer as it reads inside a text: without the space it puts before one."""
    if not puts_space_first(raw):
        return raw
    raw = copy.deepcopy(raw)
    steps = raw.normalizer
    steps = list(steps) if isinstance(steps, normalizers.Sequence) else [steps] if steps else []
    raw.normalizer = normalizers.Sequence(
        [step for step in steps if not isinstance(step, normalizers.Prepend)]
    )
    if isinstance(raw.pre_tokenizer, pre_tokenizers.Metaspace):
        raw.pre_tokenizer.prepend_scheme = "never"
    return raw


def _encode_without_added_tokens(raw: RawTokenizer, text: str) -> list[int]:
    if raw.normalizer is not None:
        text = raw.normalizer.normalize_str(text)
    splits = [text]
    if raw.pre_tokenizer is not None:
        splits = [split for split, _ in raw.pre_tokenizer.pre_tokenize_str(text)]
    return [token.id for split in splits for token in raw.model.tokenize(split)]


_encoders: OrderedDict[str, Encoder] = OrderedDict()


def _keep(key: str, hf: PreTrainedTokenizerFast) -> None:
    _encoders[key] = Encoder(hf)
    while len(_encoders) > _KEPT:
        _encoders.popitem(last=False)


def _build(request: dict[str, Any]) -> dict[str, Any]:
    path = Path(request["path"])
    hf, _ = build(GgufCheckpoint(path) if path.is_file() else path)
    _keep(request["key"], hf)
    check_ids(path, hf, _encoders[request["key"]].text(""))
    return {}


def _take(request: dict[str, Any]) -> dict[str, Any]:
    raw = RawTokenizer.from_str(request["json"])
    _keep(request["key"], PreTrainedTokenizerFast(tokenizer_object=raw))
    return {}


def _check(request: dict[str, Any], encoder: Encoder) -> dict[str, Any]:
    check_against_file(encoder.hf, Path(request["path"]))
    return {}


def _read(request: dict[str, Any], encoder: Encoder) -> dict[str, Any]:
    ids = encoder.plain(request["texts"], request["apart"], request["continued"])
    return {"ids": ids}


def _of_known(asked: Callable[[dict[str, Any], Encoder], dict[str, Any]]) -> Callable:
    """A question to a tokenizer that has to be here."""

    def known(request: dict[str, Any]) -> dict[str, Any]:
        if request["key"] not in _encoders:
            return {"unknown": True}
        _encoders.move_to_end(request["key"])
        return asked(request, _encoders[request["key"]])

    return known


def _told(asked: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable:
    """Whatever goes wrong is told as {"error": ...}."""

    def tried(request: dict[str, Any]) -> dict[str, Any]:
        try:
            return asked(request)
        except UserError as error:
            return {"error": str(error)}
        except BaseException as error:  # `tokenizers` raises Exception, and panics are none
            reason, path = first_line(error)[:500], request.get("path")
            return {"error": f"{path}: no usable tokenizer ({reason})" if path else reason}

    return tried


ASKED = {
    "build": _told(_build),
    "take": _told(_take),
    "check": _told(_of_known(_check)),
    "read": _told(_of_known(_read)),
    "text": _told(_of_known(lambda request, of: {"ids": of.text(request["text"])})),
    "chat": _told(
        _of_known(lambda request, of: {"ids": encode_marked_chat(of.hf, request["text"])})
    ),
}
