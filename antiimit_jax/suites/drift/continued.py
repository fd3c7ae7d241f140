"""What the base itself says, greedily, after questions that ask for no distribution.

It is generated once a run, at the base stage, and read by all others from that stage's table: so
every stage is compared on the very same text, also where a run goes on elsewhere.
"""

import dataclasses
from collections.abc import Sequence

import pyarrow as pa

from antiimit_jax.suites import suite
from antiimit_jax.tasks.neutral import NeutralPrompt, load_neutral

SAID = "drift_said"
SCHEMA = pa.schema(
    {name: pa.string() for name in ("stage", "prompt_id", "category", "text")}
    | {"ended": pa.bool_()}  # or else cut after so many tokens
)
_CUT = "\ufffd"  # stands for the beginning of a character whose end was cut off


def is_question(prompt: NeutralPrompt) -> bool:
    """Whether it is one turn of a user and its answer: what every model can be asked."""
    return [message.role for message in prompt.messages] == ["user", "assistant"]


def said(asker: suite.Asker, prompts: Sequence[NeutralPrompt], most: int) -> suite.Tables:
    """The asked model's answers of at most so many tokens; no table without a prompt."""
    chats = [ask_of(prompt).messages for prompt in prompts]
    found = asker.generate(chats, what="own answers", max_tokens=most, temperature=0)
    rows = [
        (asker.stage.name, prompt.id, prompt.category, answer.text.rstrip(_CUT), answer.ended)
        for prompt, (answer,) in zip(prompts, found)
    ]
    return {SAID: dict(zip(SCHEMA.names, zip(*rows)))} if rows else {}


def ask_of(prompt: NeutralPrompt) -> suite.Ask:
    """The question alone."""
    return suite.Ask(messages=answered(prompt, "").messages, words=())


def answered(prompt: NeutralPrompt, text: str) -> NeutralPrompt:
    """The question with another answer."""
    question, answer = prompt.messages
    return dataclasses.replace(
        prompt, messages=(question, dataclasses.replace(answer, content=text))
    )


def read(tables: suite.Tables) -> list[NeutralPrompt]:
    """The questions with the answers of a stage's table; an empty answer has nothing to read."""
    if SAID not in tables:
        return []
    prompts = {prompt.id: prompt for prompt in load_neutral("drift")}
    table = tables[SAID]
    return [
        answered(prompts[i], text) for i, text in zip(table["prompt_id"], table["text"]) if text
    ]
