"""The usual peer of the benchmark, transformers and PEFT as commonly written, and what peers share.

Every token path of every word is a sequence of its own behind its prompt, padded on the left to its
batch; the head is applied to the last positions only (`logits_to_keep`). float32, SDPA.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import peft
import torch
import transformers

from antiimit_jax.scoring.trie import WordQuery, event_parents
from antiimit_jax.training.config import TrainConfig
from launch.benchmark_worker import Job, Side

Example = tuple[WordQuery, Sequence[float]]  # a question and the target shares of its words
Pair = tuple[Sequence[int], Sequence[int]]  # a prompt and a token path behind it
_SHARE_OF_MEMORY = 0.25  # the rest is for gradients, logits, and the other sides


class Scorer(Protocol):
    """One way to ask a transformers model for word probabilities.

    For evaluation it has `word_probs`, for training `log_mass` and `batches`.
    """

    used: int  # tokens computed since it was last set to 0, without padding
    computed: int  # with padding

    def word_probs(self, queries: Sequence[WordQuery], size: int) -> list[np.ndarray]:
        """q of every query's words, in batches of a size of the scorer's own unit."""

    def log_mass(self, queries: Sequence[WordQuery]) -> torch.Tensor:
        """log P(path, then a terminator | prompt) of all paths in one batch; differentiable."""

    def batches(self, queries: Sequence[WordQuery], size: int) -> Iterator[list[int]]:
        """Indices of the queries of each batch of a size."""

    def sample(self, queries: Sequence[WordQuery], size: int) -> list[int]:
        """Queries to try a size on; none where smaller sizes hold all there is."""


def build(job: Job) -> Side:
    """The peer a job asks for."""
    from launch import benchmark_strong

    torch.set_num_threads(job.threads)
    model = load(job.model)
    if job.what == "train":
        tuned = adapted(model, job.adapter)
        kind = Padded if job.side == "usual" else benchmark_strong.PackedPaths
        return Training(job, Trainer(tuned, kind(tuned, job.stops), job.stops, job.train))
    if job.side == "usual":
        return Evaluation(job, Padded(model, job.stops))
    return Evaluation(job, benchmark_strong.CachedPrefixes(model, job.stops, job.groups))


def load(folder: str) -> transformers.PreTrainedModel:
    """A model in float32 with SDPA."""
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    )
    return model.eval()


def adapted(model: transformers.PreTrainedModel, folder: str) -> peft.PeftModel:
    """The model with an adapter that trains."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between PEFT and transformers
        return peft.PeftModel.from_pretrained(model, folder, is_trainable=True).train()


def word_sums(
    queries: Sequence[WordQuery], stops: np.ndarray, log_mass: torch.Tensor
) -> torch.Tensor:
    """From the paths of all queries to q of all their words, one after the other."""
    path, word, sign = [], [], []  # what is added to or taken from which word
    first_path = first_word = 0
    for query in queries:
        for z, parent in enumerate(event_parents(query.paths, stops)):
            path.append(first_path + z)
            word.append(first_word + query.paths[z].word)
            sign.append(1.0)
            if parent >= 0:
                path.append(first_path + z)
                word.append(first_word + query.paths[parent].word)
                sign.append(-1.0)
        first_path += len(query.paths)
        first_word += query.n_words
    mass = log_mass.exp()[torch.tensor(path)] * torch.tensor(sign)
    return torch.zeros(first_word).index_add(0, torch.tensor(word), mass)


def split_words(queries: Sequence[WordQuery], q: torch.Tensor) -> list[np.ndarray]:
    """q of all words as one array for each query."""
    return [part.numpy() for part in q.split([query.n_words for query in queries])]


class Padded:
    """Padded batches of sequences, a prompt and one path each. A batch's size is in sequences."""

    def __init__(self, model: torch.nn.Module, stops: np.ndarray) -> None:
        self.model = model
        self.used = self.computed = 0
        self._stops = stops
        self._stop_ids = torch.from_numpy(np.flatnonzero(stops))

    def word_probs(self, queries: Sequence[WordQuery], size: int) -> list[np.ndarray]:
        """q of every query's words."""
        pairs = _pairs(queries)
        with torch.inference_mode():
            parts = [self._batch(pairs[i : i + size]) for i in range(0, len(pairs), size)]
            return split_words(queries, word_sums(queries, self._stops, torch.cat(parts)))

    def log_mass(self, queries: Sequence[WordQuery]) -> torch.Tensor:
        """Of all paths in one batch; differentiable."""
        return self._batch(_pairs(queries))

    def batches(self, queries: Sequence[WordQuery], size: int) -> Iterator[list[int]]:
        """Whole queries in order, as many as `size` sequences hold, at least one."""
        batch: list[int] = []
        held = 0
        for i, query in enumerate(queries):
            if batch and held + len(query.paths) > size:
                yield batch
                batch, held = [], 0
            batch.append(i)
            held += len(query.paths)
        yield batch

    def sample(self, queries: Sequence[WordQuery], size: int) -> list[int]:
        """The first batch."""
        whole = sum(len(query.paths) for query in queries)
        return next(self.batches(queries, size)) if size < 2 * whole else []

    def _batch(self, pairs: Sequence[Pair]) -> torch.Tensor:
        longest = max(len(prompt) + len(path) for prompt, path in pairs)
        keep = max(len(path) for _, path in pairs) + 1
        ids, mask = (torch.zeros(len(pairs), longest, dtype=torch.long) for _ in range(2))
        said = torch.full((len(pairs), keep - 1), -1)  # path tokens at the places that predict them
        for row, (prompt, path) in enumerate(pairs):
            ids[row, longest - len(prompt) - len(path) :] = torch.tensor((*prompt, *path))
            mask[row, longest - len(prompt) - len(path) :] = 1
            said[row, keep - 1 - len(path) :] = torch.tensor(path)
        self.used += int(mask.sum())
        self.computed += mask.numel()
        logits = self.model(
            input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=keep
        ).logits  # [paths, keep, V]
        total = logits.logsumexp(-1)
        step = logits[:, :-1].gather(-1, said.clamp(min=0)[..., None])[..., 0] - total[:, :-1]
        stop = logits[:, -1, self._stop_ids].logsumexp(-1) - total[:, -1]
        return torch.where(said >= 0, step, 0.0).sum(-1) + stop


def _pairs(queries: Sequence[WordQuery]) -> list[Pair]:
    return [(query.prompt_ids, path.tokens) for query in queries for path in query.paths]


class Evaluation:
    """A peer's evaluation, as `benchmark_worker` calls it."""

    def __init__(self, job: Job, scorer: Scorer) -> None:
        self._queries, self._size, self._scorer = job.queries, job.batch, scorer

    def run(self) -> list[np.ndarray]:
        """q of every query's words."""
        self._scorer.used = self._scorer.computed = 0
        return self._scorer.word_probs(self._queries, self._size)

    def facts(self) -> dict[str, Any]:
        """Of the last run."""
        return _facts(self._scorer)

    def trial(self, batch: int) -> int | None:
        """A few items in batches of a size."""
        few = [self._queries[i] for i in self._scorer.sample(self._queries, batch)]
        if few:
            self._scorer.word_probs(few, batch)
        return len(few) or None


class Training:
    """A peer's training step, as `benchmark_worker` calls it."""

    def __init__(self, job: Job, trainer: Trainer) -> None:
        self._examples = list(zip(job.queries, job.shares, strict=True))
        self._rates, self._size, self._trainer = job.learning_rates, job.batch, trainer
        self._steps = 0
        longest = max(self._examples, key=lambda example: len(example[0].prompt_ids))
        self._kept_each = 0.0 if job.batch else trainer.kept_bytes(longest)

    def run(self) -> float:
        """One step; the loss before it."""
        scorer = self._trainer.scorer
        scorer.used = scorer.computed = 0
        loss = self._trainer.step(self._examples, self._size, self._rates[self._steps])
        self._steps += 1
        return loss

    def facts(self) -> dict[str, Any]:
        """Of the last step."""
        return _facts(self._trainer.scorer)

    def trial(self, batch: int) -> int | None:
        """Gradients of the first micro-batch of a size."""
        queries = [query for query, _ in self._examples]
        few = [self._examples[i] for i in self._trainer.scorer.sample(queries, batch)]
        if not few or len(few) * self._kept_each > _SHARE_OF_MEMORY * memory_available():
            return None
        self._trainer.gradients(few, batch)
        self._trainer.forget()
        return len(few)


def _facts(scorer: Scorer) -> dict[str, Any]:
    return {"tokens": scorer.used, "padded_share": 1 - scorer.used / scorer.computed}


class Trainer:
    """The fine-tuning step in PEFT: forward KL on word probabilities, clip, AdamW."""

    def __init__(
        self, model: peft.PeftModel, scorer: Scorer, stops: np.ndarray, cfg: TrainConfig
    ) -> None:
        self.scorer = scorer
        self._stops, self._clip, self._model = stops, cfg.clip_norm, model
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._trained = [p for _, p in named]
        decays = {"lora_A": 0.0, "lora_B": cfg.weight_decay}
        groups = [
            {"params": [p for name, p in named if side in name], "weight_decay": decay}
            for side, decay in decays.items()
        ]
        self._optimizer = torch.optim.AdamW(groups, betas=(0.9, cfg.adam_b2), fused=True)

    def step(self, examples: Sequence[Example], size: int, learning_rate: float) -> float:
        """One step over all examples in micro-batches of `size`; the loss before it."""
        loss = self.gradients(examples, size)
        torch.nn.utils.clip_grad_norm_(self._trained, self._clip)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self.forget()
        return loss

    def gradients(self, examples: Sequence[Example], size: int) -> float:
        """Adds up the gradients of the mean loss of all examples; the loss."""
        whole = 0.0
        for batch in self.scorer.batches([query for query, _ in examples], size):
            loss = self._loss([examples[i] for i in batch]) / len(examples)
            loss.backward()
            whole += loss.item()
        return whole

    def forget(self) -> None:
        """Drops the gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def kept_bytes(self, example: Example) -> float:
        """What an example keeps for the backward pass."""
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self._loss([example])
        for parameter in self._model.parameters():
            kept.pop(parameter.untyped_storage().data_ptr(), None)
        return sum(kept.values())

    def _loss(self, examples: Sequence[Example]) -> torch.Tensor:
        queries = [query for query, _ in examples]
        q = word_sums(queries, self._stops, self.scorer.log_mass(queries))
        target = torch.tensor([share for _, shares in examples for share in shares])
        return (torch.xlogy(target, target) - torch.xlogy(target, q)).sum()


def memory_available() -> float:
    """Bytes that can still be had; infinity where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("inf")
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    return kilobytes[0] * 1024 if kilobytes else float("inf")
