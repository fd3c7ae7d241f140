"""Messages to token ids: chat templates, base formatting, and the assistant turn left open.

A `Prompt` ends where the answer begins. Its `tail` is the plain text since the last control token
(for SentencePiece with the space that the tokenizer puts there); word forms are tokenised as tail +
form, so their ids are found in context (`scoring.trie`). A prompt must not end in a space:
tokenizers put the space at the start of the next word. In base format it does not end in a newline
either, since many vocabularies have tokens for several newlines: an answer always has a prefill.
"""

import dataclasses

from antiimit_jax.errors import UserError
from antiimit_jax.text.tokenizer import Tokenizer

BASE_PREFILL = "Answer:"  # of answers in base format whose open turn is empty


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn. A last turn of role "assistant" is left open: the answer continues its content."""

    role: str
    content: str


@dataclasses.dataclass(frozen=True)
class Prompt:
    """Token ids up to the answer, and the plain text since the last control token."""

    ids: tuple[int, ...]
    tail: str


def text_prompt(tokenizer: Tokenizer, text: str) -> Prompt:
    """Text exactly as the tokenizer reads it: control tokens are parsed, BOS as it adds it."""
    ids = tokenizer.encode_text(text)
    if not ids:
        raise UserError("the prompt is empty: give it at least one token")
    return Prompt(tuple(ids), tokenizer.plain_tail(text, ids))


def chat_prompt(tokenizer: Tokenizer, messages: tuple[Message, ...]) -> Prompt:
    """The model's own chat template; control tokens inside messages stay plain text.

    Raises:
      UserError: no template, or a template that refuses these messages.
    """
    turns = [dataclasses.asdict(message) for message in messages]
    prefill = turns.pop()["content"] if messages[-1].role == "assistant" else ""
    ids, text = tokenizer.render_chat(turns, prefill)
    return Prompt(tuple(ids), tokenizer.plain_tail(text, ids))


def base_prompt(tokenizer: Tokenizer, messages: tuple[Message, ...]) -> Prompt:
    """Turns joined by blank lines, roles left out: how a model without chat training is asked.

    Where the open turn is empty, all answers begin with `BASE_PREFILL`.
    """
    if messages[-1].role != "assistant":
        messages = (*messages, Message("assistant", ""))
    if not messages[-1].content:
        begun = lambda m: f"{BASE_PREFILL} {m.content}" if m.content else BASE_PREFILL
        return _joined(
            tokenizer, [begun(m) if m.role == "assistant" else m.content for m in messages]
        )
    return _joined(tokenizer, [m.content for m in messages])


def _joined(tokenizer: Tokenizer, turns: list[str]) -> Prompt:
    text = "\n\n".join(turns)
    tokenizer.read_ahead((text, " " + text), continued=False)
    plain = tokenizer.encode_plain(text)
    spaced = " " + text if tokenizer.encode_continued(" " + text) == plain else text
    return Prompt((*tokenizer.bos_ids, *plain), spaced)


def build_prompt(tokenizer: Tokenizer, messages: tuple[Message, ...], style: str) -> Prompt:
    """Formats messages in `style` "chat" or "base" and checks the end.

    Raises:
      UserError: unknown style, no messages, or a prompt that ends in a space (in base format: or a
        newline).
    """
    if all(m.role == "assistant" and not m.content for m in messages):
        raise UserError("a prompt needs at least one message")
    if style not in ("chat", "base"):
        raise UserError(f"prompt format {style!r} is unknown; use chat or base")
    prompt = (chat_prompt if style == "chat" else base_prompt)(tokenizer, messages)
    if not prompt.ids:
        raise UserError("the prompt is empty: give it at least one token")
    if prompt.tail.endswith((" ", "\t") if style == "chat" else (" ", "\t", "\n")):
        what = "newline" if prompt.tail.endswith("\n") else "space"
        raise UserError(
            f"the open turn ends in a {what} ({prompt.tail[-20:]!r}): drop it, the answer's first "
            "token carries its own"
        )
    return prompt


def neutral_tokens(
    tokenizer: Tokenizer, messages: tuple[Message, ...], text: str, style: str
) -> tuple[tuple[int, ...], int]:
    """Ids of an unrelated text or finished chat, and the index of the first token that is scored.

    In a chat the last message is scored (from the token before it, which predicts its first); it
    goes on with the assistant's turn where the one before is the assistant's too. Plain text is
    scored from its first token on. Base models read a chat as turns joined by blank lines.
    Where a template has no system role (Gemma's, early Mistral's) its text begins the first turn.
    """
    if not messages or style == "base" and len(messages) == 1:
        text = messages[0].content if messages else text
        return (*tokenizer.bos_ids, *tokenizer.encode_plain(text)), 0
    *turns, answer = messages
    begun = turns and turns[-1].role == "assistant"
    asked = tuple(turns) if begun else (*turns, Message("assistant", ""))
    if style == "base":
        ids = _joined(tokenizer, [message.content for message in asked]).ids
        return (*ids, *tokenizer.encode_continued(answer.content)), len(ids) - 1
    try:
        ids = build_prompt(tokenizer, asked, style).ids
    except UserError:
        if not turns or turns[0].role != "system":
            raise
        system, first, *rest = asked
        first = Message(first.role, f"{system.content}\n\n{first.content}")
        ids = build_prompt(tokenizer, (first, *rest), style).ids
    return (*ids, *tokenizer.encode_continued(answer.content)), len(ids) - 1
