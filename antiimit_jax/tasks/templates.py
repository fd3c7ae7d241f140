"""How a distribution is asked for: our own phrasings, split into trained and held-out by hash.

Every phrasing opens with fixed text and then lists the words with their percentages, or first all
words and then all percentages. Items of one phrasing share a long beginning, which the packed tree
computes once; where the words come first, so do requests that differ in percentages alone.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import json
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from antiimit_jax.errors import UserError, first_line
from antiimit_jax.json_files import UserFile, read_json_lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class Template:
    """One phrasing. `entry` lists a word with its percentage; `prior_*` asks without any.

    With a `share`, `entry` lists a word alone, and after `then` come the percentages in that order.
    """

    opening: str
    entry: str
    prior_opening: str
    join: str = ", "
    then: str = ""
    share: str = ""
    prior_entry: str = "{word}"
    closing: str = "."
    prefill: str = ""

    @property
    def heldout(self) -> bool:
        """Whether this phrasing is kept out of training (by hash of its text)."""
        text = self.opening + self.entry + self.then + self.share + self.prefill
        return hashlib.sha256(text.encode()).digest()[0] < 77  # about three in ten

    def request(self, words: Sequence[str], percents: Sequence[int]) -> str:
        """The request with its percentages."""
        entries = [self.entry.format(word=w, percent=p) for w, p in zip(words, percents)]
        shares = [self.share.format(percent=p) for p in percents] if self.share else []
        listed = self.join.join(entries) + self.then + self.join.join(shares)
        return self.opening + listed + self.closing

    def prior_request(self, words: Sequence[str]) -> str:
        """The same request without percentages."""
        entries = [self.prior_entry.format(word=w) for w in words]
        return self.prior_opening + self.join.join(entries) + self.closing


@functools.cache
def load_templates(path: str) -> UserFile[Template]:
    """A user's phrasings: JSONL as `data/phrasings.jsonl`, read once in a process.

    Raises:
      UserError: no such file, the first line that is no phrasing or repeats one, or phrasings that
        are all trained on or all held out.
    """
    file, found = Path(path).expanduser(), dict[Template, int]()
    held = read_json_lines(file, _SHAPE, hint=_HINT)
    for number, record in enumerate(held.entries, 1):
        template = Template(**record)
        problem = _problem(template)
        if template in found:
            problem = f"the same phrasing as in line {found[template]}"
        if problem:
            raise UserError(f"{file}: line {number}: {problem}")
        found[template] = number
    heldout = sum(template.heldout for template in found)
    if heldout in (0, len(found)):
        which = "held out" if heldout else "trained on"
        raise UserError(
            f"{file}: by the hash of their texts all {len(found)} phrasings are {which}; both "
            "kinds are needed: give more, or change a word of one"
        )
    return held.holding(found)


def _problem(template: Template) -> str:
    """What makes no phrasing of a line; empty where it is one."""
    if bool(template.share) != bool(template.then):
        return "then and share go together: what stands before the percentages, and one of them"
    apart = {"entry": ["word"], "share": ["percent"]} if template.share else {}
    wanted_of = {"entry": ["percent", "word"], "prior_entry": ["word"]} | apart
    for name, wanted in wanted_of.items():
        try:
            parts = list(string.Formatter().parse(getattr(template, name)))
        except ValueError as error:
            return f"{name}: {first_line(error)}; write a brace of the text twice"
        asked = sorted(field for _, field, *_ in parts if field is not None)
        if asked != wanted or any(spec or conversion for *_, spec, conversion in parts):
            return f"{name} must hold {' and '.join(f'{{{w}}}' for w in wanted)} once, and no other"
    if template.prefill != template.prefill.rstrip():
        return "prefill ends in white space; leave it out, an answer brings its own"
    return ""


_FILE = importlib.resources.files("antiimit_jax.tasks") / "data" / "phrasings.jsonl"
_SHAPE = {
    f.name if f.default is dataclasses.MISSING else f"{f.name}?": str
    for f in dataclasses.fields(Template)
}
_HINT = "give a JSONL file of phrasings, one object a line"
TEMPLATES = tuple(Template(**json.loads(line)) for line in _FILE.read_text("utf-8").splitlines())
TRAIN_TEMPLATES = tuple(i for i, t in enumerate(TEMPLATES) if not t.heldout)
HELDOUT_TEMPLATES = tuple(i for i, t in enumerate(TEMPLATES) if t.heldout)


def plain_requests(heldout: np.ndarray, n_shots: np.ndarray) -> np.ndarray:
    """True [n] for items in a phrasing that training may use and without few-shot turns.

    The figures of a split stand on these; where there are none, on all.
    """
    plain = ~np.asarray(heldout, bool) & (np.asarray(n_shots) == 0)
    return plain if plain.any() else np.ones(len(plain), bool)
