"""A user's own items: requests of any wording from a JSONL file, one object a line.

{"prompt": "A coin falls on heads 70%, on tails 30%.", "words": ["heads", "tails"],
 "targets": [70, 30], "facets": {"topic": "coins"}}

prompt     a user's turn; or instead
messages   turns {"role": "system", "user" or "assistant", "content": text}; a last turn of the
           assistant is left open, and the answer goes on from it
words      two or more, all different
targets    the words' shares, which sum to 1, or their percentages, which sum to 100
cluster    optional: items that are alike bear one name and are resampled together; without a
           name those with the same words are
facets     optional: names with texts, numbers, true or false; each value is a slice
"""

import collections
import functools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from antiimit_jax.errors import UserError, quoted
from antiimit_jax.files import json_text
from antiimit_jax.json_files import UserFile, read_json_lines
from antiimit_jax.tasks.items import Item
from antiimit_jax.text.formats import Message
from antiimit_jax.text.words import NO_NAME, is_name, own_words_problem

SPLIT = "items"  # of all items of a user's file
_ROLES = frozenset(("system", "user", "assistant"))
_SHAPE = {
    "prompt?": str,
    "messages?": [{"role": _ROLES, "content": str}],
    "words": [str],
    "targets": [float],
    "cluster?": str,
    "facets?": {str: (str, bool, float)},
}
MOST_WORDS, _MOST_VALUES = 20, 50  # of an item, of a facet
_FACET = re.compile(r"[A-Za-z_]\w{0,39}", re.ASCII)
_VALUE = re.compile(r"[^,=\s]([^,=]{0,38}[^,=\s])?")  # as a slice's name can hold it
_TAKEN = ("distance", "k", "shots", "template", "templates", "tokens")  # slices in any case


@functools.cache
def load_items(path: str, skip_bad: bool = False) -> UserFile[Item]:
    """The items of a file, which a process reads once.

    Args:
      skip_bad: lines that are no items are left out, and are the file's `faults`.

    Raises:
      UserError: no such file, no item, or what is wrong with the first line that is none.
    """
    file, hint = Path(path).expanduser(), "give a JSONL file of items, one object a line"
    faults, items, values = [], [], collections.defaultdict(set)
    held = read_json_lines(file, _SHAPE, hint=hint, faults=faults if skip_bad else None)
    for number, record in enumerate(held.entries, 1):
        if record is None:
            continue
        if problem := _problem(record):
            faults.append(f"{file}: line {number}: {problem}")
            if skip_bad:
                continue
            raise UserError(faults[0])
        for name, value in record.get("facets", {}).items():
            values[name].add(value)
            if len(values[name]) > _MOST_VALUES:
                much = f"facet {name} has more than {_MOST_VALUES} values, each of them a slice"
                raise UserError(f"{file}: line {number}: {much}; leave it out or group them")
        items.append(_item(number, record))
    if not items:
        raise UserError(f"{faults[0]} (of {len(held.entries)} lines none is an item)")
    return held.holding(items, faults)


def line_of(item: Item) -> int:
    """The number of the line that an item of a user's file stands on."""
    return int(item.item.removeprefix(f"{SPLIT}/"))


def _item(number: int, record: Mapping[str, Any]) -> Item:
    turns = record.get("messages") or [{"role": "user", "content": record["prompt"]}]
    words, targets = record["words"], record["targets"]
    return Item(
        item=f"{SPLIT}/{number}",
        split=SPLIT,
        cluster=record.get("cluster", "\t".join(sorted(words))),
        messages=tuple(Message(**turn) for turn in turns),
        words=tuple(words),
        targets=tuple(target / math.fsum(targets) for target in targets),
        facets={name: _text(value) for name, value in record.get("facets", {}).items()},
    )


def _text(value: str | bool | float) -> str:
    return value if isinstance(value, str) else json_text(value)


def _problem(record: Mapping[str, Any]) -> str:
    """What makes no item of a line; empty where it is one."""
    found = [
        _prompt_problem(record),
        _word_problem(record["words"]),
        target_problem(record["targets"], len(record["words"])),
        _facet_problem(record.get("facets", {})),
    ]
    if not is_name(record.get("cluster", "-")):
        found.append(f"cluster {NO_NAME}")
    return next(filter(None, found), "")


def _prompt_problem(record: Mapping[str, Any]) -> str:
    if ("prompt" in record) == ("messages" in record):
        return "give either prompt or messages"
    if "prompt" in record:
        return "" if record["prompt"].strip() else "the prompt is empty"
    turns = record["messages"]
    if not turns or turns[-1]["role"] == "system":
        return "messages must end in a turn of the user, or in one of the assistant that is open"
    *closed, last = turns
    closed += [last] if last["role"] == "user" else []
    if not closed or not all(turn["content"].strip() for turn in closed):
        return "a message is empty; only the assistant's open turn, the last, may be"
    if last["role"] == "assistant" and last["content"] != last["content"].rstrip():
        return "the open turn ends in white space; leave it out, an answer brings its own"
    return ""


def _word_problem(words: Sequence[str]) -> str:
    """What keeps words from being the answers of one request; empty where nothing does."""
    if not 2 <= len(words) <= MOST_WORDS:
        return f"{len(words)} words; give 2 to {MOST_WORDS}"
    return own_words_problem(words)


def target_problem(targets: Sequence[float], n_words: int) -> str:
    """What keeps numbers from being words' shares or percentages; empty where nothing does."""
    if len(targets) != n_words:
        return f"{len(targets)} targets for {n_words} words; give one for each word"
    if least := [target for target in targets if target < 0]:
        return f"target {least[0]} is negative"
    total = math.fsum(targets)
    if min(abs(total - 1), abs(total - 100) / 100) > 1e-6:
        return f"targets sum to {total:.6g}; give shares that sum to 1 or percentages, to 100"
    return ""


def _facet_problem(facets: Mapping[str, str | bool | float]) -> str:
    for name, value in facets.items():
        if name in _TAKEN or not _FACET.fullmatch(name):
            taken = ", ".join(_TAKEN)
            return f"facet {quoted(name)}: a name is of letters, digits and _, and not {taken}"
        if not _VALUE.fullmatch(_text(value)) or not is_name(_text(value)):
            return f"facet {name} = {quoted(value)}: give 1 to 40 characters without , and ="
    return ""
