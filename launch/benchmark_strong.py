"""The strong peer of the benchmark: what an expert writes in transformers and PEFT for these items.

Evaluation: the few-shot prefix of a group of items is computed once and its keys and values are
reused; items sorted by length; words scored by continuation batches behind the cached prompts.
Training: the paths of a prompt share its computation as one packed sequence with a 4-D mask; items
sorted by length; the head applied only where a distribution is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import transformers
from transformers import DynamicCache

from antiimit_jax.scoring.trie import WordQuery
from launch.benchmark_peer import split_words, word_sums

_SAMPLE = 32  # items that batch sizes of an evaluation are tried on


class CachedPrefixes:
    """Evaluation with prefix caches and continuation batches. A batch's size is in items."""

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        stops: np.ndarray,
        groups: Sequence[Sequence[int]],
    ) -> None:
        """Args:
        groups: indices of queries whose prompts have a beginning in common.
        """
        self.used = self.computed = 0
        self._model, self._groups, self._stops = model, groups, stops
        self._stop_ids = torch.from_numpy(np.flatnonzero(stops))

    def word_probs(self, queries: Sequence[WordQuery], size: int) -> list[np.ndarray]:
        """q of every query's words; `queries` are all that the groups speak of, or the first."""
        masses: dict[int, torch.Tensor] = {}
        with torch.inference_mode():
            for members, length in self._prefixes(queries):
                prefix = queries[members[0]].prompt_ids[:length]
                cache = self._prefix_cache(prefix)
                for start in range(0, len(members), size):
                    part = members[start : start + size]
                    found = self._batch([queries[i] for i in part], length, cache)
                    masses |= zip(part, found, strict=True)
            log_mass = torch.cat([masses[i] for i in range(len(queries))])
            return split_words(queries, word_sums(queries, self._stops, log_mass))

    def sample(self, queries: Sequence[WordQuery], size: int) -> list[int]:
        """The first queries, as long as some group is larger than half a batch."""
        fills = size < 2 * max(map(len, self._groups))
        return list(range(min(_SAMPLE, len(queries)))) if fills else []

    def _prefixes(self, queries: Sequence[WordQuery]) -> Iterator[tuple[list[int], int]]:
        """Each group's members, shortest prompt first, and how many first tokens they share."""
        for group in self._groups:
            members = [i for i in group if i < len(queries)]
            if members:
                members.sort(key=lambda i: len(queries[i].prompt_ids))
                prompts = [queries[i].prompt_ids for i in members]
                length = len(prompts[0]) - 1  # a token of its own is left to each
                for prompt in prompts[1:]:
                    pairs = zip(prompt[:length], prompts[0])
                    length = next((n for n, (a, b) in enumerate(pairs) if a != b), length)
                yield members, length

    def _prefix_cache(self, prefix: Sequence[int]) -> DynamicCache:
        cache = DynamicCache(config=self._model.config)
        if prefix:
            self._model.model(
                input_ids=torch.tensor([prefix]), past_key_values=cache, use_cache=True
            )
        self._count(len(prefix), len(prefix))
        return cache

    def _batch(
        self, queries: Sequence[WordQuery], length: int, prefix: DynamicCache
    ) -> list[torch.Tensor]:
        """log P(path, then a terminator | prompt) of the paths of each query."""
        rests = [query.prompt_ids[length:] for query in queries]
        wide = lambda tensor: tensor.expand(len(rests), -1, -1, -1)
        layers = [layer for layer in prefix.layers if layer.get_seq_length()]
        pairs = [(wide(layer.keys), wide(layer.values)) for layer in layers]
        cache = DynamicCache(pairs, config=self._model.config)
        seen = torch.ones(len(rests), length, dtype=torch.long)
        starts = torch.full((len(rests),), length)
        hidden, seen = self._extend(rests, starts, seen, cache)
        lengths = torch.tensor([len(rest) for rest in rests])
        answer = self._model.lm_head(hidden[torch.arange(len(rests)), lengths - 1])  # [n, V]

        owner = torch.tensor([i for i, query in enumerate(queries) for _ in query.paths])
        paths = [path.tokens for query in queries for path in query.paths]
        cache.batch_select_indices(owner)
        hidden, _ = self._extend(paths, (starts + lengths)[owner], seen[owner], cache)
        counts = [len(path) for path in paths]
        real = torch.cat([hidden[z, :n] for z, n in enumerate(counts)])
        logits = self._model.lm_head(real)  # [tokens of all paths, V]
        mass = path_log_mass(answer, owner, logits, paths, self._stop_ids)
        return list(mass.split([len(query.paths) for query in queries]))

    def _extend(
        self,
        sequences: Sequence[Sequence[int]],
        starts: torch.Tensor,
        seen: torch.Tensor,
        cache: DynamicCache,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states of padded sequences behind a cache, and the mask of all tokens so far."""
        longest = max(map(len, sequences))
        ids, mask = (torch.zeros(len(sequences), longest, dtype=torch.long) for _ in range(2))
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
        self._count(int(mask.sum()), mask.numel())
        seen = torch.cat([seen, mask], dim=1)
        hidden = self._model.model(
            input_ids=ids,
            attention_mask=seen,
            position_ids=starts[:, None] + torch.arange(longest),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return hidden, seen

    def _count(self, used: int, computed: int) -> None:
        self.used += used
        self.computed += computed


class PackedPaths:
    """Training with one packed sequence an item: its prompt, then its paths side by side.

    A batch's size is in items.
    """

    def __init__(self, model: torch.nn.Module, stops: np.ndarray) -> None:
        self.used = self.computed = 0
        self._whole = model.get_base_model()  # with the adapter's layers in place
        self._stop_ids = torch.from_numpy(np.flatnonzero(stops))

    def batches(self, queries: Sequence[WordQuery], size: int) -> Iterator[list[int]]:
        """Queries by packed length."""
        order = sorted(range(len(queries)), key=lambda i: _packed_length(queries[i]))
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def sample(self, queries: Sequence[WordQuery], size: int) -> list[int]:
        """The first batch."""
        return next(self.batches(queries, size)) if size < 2 * len(queries) else []

    def log_mass(self, queries: Sequence[WordQuery]) -> torch.Tensor:
        """Of all paths in one batch; differentiable."""
        longest = max(map(_packed_length, queries))
        ids, positions = (torch.zeros(len(queries), longest, dtype=torch.long) for _ in range(2))
        mask = torch.eye(longest, dtype=torch.bool).repeat(len(queries), 1, 1, 1)  # [B, 1, T, T]
        answers: list[tuple[int, int]] = []  # (row, place) of each prompt's last token
        tokens: list[tuple[int, int]] = []  # and of the tokens of all paths
        for row, query in enumerate(queries):
            at = len(query.prompt_ids)
            ids[row, :at] = torch.tensor(query.prompt_ids)
            positions[row, :at] = torch.arange(at)
            mask[row, 0, :at, :at] = _causal(at)
            answers.append((row, at - 1))
            for path in query.paths:
                end = at + len(path.tokens)
                ids[row, at:end] = torch.tensor(path.tokens)
                positions[row, at:end] = len(query.prompt_ids) + torch.arange(end - at)
                mask[row, 0, at:end, : len(query.prompt_ids)] = True
                mask[row, 0, at:end, at:end] = _causal(end - at)
                tokens += [(row, place) for place in range(at, end)]
                at = end
            self.used += at
        self.computed += ids.numel()
        hidden = self._whole.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        rows, places = torch.tensor(answers + tokens).T
        logits = self._whole.lm_head(hidden[rows, places])
        owner = torch.tensor([i for i, query in enumerate(queries) for _ in query.paths])
        paths = [path.tokens for query in queries for path in query.paths]
        n = len(queries)
        return path_log_mass(logits[:n], owner, logits[n:], paths, self._stop_ids)


def path_log_mass(
    answer: torch.Tensor,
    owner: torch.Tensor,
    logits: torch.Tensor,
    paths: Sequence[Sequence[int]],
    stop_ids: torch.Tensor,
) -> torch.Tensor:
    """log P(path, then a terminator | prompt) from the distributions along all paths.

    Args:
      answer: [items, V] logits behind each prompt.
      owner: [paths] each path's item.
      logits: [tokens of all paths, V], behind each token of each path in order.
    """
    ends = torch.tensor([len(path) for path in paths]).cumsum(0) - 1  # last token of each path
    firsts = torch.tensor([path[0] for path in paths])
    mass = answer.log_softmax(-1)[owner, firsts]
    total = logits.logsumexp(-1)
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


def _causal(length: int) -> torch.Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()


def _packed_length(query: WordQuery) -> int:
    return len(query.prompt_ids) + sum(len(path.tokens) for path in query.paths)
