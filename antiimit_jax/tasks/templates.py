"""How a distribution is asked for: our own phrasings, split into trained and held-out by hash.

Every phrasing opens with fixed text and then lists the words with their percentages, so items of
one phrasing share a long beginning, which the packed tree computes once.
"""

import dataclasses
import hashlib
import importlib.resources
import json
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Template:
    """One phrasing. `entry` lists a word with its percentage; `prior_*` asks without any."""

    opening: str
    entry: str
    prior_opening: str
    join: str = ", "
    prior_entry: str = "{word}"
    closing: str = "."
    prefill: str = ""

    @property
    def heldout(self) -> bool:
        """Whether this phrasing is kept out of training (by hash of its text)."""
        text = self.opening + self.entry + self.prefill
        return hashlib.sha256(text.encode()).digest()[0] < 77  # about three in ten

    def request(self, words: Sequence[str], percents: Sequence[int]) -> str:
        """The request with its percentages."""
        entries = [self.entry.format(word=w, percent=p) for w, p in zip(words, percents)]
        return self.opening + self.join.join(entries) + self.closing

    def prior_request(self, words: Sequence[str]) -> str:
        """The same request without percentages."""
        entries = [self.prior_entry.format(word=w) for w in words]
        return self.prior_opening + self.join.join(entries) + self.closing


_FILE = importlib.resources.files("antiimit_jax.tasks") / "data" / "phrasings.jsonl"
TEMPLATES = tuple(Template(**json.loads(line)) for line in _FILE.read_text("utf-8").splitlines())
TRAIN_TEMPLATES = tuple(i for i, t in enumerate(TEMPLATES) if not t.heldout)
HELDOUT_TEMPLATES = tuple(i for i, t in enumerate(TEMPLATES) if t.heldout)


def plain_requests(template: np.ndarray, n_shots: np.ndarray) -> np.ndarray:
    """True [n] for items in a phrasing that training may use and without few-shot turns.

    The figures of a split stand on these; where there are none, on all.
    """
    plain = ~np.isin(template, HELDOUT_TEMPLATES) & (np.asarray(n_shots) == 0)
    return plain if plain.any() else np.ones(len(plain), bool)
