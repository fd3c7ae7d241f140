"""Chat templates rendered: the part of `limited_child` that knows them."""

import datetime
import re
from typing import Any

from jinja2.defaults import DEFAULT_FILTERS, DEFAULT_NAMESPACE
from transformers.utils import chat_template_utils

LONGEST = 4_000_000  # characters
_ADDRESS = re.compile(r"\bat 0x[0-9a-f]+>")  # what functions and iterators print as


class Clock:
    """In place of `datetime`, as `strftime_now` asks it."""

    def __init__(self, date: str) -> None:
        self._date = datetime.datetime.fromisoformat(date)

    def now(self) -> datetime.datetime:
        """The start of the date."""
        return self._date


def remove_chance() -> None:
    """Jinja's own sources of it."""
    del DEFAULT_FILTERS["random"], DEFAULT_NAMESPACE["lipsum"]


def render(request: dict[str, Any]) -> dict[str, str]:
    """The rendered text, or why there is none."""
    template, messages, options = request["template"], request["messages"], request["options"]
    chat_template_utils.datetime = Clock(request["date"])
    render = chat_template_utils.render_jinja_template
    try:
        (text,), _ = render([messages], chat_template=template, **options)
    except MemoryError:
        return {"error": "it asks for too much memory"}
    except RecursionError:
        return {"error": "it calls itself without end"}
    except Exception as error:  # a template may raise anything
        return {"error": str(error)[:500].strip() or type(error).__name__}
    if len(text) > LONGEST:
        return {"error": f"it writes {len(text)} characters"}
    if set(_ADDRESS.findall(text)) - set(_ADDRESS.findall(str(messages))):
        return {
            "error": "it writes where in memory an object lies, which is another place each run"
        }
    return {"text": text}
