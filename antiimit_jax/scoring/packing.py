"""Queries into packed sequences: each is one tree of tokens in depth-first order.

All that a sequence must score (each prompt followed by each of its words' token paths) is put into
one trie, so whatever is shared is computed once: the prompt of an item's five words, the first
token of two words. What many sequences share (few-shot turns, a template's opening) is their shared
prefix, `trunk` in the code. Depth-first order makes the ancestor relation a comparison of indices
(see `models.decoder`). Shapes are static: sequences are filled to fixed limits and padded.
"""

import collections
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.models.decoder import Dense, Forest
from antiimit_jax.scoring.trie import Ids, WordQuery, event_parents


class PackedBatch(NamedTuple):
    """B sequences after P shared prefixes; int32 but `word_sign`. Padding adds nothing."""

    forest: Forest
    read_at: np.ndarray  # [R] logit positions: places b T + t of tokens
    path_readout: np.ndarray  # [B, Z, S] which of them precedes each path token
    path_token: np.ndarray  # [B, Z, S] -1 on padding
    path_end: np.ndarray  # [B, Z] which of them is the path's last token
    word_path: np.ndarray  # [B, W, Q] paths that add to or are taken from a word
    word_sign: np.ndarray  # [B, W, Q] float32: 1, -1, 0 on padding
    word_item: np.ndarray  # [B, W] the word's item within the sequence, -1 on padding


class SequenceLimits(NamedTuple):
    """The static size of a packed sequence, or what one takes up."""

    tokens: int  # T
    readouts: int  # R, logit positions
    paths: int  # Z
    steps: int  # S
    words: int  # W
    terms: int  # Q


class PackedSequence:
    """One sequence being filled after a shared prefix; `queries` are indices of what it scores."""

    def __init__(self, limits: SequenceLimits, stops: np.ndarray, trunk: Ids = ()) -> None:
        self.limits, self.trunk = limits, trunk
        self.queries: list[int] = []
        self._stops = stops
        # Nodes of the tree; node 0 stands for the shared prefix, above the first token.
        self._token, self._parent, self._position = [-1], [-1], [len(trunk) - 1]
        self._child: dict[tuple[int, int], int] = {}  # (node, token) -> the node below
        self._readouts: dict[int, int] = {}  # node -> readout, in order
        self._paths: list[tuple[Ids, list[int]]] = []  # (tokens, readouts to the end)
        self._words: list[list[tuple[int, float]]] = []
        self._word_item: list[int] = []

    @property
    def tokens(self) -> int:
        """Without those of the shared prefix."""
        return len(self._token) - 1

    @property
    def readouts(self) -> int:
        """Logit positions: tokens whose next-token distribution is needed."""
        return len(self._readouts)

    def size(self) -> SequenceLimits:
        """What is taken up so far."""
        return SequenceLimits(
            tokens=self.tokens,
            readouts=self.readouts,
            paths=len(self._paths),
            steps=max((len(tokens) for tokens, _ in self._paths), default=0),
            words=len(self._words),
            terms=max(map(len, self._words), default=0),
        )

    def add(self, index: int, query: WordQuery) -> bool:
        """Adds a query, or returns False and changes nothing if it does not fit.

        The shared prefix must be a proper beginning of the query's prompt.
        """
        need = needed(query, self._stops, len(self.trunk))
        own = query.prompt_ids[len(self.trunk) :]
        size = self.size()
        used = need._replace(
            tokens=size.tokens + need.tokens - self._known(own),
            readouts=size.readouts + need.readouts,
            paths=size.paths + need.paths,
            words=size.words + need.words,
        )
        if any(more > limit for more, limit in zip(used, self.limits)):
            return False
        answer = self._insert(0, own)[-1]
        first_path, words = len(self._paths), [[] for _ in range(query.n_words)]
        self._words += words
        self._word_item += [len(self.queries)] * query.n_words
        self.queries.append(index)
        for path in query.paths:
            nodes = [answer, *self._insert(answer, path.tokens)]
            reads = [self._readouts.setdefault(node, len(self._readouts)) for node in nodes]
            words[path.word].append((len(self._paths), 1.0))
            self._paths.append((path.tokens, reads))
        for child, parent in enumerate(event_parents(query.paths, self._stops)):
            if parent >= 0:
                words[query.paths[parent].word].append((first_path + child, -1.0))
        return True

    def _known(self, ids: Sequence[int]) -> int:
        """How many of the first ids are there already."""
        node = 0
        for depth, token in enumerate(ids):
            if (node := self._child.get((node, token))) is None:
                return depth
        return len(ids)

    def _insert(self, node: int, ids: Sequence[int]) -> list[int]:
        """The nodes of `ids` below a node; those that are not there yet are added."""
        nodes = []
        for token in ids:
            below = self._child.setdefault((node, token), len(self._token))
            if below == len(self._token):
                self._token.append(token)
                self._parent.append(node)
                self._position.append(self._position[node] + 1)
            node = below
            nodes.append(node)
        return nodes

    def write(self, batch: PackedBatch, b: int, trunk: int, readout: int) -> None:
        """Writes sequence `b` of an empty batch, after shared prefix number `trunk`.

        Its logit positions are the batch's from number `readout` on.
        """
        place, end = self._depth_first()
        forest = batch.forest
        forest.trunk_of[b] = trunk
        forest.tokens[b, place[1:]] = self._token[1:]
        forest.positions[b, place[1:]] = self._position[1:]
        forest.subtree_end[b, place[1:]] = end[1:]
        read_at = b * forest.tokens.shape[1] + place[list(self._readouts)]
        batch.read_at[readout : readout + self.readouts] = read_at
        for z, (tokens, reads) in enumerate(self._paths):
            batch.path_readout[b, z, : len(tokens)] = [readout + own for own in reads[:-1]]
            batch.path_end[b, z] = readout + reads[-1]
            batch.path_token[b, z, : len(tokens)] = tokens
        for w, terms in enumerate(self._words):
            for q, (path, sign) in enumerate(terms):
                batch.word_path[b, w, q], batch.word_sign[b, w, q] = path, sign
        batch.word_item[b, : len(self._word_item)] = self._word_item

    def _depth_first(self) -> tuple[np.ndarray, np.ndarray]:
        """Place in the sequence and end of the subtree of every node, which come parents first."""
        size = [1] * len(self._token)
        for node in range(len(size) - 1, 0, -1):
            size[self._parent[node]] += size[node]
        place, free = [-1] * len(size), [0] * len(size)  # free: the next place below each node
        for node, parent in enumerate(self._parent[1:], start=1):
            place[node] = free[parent]
            free[node] = place[node] + 1
            free[parent] += size[node]
        return np.array(place), np.add(place, size)


def needed(query: WordQuery, stops: np.ndarray, trunk: int = 0) -> SequenceLimits:
    """What one query takes up in an empty sequence after a prefix of so many tokens."""
    nodes = {path.tokens[:n] for path in query.paths for n in range(1, len(path.tokens) + 1)}
    around = [query.paths[i] for i in event_parents(query.paths, stops) if i >= 0]
    terms = collections.Counter(path.word for path in (*query.paths, *around))
    return SequenceLimits(
        tokens=len(query.prompt_ids) - trunk + len(nodes),
        readouts=1 + len(nodes),
        paths=len(query.paths),
        steps=max(len(path.tokens) for path in query.paths),
        words=query.n_words,
        terms=max(terms.values()),
    )


class BatchShape(NamedTuple):
    """The static sizes of a batch (letters as in `models.decoder`)."""

    sequence: SequenceLimits
    sequences: int  # B
    trunks: int  # P
    trunk_tokens: int  # U
    dense_tokens: int | None = None  # M of the tokens that exist; None computes padding too
    readouts: int | None = None  # R of all together; None: as many as they may have


def empty_batch(shape: BatchShape) -> PackedBatch:
    """A batch of padding only."""
    size, B, P, U, M, R = shape
    T = size.tokens
    zeros = lambda *sizes: np.zeros(sizes, np.int32)
    nothing = lambda *sizes: np.full(sizes, -1, np.int32)
    dense = None if M is None else Dense(place=nothing(M), source=nothing(P * U + B * T))
    per_token = (zeros(B, T), zeros(B, T), zeros(B, T))  # tokens, positions, subtree_end
    return PackedBatch(
        forest=Forest(*per_token, zeros(B), zeros(P, U), zeros(P), dense),
        read_at=zeros(B * size.readouts if R is None else R),
        path_readout=zeros(B, size.paths, size.steps),
        path_token=nothing(B, size.paths, size.steps),
        path_end=zeros(B, size.paths),
        word_path=zeros(B, size.words, size.terms),
        word_sign=np.zeros((B, size.words, size.terms), np.float32),
        word_item=nothing(B, size.words),
    )


def stack(sequences: Sequence[PackedSequence], shape: BatchShape) -> PackedBatch:
    """One batch of static shape; a prefix that several have is there once."""
    batch = empty_batch(shape)
    forest, numbers, readout = batch.forest, {}, 0
    for b, sequence in enumerate(sequences):
        trunk = sequence.trunk
        number = numbers.setdefault(trunk, len(numbers))
        forest.trunk_tokens[number, : len(trunk)] = trunk
        forest.trunk_length[number] = len(trunk)
        sequence.write(batch, b, number, readout)
        readout += sequence.readouts
    if forest.dense is not None:
        trunks = np.arange(forest.trunk_tokens.shape[1]) < forest.trunk_length[:, None]
        used = np.flatnonzero(np.concatenate([trunks.ravel(), forest.subtree_end.ravel() > 0]))
        forest.dense.place[: len(used)] = used
        forest.dense.source[used] = np.arange(len(used))
    return batch


def shared_beginning(queries: Sequence[WordQuery], limit: int) -> Ids:
    """The longest proper beginning that all prompts share, at most `limit` long."""
    prompts = [query.prompt_ids for query in queries]
    shared = [min(common_prefix(prompts[0], ids), len(ids) - 1) for ids in prompts]
    return prompts[0][: min(limit, *shared)]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first elements two sequences share."""
    differing = (n for n, (x, y) in enumerate(zip(a, b)) if x != y)
    return next(differing, min(len(a), len(b)))


def check_window(queries: Sequence[WordQuery], max_positions: int) -> None:
    """Raises UserError for a prompt with its words longer than the model's window; never cuts."""
    for query in queries:
        length = len(query.prompt_ids) + max(len(path.tokens) for path in query.paths)
        if length > max_positions:
            raise UserError(
                f"prompt and words take {length} tokens, the model's window is {max_positions}: "
                "shorten the prompt (nothing is cut silently)"
            )
