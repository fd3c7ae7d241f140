"""Queries into packed sequences: each is one tree of tokens in depth-first order.

All that a sequence must score (each prompt followed by each of its words' token paths) is put into
one trie, so whatever is shared is computed once: the prompt of an item's five words, the first
token of two words. What many sequences share (few-shot turns, a template's opening) is their shared
prefix, `trunk` in the code. Depth-first order makes the ancestor relation a comparison of indices
(see `models.decoder`). Shapes are static: sequences are filled to fixed limits and padded.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.models.decoder import Dense, Forest
from antiimit_jax.scoring.trie import WordQuery, event_parents


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

    def __init__(
        self, limits: SequenceLimits, stops: np.ndarray, trunk: tuple[int, ...] = ()
    ) -> None:
        self.limits, self.trunk = limits, trunk
        self.queries: list[int] = []
        self._stops = stops
        self._children: list[dict[int, int]] = [{}]  # node 0 is above the first token
        self._token: list[int] = [-1]
        self._readouts: dict[int, int] = {}  # node -> readout
        self._paths: list[tuple[list[int], tuple[int, ...], int]] = []  # (readouts, tokens, end)
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
            steps=max((len(tokens) for _, tokens, _ in self._paths), default=0),
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
        used = SequenceLimits(
            tokens=size.tokens + need.tokens - self._known(own),
            readouts=size.readouts + need.readouts,
            paths=size.paths + need.paths,
            steps=need.steps,
            words=size.words + need.words,
            terms=need.terms,
        )
        if any(more > limit for more, limit in zip(used, self.limits)):
            return False
        item = len(self.queries)
        self.queries.append(index)
        answer = self._insert(0, own)[-1]
        first_path, first_word = len(self._paths), len(self._words)
        self._words += [[] for _ in range(query.n_words)]
        self._word_item += [item] * query.n_words
        for path in query.paths:
            nodes = [answer, *self._insert(answer, path.tokens)]
            reads = [self._readouts.setdefault(node, len(self._readouts)) for node in nodes]
            self._words[first_word + path.word].append((len(self._paths), 1.0))
            self._paths.append((reads[:-1], path.tokens, reads[-1]))
        for child, parent in enumerate(event_parents(query.paths, self._stops)):
            if parent >= 0:
                word = self._words[first_word + query.paths[parent].word]
                word.append((first_path + child, -1.0))
        return True

    def _known(self, ids: Sequence[int]) -> int:
        """How many of the first ids are there already."""
        node = depth = 0
        for token in ids:
            if (node := self._children[node].get(token)) is None:
                break
            depth += 1
        return depth

    def _insert(self, node: int, ids: Sequence[int]) -> list[int]:
        nodes = []
        for token in ids:
            below = self._children[node].get(token)
            if below is None:
                below = len(self._token)
                self._children[node][token] = below
                self._children.append({})
                self._token.append(token)
            node = below
            nodes.append(node)
        return nodes

    def write(self, batch: PackedBatch, b: int, trunk: int, readout: int) -> None:
        """Writes sequence `b` of an empty batch, after shared prefix number `trunk`.

        Its logit positions are the batch's from number `readout` on.
        """
        place, depth, ends = self._depth_first()
        forest = batch.forest
        forest.trunk_of[b] = trunk
        for node, at in place.items():
            forest.tokens[b, at] = self._token[node]
            forest.positions[b, at] = len(self.trunk) + depth[node]
            forest.subtree_end[b, at] = ends[node]
        for node, own in self._readouts.items():
            batch.read_at[readout + own] = b * forest.tokens.shape[1] + place[node]
        for z, (reads, tokens, end) in enumerate(self._paths):
            batch.path_readout[b, z, : len(reads)] = [readout + own for own in reads]
            batch.path_token[b, z, : len(tokens)] = tokens
            batch.path_end[b, z] = readout + end
        for w, terms in enumerate(self._words):
            for q, (path, sign) in enumerate(terms):
                batch.word_path[b, w, q], batch.word_sign[b, w, q] = path, sign
        batch.word_item[b, : len(self._word_item)] = self._word_item

    def _depth_first(self) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
        """Place in the sequence, depth, and end of the subtree of every node."""
        place: dict[int, int] = {}
        depth: dict[int, int] = {}
        end: dict[int, int] = {}
        stack = [(child, 0, False) for child in reversed(self._children[0].values())]
        while stack:
            node, level, done = stack.pop()
            if done:
                end[node] = len(place)
                continue
            place[node], depth[node] = len(place), level
            stack.append((node, level, True))
            stack += [(c, level + 1, False) for c in reversed(self._children[node].values())]
        return place, depth, end


def needed(query: WordQuery, stops: np.ndarray, trunk: int = 0) -> SequenceLimits:
    """What one query takes up in an empty sequence after a prefix of so many tokens."""
    nodes = {path.tokens[:n] for path in query.paths for n in range(1, len(path.tokens) + 1)}
    terms = np.zeros(query.n_words, int)
    for path in query.paths:
        terms[path.word] += 1
    for parent in event_parents(query.paths, stops):
        if parent >= 0:
            terms[query.paths[parent].word] += 1
    return SequenceLimits(
        tokens=len(query.prompt_ids) - trunk + len(nodes),
        readouts=1 + len(nodes),
        paths=len(query.paths),
        steps=max(len(path.tokens) for path in query.paths),
        words=query.n_words,
        terms=int(terms.max()),
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
    integers = lambda *sizes, fill=0: np.full(sizes, fill, np.int32)
    return PackedBatch(
        forest=Forest(
            tokens=integers(B, size.tokens),
            positions=integers(B, size.tokens),
            subtree_end=integers(B, size.tokens),
            trunk_of=integers(B),
            trunk_tokens=integers(P, U),
            trunk_length=integers(P),
            dense=None
            if M is None
            else Dense(
                place=integers(M, fill=-1), source=integers(B * size.tokens + P * U, fill=-1)
            ),
        ),
        read_at=integers(B * size.readouts if R is None else R),
        path_readout=integers(B, size.paths, size.steps),
        path_token=integers(B, size.paths, size.steps, fill=-1),
        path_end=integers(B, size.paths),
        word_path=integers(B, size.words, size.terms),
        word_sign=np.zeros((B, size.words, size.terms), np.float32),
        word_item=integers(B, size.words, fill=-1),
    )


def stack(sequences: Sequence[PackedSequence], shape: BatchShape) -> PackedBatch:
    """One batch of static shape; a prefix that several have is there once."""
    batch = empty_batch(shape)
    numbers: dict[tuple[int, ...], int] = {}
    readout = 0
    for b, sequence in enumerate(sequences):
        number = numbers.setdefault(sequence.trunk, len(numbers))
        batch.forest.trunk_tokens[number, : len(sequence.trunk)] = sequence.trunk
        batch.forest.trunk_length[number] = len(sequence.trunk)
        sequence.write(batch, b, number, readout)
        readout += sequence.readouts
    if batch.forest.dense is not None:
        _number_tokens(batch.forest)
    return batch


def _number_tokens(forest: Forest) -> None:
    """Fills `dense`: which places hold a token, in order."""
    trunks = np.arange(forest.trunk_tokens.shape[1]) < forest.trunk_length[:, None]
    used = np.flatnonzero(np.concatenate([trunks.ravel(), forest.subtree_end.ravel() > 0]))
    forest.dense.place[: len(used)] = used
    forest.dense.source[used] = np.arange(len(used))


def shared_beginning(queries: Sequence[WordQuery], limit: int) -> tuple[int, ...]:
    """The longest proper beginning that all prompts share, at most `limit` long."""
    first = queries[0].prompt_ids
    length = min(len(first) - 1, limit)
    for query in queries[1:]:
        shared = common_prefix(first[:length], query.prompt_ids)
        length = min(shared, len(query.prompt_ids) - 1)
    return first[:length]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first elements two sequences share."""
    n = 0
    for x, y in zip(a, b):
        if x != y:
            break
        n += 1
    return n


def check_window(queries: Sequence[WordQuery], max_positions: int) -> None:
    """Raises UserError for a prompt with its words longer than the model's window; never cuts."""
    for query in queries:
        length = len(query.prompt_ids) + max(len(path.tokens) for path in query.paths)
        if length > max_positions:
            raise UserError(
                f"prompt and words take {length} tokens, the model's window is {max_positions}: "
                "shorten the prompt (nothing is cut silently)"
            )
