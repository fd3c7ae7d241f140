"""The process in which chat templates are rendered: a script, started by `chat_templates`.

A template is foreign code. Here it has little memory, little time, no clock, no chance, no file to
write to, and only this process to lose. One JSON object a line comes in (template, messages, date,
options), one goes out (text or error). Ends when its input ends.
"""

import datetime
import json
import re
import resource
import sys

from jinja2.defaults import DEFAULT_FILTERS, DEFAULT_NAMESPACE
from transformers.utils import chat_template_utils

MEMORY = 256 << 20  # bytes beyond what the process needs itself
SECONDS = 2  # of processor time a rendering
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


def limit_memory() -> None:
    """Address space: what there is, and `MEMORY`; nothing is written to files."""
    with open("/proc/self/statm", encoding="ascii") as pages:
        used = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def limit_time() -> None:
    """Processor time from now on; the kernel ends the process after it."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(usage.ru_utime + usage.ru_stime)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (spent + SECONDS + 1, hard))


def answer(request: dict) -> dict[str, str]:
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


def main() -> None:
    replies = sys.stdout
    sys.stdout = sys.stderr
    if sys.platform == "linux":
        limit_memory()
    remove_chance()
    print("{}", file=replies, flush=True)  # ready
    for line in sys.stdin:
        limit_time()
        print(json.dumps(answer(json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
