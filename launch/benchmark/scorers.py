"""How the peers score in torch, the usual and the strong way: from token paths to probabilities.

The usual peer makes every token path a sequence of its own after its prompt, padded on the left to
its batch, with the head applied to the last positions only (`logits_to_keep`).

The strong peer does what an expert writes in transformers and PEFT for these items. The items of a
batch are one sequence under a 4-D attention mask: the beginning that all prompts of the batch
share, then the rest of each prompt, each followed by its token paths side by side. So a few-shot
prefix and a prompt are computed once, and its gradient gathers what all that follows asks of it;
nothing is padding. Batches are cut where the fewest tokens are computed; the head is applied only
where a distribution is needed.
"""

import abc
from collections.abc import Sequence

import numpy as np
import torch

from antiimit_jax.scoring.trie import WordQuery, event_parents

_SEQUENCES = 32  # of a batch of the usual peer, at most
_CALL_TOKENS = 32  # a forward pass costs as much as so many tokens more


class Scorer(abc.ABC):
    """One way to ask a transformers model for word probabilities."""

    def __init__(self, model: torch.nn.Module, stops: np.ndarray) -> None:
        """Args: model: the one that has `model` and `lm_head`, an adapter's layers in place."""
        self.used = self.computed = 0  # tokens computed, without padding and with it
        self._model = model
        self._stop_ids = torch.from_numpy(np.flatnonzero(stops))

    @abc.abstractmethod
    def batches(self, queries: Sequence[WordQuery], size: int) -> list[list[int]]:
        """Indices of the queries of each batch, `size` at most."""

    @abc.abstractmethod
    def log_mass(self, queries: Sequence[WordQuery]) -> torch.Tensor:
        """log P(path, then a terminator | prompt) of all paths in one batch; differentiable."""


class PaddedPaths(Scorer):
    """The usual way: padded batches of whole items."""

    def batches(self, queries: Sequence[WordQuery], size: int) -> list[list[int]]:
        """Items in their order, as many as 32 sequences hold, at least one."""
        found: list[list[int]] = []
        held = 0
        for i, query in enumerate(queries):
            held += len(query.paths)
            if not found or len(found[-1]) == size or held > _SEQUENCES:
                found.append([])
                held = len(query.paths)
            found[-1].append(i)
        return found

    def log_mass(self, queries: Sequence[WordQuery]) -> torch.Tensor:
        pairs = [(query.prompt_ids, path.tokens) for query in queries for path in query.paths]
        longest = max(len(prompt) + len(path) for prompt, path in pairs)
        keep = max(len(path) for _, path in pairs) + 1
        ids, mask = (torch.zeros(len(pairs), longest, dtype=torch.long) for _ in range(2))
        said = torch.full((len(pairs), keep - 1), -1)  # path tokens at the places that predict them
        for i, (prompt, path) in enumerate(pairs):
            ids[i, longest - len(prompt) - len(path) :] = torch.tensor((*prompt, *path))
            mask[i, longest - len(prompt) - len(path) :] = 1
            said[i, keep - 1 - len(path) :] = torch.tensor(path)
        self.used += int(mask.sum())
        self.computed += mask.numel()
        logits = self._model(
            input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=keep
        ).logits  # [paths, keep, V]
        total = logits.logsumexp(-1)
        step = logits[:, :-1].gather(-1, said.clamp(min=0)[..., None])[..., 0] - total[:, :-1]
        stop = logits[:, -1, self._stop_ids].logsumexp(-1) - total[:, -1]
        return torch.where(said >= 0, step, 0.0).sum(-1) + stop


class SharedPrefixes(Scorer):
    """The strong way: packed batches after a shared prefix."""

    def batches(self, queries: Sequence[WordQuery], size: int) -> list[list[int]]:
        """Runs of prompts in alphabetical order, cut so that all batches compute least."""
        order = sorted(range(len(queries)), key=lambda i: queries[i].prompt_ids)
        lengths = [_packed_length(queries[i]) for i in order]
        pairs = zip(order, order[1:])
        shared = [_shared(queries[i].prompt_ids, queries[j].prompt_ids) for i, j in pairs]
        best = [(0, 0)]  # of the first n: the least cost, and where the last batch starts
        for end in range(1, len(order) + 1):
            options, tokens, prefix = [], 0, lengths[end - 1]
            for start in range(end - 1, max(end - size, 0) - 1, -1):
                tokens += lengths[start]
                if start < end - 1:
                    prefix = min(prefix, shared[start])
                repeated = (end - start - 1) * prefix
                options.append((best[start][0] + _CALL_TOKENS + tokens - repeated, start))
            best.append(min(options))
        found, end = [], len(order)
        while end:
            found.append(order[best[end][1] : end])
            end = best[end][1]
        return found[::-1]

    def log_mass(self, queries: Sequence[WordQuery]) -> torch.Tensor:
        first = queries[0].prompt_ids
        prefix = min(_shared(first, query.prompt_ids) for query in queries)
        packed = _Packed(prefix + sum(_packed_length(query) - prefix for query in queries))
        shared = packed.append(first[:prefix], None)
        answers, tokens = [], []  # where prompts end, and where the tokens of all paths are
        ends = []  # of each path: its last one of `tokens`
        first_steps, steps = [], []  # (prompt, token) of each path; (path, one of `tokens`, next)
        for i, query in enumerate(queries):
            answers.append(packed.append(query.prompt_ids[prefix:], shared))
            for path in query.paths:
                last = packed.append(path.tokens, answers[-1])
                first_steps.append((i, path.tokens[0]))
                after = enumerate(path.tokens[1:], start=len(tokens))
                steps += [(len(ends), before, token) for before, token in after]
                tokens += range(last - len(path.tokens) + 1, last + 1)
                ends.append(len(tokens) - 1)
        self.used += packed.size
        self.computed += packed.size
        hidden = self._model.model(
            input_ids=packed.ids[None],
            attention_mask=packed.mask[None, None],
            position_ids=packed.positions[None],
            use_cache=False,
        ).last_hidden_state[0]
        logits = self._model.lm_head(hidden[answers + tokens])
        answer, logits = logits[: len(answers)], logits[len(answers) :]
        total = logits.logsumexp(-1)
        prompt, token = torch.tensor(first_steps).T
        mass = answer.log_softmax(-1)[prompt, token]
        mass = mass + logits[ends][:, self._stop_ids].logsumexp(-1) - total[ends]
        if steps:
            path, before, token = torch.tensor(steps).T
            mass = mass.index_add(0, path, logits[before, token] - total[before])
        return mass


class _Packed:
    """Tokens as one sequence, each with what it follows: their ids, positions and mask."""

    def __init__(self, size: int) -> None:
        self.ids, self.positions = (torch.zeros(size, dtype=torch.long) for _ in range(2))
        self.mask = torch.zeros(size, size, dtype=torch.bool)  # [query, key]
        self.size = 0

    def append(self, tokens: Sequence[int], after: int | None) -> int | None:
        """Adds tokens that follow the one at `after` and see what it sees; where they end."""
        if not tokens:
            return after
        start, end = self.size, self.size + len(tokens)
        self.ids[start:end] = torch.tensor(tokens)
        self.positions[start:end] = torch.arange(len(tokens))
        if after is not None:
            self.positions[start:end] += self.positions[after] + 1
            self.mask[start:end] = self.mask[after]
        self.mask[start:end, start:end] = torch.ones(len(tokens), len(tokens)).tril().bool()
        self.size = end
        return end - 1


def _packed_length(query: WordQuery) -> int:
    return len(query.prompt_ids) + sum(len(path.tokens) for path in query.paths)


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first tokens two prompts share, a last one of its own left to each."""
    pairs = zip(a[:-1], b[:-1])
    return next((n for n, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)) - 1)


def word_probs(
    scorer: Scorer, queries: Sequence[WordQuery], size: int, stops: np.ndarray
) -> list[np.ndarray]:
    """q of every query's words, in batches of a size."""
    found: dict[int, np.ndarray] = {}
    with torch.inference_mode():
        for batch in scorer.batches(queries, size):
            few = [queries[i] for i in batch]
            parts = word_sums(few, stops, scorer.log_mass(few)).split([q.n_words for q in few])
            found |= {i: part.numpy() for i, part in zip(batch, parts)}
    return [found[i] for i in range(len(queries))]


def word_sums(
    queries: Sequence[WordQuery], stops: np.ndarray, log_mass: torch.Tensor
) -> torch.Tensor:
    """From the paths of all queries to q of all their words, one after the other."""
    terms = []  # (path, word, sign): what is added to or taken from which word
    first_path = first_word = 0
    for query in queries:
        for z, parent in enumerate(event_parents(query.paths, stops)):
            owners = [(z, 1)] if parent < 0 else [(z, 1), (parent, -1)]
            for owner, sign in owners:
                terms.append((first_path + z, first_word + query.paths[owner].word, sign))
        first_path += len(query.paths)
        first_word += query.n_words
    path, word, sign = torch.tensor(terms).T
    return torch.zeros(first_word).index_add(0, word, log_mass.exp()[path] * sign)
