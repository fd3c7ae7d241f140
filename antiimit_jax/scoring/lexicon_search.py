"""How much a model would say of each word of a large lexicon, whatever the tokens.

Best-first search over token paths after a prompt, as in `top_words`, but through one trie over the
lexicon: a path is followed only as far as it spells the beginning of a word, with or without a
space before it, so all that leaves the lexicon is known at once and costs nothing. A path's *reach*
is the probability that the answer begins with it; where it spells a word, the part of it that a
terminator follows is that word's. The paths of widest reach are asked for until those still open
reach `UNVISITED` in all, or `most` paths were asked for: what is left is the bound of the search. A
search may begin with the paths of another whose prompt is nearly the same: all its answers then
come in one round.
"""

import bisect
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.scoring.packing import PackedBatch
from antiimit_jax.scoring.trie import FormPath, Ids, WordQuery
from antiimit_jax.scoring.word_probs import readout_logits

Array = jax.Array
UNVISITED = 0.02  # of the probability: a search that leaves no more ends
WIDTH = 64  # paths asked for in a round, besides those that a search begins with
SEARCH_TOKENS = 1024  # of a batch: each path has a distribution over the vocabulary
_LEAST = 1e-6  # reach below which a path is not kept; it counts as unvisited


class Following(NamedTuple):
    """What follows each token path of a batch."""

    stop: Array  # [B, Z] probability that the path ends there
    prob: Array  # [B, Z, V] of every next token


def following(decoder: Decoder, variables: dict, stops: Array, batch: PackedBatch) -> Following:
    """Stop probability and next-token distribution after every path of a packed batch.

    Where a logit is not finite all probabilities are NaN.
    """
    logits = readout_logits(decoder, variables, batch)  # [R, V]
    top = logits.max(-1, keepdims=True)
    which = jnp.stack([jnp.ones_like(stops), stops]).astype(jnp.float32)  # [2, V]
    shares = jnp.exp(logits - top) + 0.0 * logits  # 0 * inf is NaN
    total, stop = jnp.einsum("rv,kv->kr", shares, which, precision="highest")
    at = batch.path_end  # [B, Z]
    shift = top[:, 0] + jnp.log(total)
    return Following(stop=(stop / total)[at], prob=jnp.exp(logits[at] - shift[at][..., None]))


class Lexicon:
    """Words as a trie over the tokens of a model, opened where it is visited."""

    def __init__(self, words: Iterable[str], id_of_piece: Mapping[bytes, int]) -> None:
        """`id_of_piece`: bytes -> the token that spells them.

        Raises:
          UserError: no token begins any of the words.
        """
        self._id_of = id_of_piece
        self._words = {word.encode(): word for word in words}
        self._forms = sorted(space + word for word in self._words for space in (b"", b" "))
        pairs = itertools.pairwise([b"", *self._forms])
        self._known = [len(os.path.commonprefix(pair)) for pair in pairs]  # letters of the last one
        self.children = functools.cache(self._children)
        if not self.children(b"")[1]:
            raise UserError(
                f"this model's tokenizer spells none of the lexicon's {len(self._words)} words: "
                "leave out the suite that asks for them, such as seed_words"
            )

    def word(self, text: bytes) -> str | None:
        """The word that a text is a form of."""
        return self._words.get(text.removeprefix(b" "))

    def _children(self, text: bytes) -> tuple[np.ndarray, list[bytes]]:
        """Tokens that bring a text nearer to a word, [n], and what is spelled after each."""
        first = bisect.bisect_left(self._forms, text)
        last = bisect.bisect_left(self._forms, text + b"\xff")
        start, tokens, spelled = len(text), [], []
        for form, known in zip(self._forms[first:last], self._known[first:last]):
            for end in range(max(start, known) + 1, len(form) + 1):
                if (token := self._id_of.get(form[start:end])) is not None:
                    tokens.append(token)
                    spelled.append(form[:end])
        return np.array(tokens, int), spelled


class LexiconSearch:
    """The search after one prompt."""

    def __init__(
        self, prompt_ids: Ids, lexicon: Lexicon, most: int, begun: Sequence[Ids] = ()
    ) -> None:
        """Asks for at most so many paths; first for those of another search, `begun`."""
        self._prompt_ids, self._lexicon, self._most = prompt_ids, lexicon, most
        self._open: dict[Ids, tuple[float, bytes]] = {(): (1.0, b"")}  # path -> reach, text
        self._asked: list[Ids] = [(), *(path for path in begun if path)]
        self._dropped = 0.0  # reach of paths that were not kept
        self.visited: list[Ids] = []
        self.words: dict[str, float] = {}  # those found, with their probability
        self.unvisited = 1.0  # reach of all paths never asked for, the bound on what was not found

    def query(self) -> WordQuery | None:
        """The next round's paths, each as a word of its own; None where the search has ended."""
        if not self._asked:
            return None
        paths = tuple(FormPath("", path, number) for number, path in enumerate(self._asked))
        return WordQuery(self._prompt_ids, paths, len(paths))

    def learn(self, stop: np.ndarray, prob: np.ndarray) -> None:
        """Takes in the round's answers, one line a path: [Z], [Z, V]."""
        for z, path in enumerate(self._asked):
            if path not in self._open:  # of another search, and hardly reached here
                continue
            reach, text = self._open.pop(path)
            self.visited.append(path)
            if word := self._lexicon.word(text):
                self.words[word] = self.words.get(word, 0.0) + reach * float(stop[z])
            tokens, spelled = self._lexicon.children(text)
            reached = reach * prob[z, tokens].astype(np.float64)
            kept = reached >= _LEAST
            self._dropped += float(reached[~kept].sum())
            for i in np.flatnonzero(kept):
                self._open[(*path, int(tokens[i]))] = float(reached[i]), spelled[i]
        order = sorted(self._open, key=self._open.get, reverse=True)
        reach = np.array([self._open[path][0] for path in order])
        self.unvisited = float(reach.sum()) + self._dropped
        needed = int((self.unvisited - np.cumsum(reach) + reach > UNVISITED).sum())
        self._asked = order[: max(0, min(needed, WIDTH, self._most - len(self.visited)))]
        if not self._asked:
            self._open.clear()


def search_groups(
    groups: Sequence[Sequence[Ids]],
    lexicon: Lexicon,
    most: int,
    ask: Callable[[list[WordQuery]], Iterable[tuple[Following, Sequence]]],
    progress: Callable[[int], None],
) -> list[list[LexiconSearch]]:
    """The searches after groups of prompts that are alike, many at once.

    The prompt in the middle of a group is searched first, the others begin with its paths.

    Args:
      ask: as `evaluation.runner.Runner.ask` with `following`.
    """

    def run(searches: Sequence[LexiconSearch]) -> None:
        while asked := [(one, query) for one in searches if (query := one.query())]:
            for result, places in ask([query for _, query in asked]):
                for i, b, words, _ in places:
                    search, _ = asked[i]
                    search.learn(result.stop[b, words], result.prob[b, words])
                    progress(search.query() is None)

    leads = [LexiconSearch(group[len(group) // 2], lexicon, most) for group in groups]
    run(leads)
    found = []
    for group, lead in zip(groups, leads):
        searches = [LexiconSearch(ids, lexicon, most, lead.visited) for ids in group]
        searches[len(group) // 2] = lead
        found.append(searches)
    run([search for searches in found for search in searches if not search.visited])
    return found
