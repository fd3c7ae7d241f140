"""The strong peer's way to score: what an expert writes in transformers and PEFT for these items.

The items of a batch are one sequence under a 4-D attention mask: the beginning that all prompts of
the batch share, then the rest of each prompt, each followed by its token paths side by side. So a
few-shot prefix and a prompt are computed once, and its gradient gathers what all that follows asks
of it; nothing is padding. Batches are cut where the fewest tokens are computed; the head is applied
only where a distribution is needed.
"""

from collections.abc import Sequence

import numpy as np
import torch

from antiimit_jax.scoring.trie import WordQuery

_CALL_TOKENS = 32  # a forward pass costs as much as so many tokens more


class SharedPrefixes:
    """Packed batches after a shared prefix, for evaluation and for training."""

    def __init__(self, model: torch.nn.Module, stops: np.ndarray) -> None:
        """Args: model: the one that has `model` and `lm_head`, an adapter's layers in place."""
        self.used = self.computed = 0
        self._model = model
        self._stop_ids = torch.from_numpy(np.flatnonzero(stops))

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
        """Of all paths in one batch; differentiable."""
        first = queries[0].prompt_ids
        prefix = min(_shared(first, query.prompt_ids) for query in queries)
        packed = _Packed(prefix + sum(_packed_length(query) - prefix for query in queries))
        shared = packed.append(first[:prefix], None)
        answers, owner, tokens, paths = [], [], [], []
        for i, query in enumerate(queries):
            answers.append(packed.append(query.prompt_ids[prefix:], shared))
            for path in query.paths:
                end = packed.append(path.tokens, answers[-1])
                tokens += range(end - len(path.tokens) + 1, end + 1)
                owner.append(i)
                paths.append(path.tokens)
        self.used += packed.size
        self.computed += packed.size
        hidden = self._model.model(
            input_ids=packed.ids[None],
            attention_mask=packed.mask[None, None],
            position_ids=packed.positions[None],
            use_cache=False,
        ).last_hidden_state[0]
        logits = self._model.lm_head(hidden[answers + tokens])
        n = len(queries)
        return _path_log_mass(logits[:n], torch.tensor(owner), logits[n:], paths, self._stop_ids)


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


def _path_log_mass(
    answer: torch.Tensor,
    owner: torch.Tensor,
    logits: torch.Tensor,
    paths: Sequence[Sequence[int]],
    stop_ids: torch.Tensor,
) -> torch.Tensor:
    """log P(path, then a terminator | prompt) from the distributions along all paths.

    Args:
      answer: [items, V] logits after each prompt.
      owner: [paths] each path's item.
      logits: [tokens of all paths, V], after each token of each path in order.
    """
    ends = torch.tensor([len(path) for path in paths]).cumsum(0) - 1  # last token of each path
    firsts = torch.tensor([path[0] for path in paths])
    total = logits.logsumexp(-1)
    mass = answer.log_softmax(-1)[owner, firsts]
    mass = mass + logits[ends][:, stop_ids].logsumexp(-1) - total[ends]
    inner = [
        (z, int(ends[z]) - len(path) + n, path[n])
        for z, path in enumerate(paths)
        for n in range(1, len(path))
    ]
    if inner:
        z, before, token = torch.tensor(inner).T
        mass = mass.index_add(0, z, logits[before, token] - total[before])
    return mass


def _packed_length(query: WordQuery) -> int:
    return len(query.prompt_ids) + sum(len(path.tokens) for path in query.paths)


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first tokens two prompts share, a last one of its own left to each."""
    pairs = zip(a[:-1], b[:-1])
    return next((n for n, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)) - 1)
