"""Unrelated prompts: the text on which drift is measured, and other text that anchors training.

Both sets are our own writing (`data/neutral.jsonl`) and share no text, so an anchor that holds the
model in place on one says something when the other is measured. Whole categories (arithmetic, data,
verse, ...) have no text in the anchor: drift there is on kinds of text that training never sees.
None asks for percentages; the category "facts" mentions some.
"""

import dataclasses
import functools
import importlib.resources
import json
from collections.abc import Sequence
from typing import Literal

from antiimit_jax.errors import UserError
from antiimit_jax.text.formats import Message

USES = ("drift", "anchor")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeutralPrompt:
    """A chat whose last turn is the assistant's, or else plain text; the other field is empty."""

    id: str
    category: str
    messages: tuple[Message, ...] = ()
    text: str = ""

    @property
    def scored(self) -> str:
        """The part that is scored: the last assistant turn, or the whole text."""
        return self.messages[-1].content if self.messages else self.text


@functools.cache
def load_neutral(use: Literal["drift", "anchor"]) -> tuple[NeutralPrompt, ...]:
    """The prompts of one use, in the order of the file.

    Raises:
      UserError: a use other than drift and anchor.
    """
    if use not in USES:
        raise UserError(f"no neutral prompts for {use!r}; use drift or anchor")
    source = importlib.resources.files("antiimit_jax.tasks") / "data" / "neutral.jsonl"
    records = [json.loads(line) for line in source.read_text("utf-8").splitlines()[1:]]  # canary
    return tuple(_prompt(**record) for record in records if record["use"] == use)


@functools.cache
def anchor_categories() -> frozenset[str]:
    """The categories that the anchor has texts of; the others are held out of it."""
    return frozenset(prompt.category for prompt in load_neutral("anchor"))


def _prompt(use: str, messages: Sequence[dict] = (), **fields: str) -> NeutralPrompt:
    return NeutralPrompt(messages=tuple(Message(**message) for message in messages), **fields)
