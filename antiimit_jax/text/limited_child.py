"""The process in which code and tables of others run: a script, started by `limited_process`.

A chat template is foreign code, and a tokenizer's file can ask for as much. Here both have little
memory, little time, no file to write to, and only this process to lose; templates have no clock and
no chance besides. One JSON object a line comes in, one goes out. Ends when its input ends.
"""

import json
import os
import resource
import signal
import sys
from typing import Any

from antiimit_jax.text import template_child, tokenizer_child

TEMPLATE_MEMORY, TOKENIZER_MEMORY = 256 << 20, 1 << 30  # bytes beyond what is there before
SECONDS = 2  # of processor time a request; building large tokenizers may take longer


def limit(memory: int, seconds: int) -> None:
    """Address space and processor time from now on; the kernel ends the process after it.

    RLIMIT_CPU would not do: it counts from the process' start, in ticks, which on a busy machine
    run seconds ahead of the time that a process is told it took.
    """
    if sys.platform != "linux":
        return
    with open("/proc/self/statm", encoding="ascii") as pages:
        used = int(pages.read().split()[0]) * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (used, resource.getrlimit(resource.RLIMIT_AS)[1]))
    signal.setitimer(signal.ITIMER_PROF, seconds + 1)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, or {"error": why there is none}."""
    if request["do"] != "render":
        limit(TOKENIZER_MEMORY, request.get("seconds", SECONDS))
        return tokenizer_child.ASKED[request["do"]](request)
    limit(TEMPLATE_MEMORY, SECONDS)
    return template_child.render(request)


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # where Rust prints what it ignores
    for each in (signal.SIGINT, signal.SIGTERM):  # for the program, which ends this one
        signal.signal(each, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # of `limit`, whatever the program was given
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # nothing is written to files
    template_child.prepare()
    print("{}", file=replies, flush=True)  # ready
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
