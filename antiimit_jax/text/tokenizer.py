"""Tokenizers: loaded through transformers (or from a GGUF file), with what scoring needs of them.

`encode_text` reads text as the tokenizer does; `encode_plain` keeps control tokens as text, and so
does `encode_continued`, for text that stands after other text: SentencePiece tokenizers put a
space before a text, and none inside one. `pieces` gives every token's own bytes (decoding would
drop a leading space).

What reads texts is a tokenizer in `limited_child`: a file can make the library take hours, all
memory, or abort. Here lie its tables, taken once it was built there.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.utils.chat_template_utils import mark_control_tokens

from antiimit_jax.errors import UserError, first_line
from antiimit_jax.models.gguf import GgufCheckpoint
from antiimit_jax.text import tokenizer_files
from antiimit_jax.text.chat_templates import PROMPT_DATE, render
from antiimit_jax.text.gguf_tokenizer import SPACE_MARK
from antiimit_jax.text.limited_process import PROCESS

# Names under which vocabularies list the ends of a text or turn, besides their `eos_token`.
_ENDS = (
    "<|endoftext|> </s> <eos> <|end_of_text|> <|im_end|> <|eot_id|> <|eom_id|> <end_of_turn> "
    "<|end|> <|EOT|> <｜end▁of▁sentence｜>"
).split()
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_REMEMBERED, _AT_ONCE = 200_000, 256  # texts
_keys = map(str, itertools.count())  # of this program's tokenizers
_MARK_START, _MARK_END = "\U000f0000", "\U000f0001"  # `mark_control_tokens` sets them


class Tokenizer:
    """One model's tokenizer."""

    def __init__(
        self, hf: PreTrainedTokenizerFast, end_ids: Iterable[int] = (), key: str | None = None
    ) -> None:
        """Args:
        end_ids: ids that end a text, besides those known by name.
        key: under which `limited_child` has it already.
        """
        self.hf = hf
        self._key = key or next(_keys)
        self.size = len(hf)
        self.prompt_date = PROMPT_DATE  # what chat templates take for today
        self._rows = self.size  # of the embedding
        added = hf.added_tokens_decoder
        self._id_of = {token.content: i for i, token in added.items()}
        # Control tokens: the special ones, and others that a template writes or that look like one.
        # (Gemma's "\n\n" is an added token, too: text like any other.)
        template = str(hf.chat_template or "")
        shown = lambda name: name.strip() and (name in template or name[:2] + name[-2:] == "<||>")
        self._control = {t.content: t for t in added.values() if t.special or shown(t.content)}
        self._name_of = {i: t.content for i, t in added.items() if t.content in self._control}
        self._unspecial = [name for name, token in self._control.items() if not token.special]
        longest_first = sorted(self._control, key=len, reverse=True)
        self._mark = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        # Ids that end a turn or a text. (Gemma's "</s>" is a piece of HTML.)
        named = {self._id_of[name] for name in _ENDS if name in self._control}
        self.eos_ids: set[int] = {*end_ids, hf.eos_token_id, *named} - {None}
        self.bos_ids: tuple[int, ...] = tuple(self._ask("text", text="")["ids"])
        self._puts_space_first = tokenizer_files.puts_space_first(hf.backend_tokenizer)
        self._read: dict[tuple[str, bool], tuple[int, ...]] = {}

    def fit(self, rows: int) -> None:
        """Makes it the tokenizer of a model with that many rows in its embedding.

        Added tokens may lie beyond the rows (Gemma-3 1B has none for images); a text that holds one
        is refused when it is read.

        Raises:
          UserError: the tokenizer writes tokens of its own that have no row.
        """
        names = self.hf.get_vocab().items()
        beyond = [name for name, i in names if i >= rows and name not in self._id_of]
        if beyond or max(self.bos_ids, default=0) >= rows:
            raise UserError(
                f"the tokenizer has {self.size} tokens, the embedding only {rows} rows; they do "
                "not belong together"
            )
        self._rows = rows

    def encode_text(self, text: str) -> list[int]:
        """As the tokenizer reads it: control tokens parsed, special tokens added.

        A beginning token that the text itself writes is not doubled.

        Raises:
          UserError: the text holds a token that the model has no row for.
        """
        return self._begun_once(self._ask("text", text=text)["ids"])

    def _begun_once(self, ids: list[int]) -> list[int]:
        self._check_rows(ids)
        n = len(self.bos_ids)
        return ids[n:] if tuple(ids[: 2 * n]) == self.bos_ids * 2 else ids

    def _check_rows(self, ids: Sequence[int]) -> None:
        if (largest := max(ids, default=0)) >= self._rows:
            name = self.hf.convert_ids_to_tokens(largest)
            raise UserError(f"the model has no row for the token {name!r}: leave it out")

    @functools.lru_cache(_REMEMBERED)
    def encode_plain(self, text: str, continued: bool = False) -> tuple[int, ...]:
        """A text by itself: control tokens stay text, nothing is added. Cached.

        Raises:
          UserError: the tokenizer makes a control token of plain text whatever is done, or a token
            that the model has no row for.
        """
        if continued and not self._puts_space_first:
            return self.encode_plain(text)
        self.read_ahead([text], continued)
        ids = self._read[text, continued]
        self._check_rows(ids)
        for name in self._control:
            if name in text and self._id_of[name] in ids and name != self.hf.unk_token:
                raise UserError(f"this tokenizer cannot keep {name!r} as plain text: leave it out")
        return ids

    def read_ahead(self, texts: Iterable[str], continued: bool = True) -> None:
        """Reads texts that `encode_plain` will be asked for soon: many at once take less time."""
        continued = continued and self._puts_space_first
        new = [text for text in dict.fromkeys(texts) if (text, continued) not in self._read]
        if new and len(self._read) > _REMEMBERED:
            self._read.clear()
        for some in (new[at : at + _AT_ONCE] for at in range(0, len(new), _AT_ONCE)):
            apart = [any(name in text for name in self._unspecial) for text in some]
            reply = self._ask("read", texts=some, apart=apart, continued=continued)
            self._read |= {(text, continued): tuple(ids) for text, ids in zip(some, reply["ids"])}

    def _ask(self, do: str, **what: Any) -> dict[str, Any]:
        request, named = {"do": do, "key": self._key, **what}, "the tokenizer"
        reply = PROCESS.ask(request, named)
        if reply.get("unknown"):
            taken = {"do": "take", "key": self._key, "json": self.hf.backend_tokenizer.to_str()}
            taken["seconds"] = tokenizer_files.MOST_SECONDS
            sent = PROCESS.ask(taken, named, seconds=tokenizer_files.WALL_SECONDS)
            reply = sent or PROCESS.ask(request, named)
        if "error" in reply:
            raise UserError(f"the tokenizer cannot read a text: {reply['error']}")
        return reply

    def encode_continued(self, text: str) -> tuple[int, ...]:
        """The same for text that goes on where other text stood: no space is put before it."""
        return self.encode_plain(text, continued=True)

    def plain_tail(self, text: str, ids: Sequence[int]) -> str:
        """The text after the last control token of a prompt, as it goes on there.

        Args:
          text: the prompt's text; marked control tokens in it are text (`render_chat`).
          ids: its tokens. Where they begin the tail with a space that the text does not have, as
            SentencePiece tokenizers do, the returned tail begins with it, too.
        """
        for with_marked in (False, True):  # whether marked control tokens end it, too
            at, strips = 0, False
            for match in self._mark.finditer(text):
                if with_marked or text[match.start() - 1 : match.start()] != _MARK_START:
                    at, strips = match.end(), self._control[match[0]].rstrip
            tail = _unmarked(text[at:])
            tail = tail.lstrip() if strips else tail
            for candidate in (tail, " " + tail):
                inside = self.encode_continued(candidate)
                if tuple(ids[len(ids) - len(inside) :]) == inside:
                    return candidate
        return tail

    def render_chat(self, messages: list[dict[str, str]], prefill: str) -> tuple[list[int], str]:
        """Ids and text of a chat with an open assistant turn that begins with `prefill`.

        Raises:
          UserError: no chat template, or the template refuses the messages or changes the open
            turn.
        """
        if not self.hf.chat_template:
            raise UserError("this tokenizer has no chat template; use --config.prompt_format=base")
        if prefill:
            messages = [*messages, {"role": "assistant", "content": prefill}]
        if not messages:
            raise UserError("a chat needs at least one message")
        try:
            template = self.hf.get_chat_template()
        except ValueError as error:  # several named templates, and none by default
            raise UserError(f"the chat template refuses these messages: {error}") from error
        chat = render(
            template,
            mark_control_tokens(messages, self._mark),
            date=self.prompt_date,
            enable_thinking=False,
            add_generation_prompt=not prefill,
            continue_final_message=bool(prefill),
            **{name: str(token) for name, token in self.hf.special_tokens_map.items()},
        )
        written = _unmarked(chat)
        if not written.endswith(prefill):
            raise UserError(
                "the chat template changes the open turn (white space at its ends?): it writes "
                f"{written[-len(prefill) :]!r} for {prefill!r}; begin the answer otherwise"
            )
        return self._begun_once(self._ask("chat", text=chat)["ids"]), chat

    def decode(self, ids: Iterable[int]) -> str:
        """What the tokens spell, control tokens by name; U+FFFD for parts of characters.

        Rows of the embedding beyond the vocabulary spell nothing.
        """
        known = (i for i in ids if i < self.size)
        spelled = (self._name_of.get(i, "").encode() or self.pieces[i] for i in known)
        return b"".join(spelled).decode(errors="replace")

    @functools.cached_property
    def pieces(self) -> tuple[bytes, ...]:
        """The bytes each token stands for, [size]; control tokens are empty."""
        byte_level = "ByteLevel" in str(self.hf.backend_tokenizer.decoder)
        to_byte = {char: byte for byte, char in bytes_to_unicode().items()}
        pieces = []
        for i, token in enumerate(self.hf.convert_ids_to_tokens(range(self.size))):
            if token is None or i in self._name_of:
                pieces.append(b"")
            elif token in self._id_of:  # an added token that is text: written as it is
                pieces.append(token.encode())
            elif byte_level:
                pieces.append(bytes(to_byte.get(char, 0x3F) for char in token))
            elif byte := _BYTE_TOKEN.fullmatch(token):
                pieces.append(bytes([int(byte[1], 16)]))
            else:
                pieces.append(token.replace(SPACE_MARK, " ").encode())
        return tuple(pieces)

    @functools.cached_property
    def id_of_piece(self) -> dict[bytes, int]:
        """Bytes -> the token that spells them; a whole token rather than a byte's fallback."""
        names = self.hf.convert_ids_to_tokens(range(self.size))
        fallback = lambda i: bool(_BYTE_TOKEN.fullmatch(names[i] or ""))
        order = sorted(range(min(self.size, self._rows)), key=fallback, reverse=True)
        return {self.pieces[i]: i for i in order if self.pieces[i]}


def _unmarked(text: str) -> str:
    return text.replace(_MARK_START, "").replace(_MARK_END, "")


def load_tokenizer(source: Path | GgufCheckpoint, needs_bos: bool = False) -> Tokenizer:
    """The tokenizer of a model folder or a GGUF file.

    A folder's `tokenizer.json` is taken as it is: `AutoTokenizer` would build some classes anew and
    read text otherwise (Llama-2's leading spaces), or fail on what else is installed.

    Args:
      needs_bos: whether the model is useless without a beginning token (Gemma).

    Raises:
      UserError: none there, one that cannot be read or trusted, one whose ids have gaps or
        repeat, one that takes too long or too much memory, or one that adds no beginning token
        where one is needed.
    """
    path = source.path if isinstance(source, GgufCheckpoint) else source
    if isinstance(source, Path) and source.is_file():
        source = GgufCheckpoint(source)
    key = next(_keys)
    tokenizer_files.build_in_child(source, path, key)
    hf, ends = tokenizer_files.build(source)
    try:
        tokenizer = Tokenizer(hf, ends, key)
    except Exception as error:  # libraries find some faults of a file when they are asked
        raise UserError(f"{path}: no usable tokenizer ({first_line(error)})") from error
    bos = tokenizer.hf.bos_token_id
    if needs_bos and (bos is None or tokenizer.bos_ids[:1] != (bos,)):
        raise UserError(
            f"{path}: this model needs a beginning token, and its tokenizer adds none; fetch the "
            "model's own tokenizer again"
        )
    return tokenizer
