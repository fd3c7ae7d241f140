"""The usual peer's way to score: every token path a sequence of its own after its prompt.

Padded on the left to its batch; the head applied to the last positions only (`logits_to_keep`).
"""

from collections.abc import Sequence

import numpy as np
import torch

from antiimit_jax.scoring.trie import WordQuery

_SEQUENCES = 32  # of a batch, at most


class PaddedPaths:
    """Padded batches of whole items."""

    def __init__(self, model: torch.nn.Module, stops: np.ndarray) -> None:
        self.used = self.computed = 0
        self._model = model
        self._stop_ids = torch.from_numpy(np.flatnonzero(stops))

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
        """Of all paths in one batch; differentiable."""
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
