"""Chat templates, which are foreign code: transformers renders them in a process with limits."""

import datetime
from typing import Any

from antiimit_jax.errors import UserError
from antiimit_jax.text.limited_process import PROCESS, LimitedProcess

PROMPT_DATE = "2026-01-01"  # all the time that a template sees, where nothing else is said


def is_date(text: str) -> bool:
    """Whether a text is a date as 2026-01-31."""
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def render(
    template: str,
    messages: list[dict[str, str]],
    *,
    date: str = PROMPT_DATE,
    process: LimitedProcess = PROCESS,
    **options: Any,
) -> str:
    """The text of a chat.

    Args:
      date: what `strftime_now` tells, and `date_string` as Llama's templates write it.
      options: `continue_final_message`, `add_generation_prompt`, names of special tokens, and
        whatever else the template may ask for.

    Raises:
      UserError: the template refuses the messages, or takes too long or too much.
    """
    options = {"date_string": f"{datetime.date.fromisoformat(date):%d %b %Y}"} | options
    asked = {"template": template, "messages": messages, "date": date, "options": options}
    reply = process.ask({"do": "render"} | asked, "the chat template")
    if "error" in reply:
        raise UserError(f"the chat template refuses these messages: {reply['error']}")
    return reply["text"]
