"""How a distribution is asked for: our own phrasings, split into trained and held-out by hash.

Every phrasing opens with fixed text and then lists the words with their percentages, so items of
one phrasing share a long beginning, which the packed tree computes once.
"""

import dataclasses
import hashlib
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


TEMPLATES: tuple[Template, ...] = (
    Template(
        opening="Say one word, picked at random with these chances: ",
        entry="{word} {percent}%",
        prior_opening="Say one word, picked at random out of these: ",
        prefill="Word:",
    ),
    Template(
        opening="Your next word is drawn from a distribution. Draw it now. ",
        entry="{percent}% {word}",
        prior_opening="Your next word is drawn from a list. Draw it now. ",
        prefill="Drawn:",
    ),
    Template(
        opening="Control the probabilities of your answer, which is a single word: ",
        entry='"{word}" with probability {percent}%',
        prior_opening="Give an answer which is a single word: ",
        prior_entry='"{word}"',
        prefill="Answer:",
    ),
    Template(
        opening="Spin the wheel and tell me only where it stops. Its sectors:\n",
        entry="- {word}: {percent}%",
        prior_opening="Spin the wheel and tell me only where it stops. Its sectors:\n",
        prior_entry="- {word}",
        join="\n",
        closing="",
        prefill="It stops at:",
    ),
    Template(
        opening="I will ask this a hundred times. Reply each time with one word, so that I hear ",
        entry="{word} in {percent}% of the replies",
        prior_opening="I will ask this a hundred times. Reply each time with one word among ",
        prefill="Reply:",
    ),
    Template(
        opening="Mix your next word as follows and write nothing else.\n",
        entry="{word} = {percent}%",
        prior_opening="Choose your next word as follows and write nothing else.\n",
        join="; ",
        closing="",
    ),
    Template(
        opening="A weighted die has a word on each face. Roll it and read out the word. Weights: ",
        entry="{word} ({percent}%)",
        prior_opening="A die has a word on each face. Roll it and read out the word. Faces: ",
        prefill="The die shows:",
    ),
    Template(
        opening="Answer with one of the following, as often as stated: ",
        entry="{percent} percent {word}",
        prior_opening="Answer with one of the following: ",
    ),
    Template(
        opening="Be a random source. Emit a word with the probabilities given.\n",
        entry="P({word}) = {percent}%",
        prior_opening="Be a source of words. Emit one of those given.\n",
        join="\n",
        closing="",
        prefill="Emitted:",
    ),
    Template(
        opening="Which word comes next? It should be ",
        entry="{word} {percent} times out of 100",
        prior_opening="Which word comes next? It should be one of ",
        prefill="Next:",
    ),
)

TRAIN_TEMPLATES = tuple(i for i, t in enumerate(TEMPLATES) if not t.heldout)
HELDOUT_TEMPLATES = tuple(i for i, t in enumerate(TEMPLATES) if t.heldout)


def plain_requests(template: np.ndarray, n_shots: np.ndarray) -> np.ndarray:
    """True [n] for items in a phrasing that training may use and without few-shot turns.

    The figures of a split stand on these; where there are none, on all.
    """
    plain = ~np.isin(template, HELDOUT_TEMPLATES) & (np.asarray(n_shots) == 0)
    return plain if plain.any() else np.ones(len(plain), bool)
