"""Chat templates rendered: the part of `limited_child` that knows them.

What prints as its place in memory, which is another one each run, reaches a template only as
`Hidden`: it can be called, iterated and asked for attributes, and refuses to become text. All that
a template computes comes from names, attributes, calls and filters, so nothing else has to know.
"""

import datetime
import functools
from collections.abc import Callable, Iterator
from typing import Any

from jinja2.defaults import DEFAULT_FILTERS, DEFAULT_NAMESPACE
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, missing
from transformers.utils import chat_template_utils

LONGEST = 4_000_000  # characters
_VIEWS = (type({}.keys()), type({}.values()), type({}.items()))
# What prints as its contents.
_PLAIN = (str, bytes, int, float, complex, type(None), list, tuple, dict, range, *_VIEWS)
_PLAIN += (Namespace, Undefined, type(missing))


class Clock:
    """In place of `datetime`, as `strftime_now` asks it."""

    def __init__(self, date: str) -> None:
        self._date = datetime.datetime.fromisoformat(date)

    def now(self) -> datetime.datetime:
        """The start of the date."""
        return self._date


class Hidden:
    """A function, an iterator or another object without a text of its own."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __iter__(self) -> Iterator[Any]:
        return iter(self.value)

    def __repr__(self) -> str:
        raise SecurityError(
            "it writes where in memory an object lies, which is another place each run"
        )


def _hidden(value: Any) -> Any:
    return value if isinstance(value, (*_PLAIN, Hidden)) else Hidden(value)


def _shown(value: Any) -> Any:
    return value.value if isinstance(value, Hidden) else value


def _hiding(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter, whose result is hidden; what Jinja noted at it stays."""

    @functools.wraps(function)
    def filtered(*args: Any, **how: Any) -> Any:
        return _hidden(function(*args, **how))

    return filtered


class _Context(Context):
    def resolve_or_missing(self, key: str) -> Any:
        return _hidden(super().resolve_or_missing(key))


class Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which no object tells where it lies."""

    context_class = _Context

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self.filters = {name: _hiding(filter_) for name, filter_ in self.filters.items()}
        self.tests["callable"] = lambda value: callable(_shown(value))

    def getattr(self, obj: Any, attribute: str) -> Any:
        return _hidden(super().getattr(_shown(obj), attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        return _hidden(super().getitem(_shown(obj), argument))

    def call(self, context: Context, obj: Any, /, *args: Any, **how: Any) -> Any:
        return _hidden(super().call(context, _shown(obj), *args, **how))


def prepare() -> None:
    """Takes Jinja's own sources of chance away, and has transformers render in `Environment`."""
    # pprint orders keys that cannot be compared by where they lie.
    del DEFAULT_FILTERS["random"], DEFAULT_FILTERS["pprint"], DEFAULT_NAMESPACE["lipsum"]
    chat_template_utils.ImmutableSandboxedEnvironment = Environment


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
    return {"text": text}
