"""The peers of the benchmark, transformers and PEFT in float32 with SDPA: usual or strong."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import peft
import torch
import transformers

from launch.benchmark.job import Job, Side
from launch.benchmark.memory import available_mb
from launch.benchmark.scorers import PaddedPaths, Scorer, SharedPrefixes, word_probs, word_sums

_SHARE_OF_MEMORY = 0.25  # the rest is for gradients, logits, and the other sides


def build(job: Job) -> Side:
    """The peer a job asks for."""
    torch.set_num_threads(job.threads)
    scorers = {"usual": PaddedPaths, "strong": SharedPrefixes}
    model = load(job.model)
    if job.what == "evaluate":
        return Evaluation(job, scorers[job.side](model, job.stops))
    tuned = adapted(model, job.adapter)  # `model` holds the adapter's layers from here on
    return Training(job, scorers[job.side](model, job.stops), tuned)


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


class _Peer:
    """What both kinds of work have in common."""

    def __init__(self, job: Job, scorer: Scorer) -> None:
        self._job, self._scorer = job, scorer

    def facts(self) -> dict[str, Any]:
        """Of the last run."""
        used, computed = self._scorer.used, self._scorer.computed
        return {"tokens": used, "padded_share": 1 - used / computed}

    def _largest_batch(self, size: int) -> Sequence[int]:
        """Of the batches of a size; none where it is not more than half full."""
        batch = max(self._scorer.batches(self._job.queries, size), key=len)
        return batch if 2 * len(batch) > size else ()


class Evaluation(_Peer):
    """A peer's evaluation, a `Side`."""

    def run(self) -> list[np.ndarray]:
        """q of every query's words."""
        self._scorer.used = self._scorer.computed = 0
        return word_probs(self._scorer, self._job.queries, self._job.batch, self._job.stops)

    def trial(self, batch: int) -> int | None:
        """The largest batch of a size."""
        few = [self._job.queries[i] for i in self._largest_batch(batch)]
        if few:
            word_probs(self._scorer, few, batch, self._job.stops)
        return len(few) or None


class Training(_Peer):
    """A peer's training step, a `Side`: forward KL on word probabilities, clip, AdamW."""

    def __init__(self, job: Job, scorer: Scorer, model: peft.PeftModel) -> None:
        super().__init__(job, scorer)
        self._model, self._steps = model, 0
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._trained = [p for _, p in named]
        groups = [
            {"params": [p for name, p in named if side in name], "weight_decay": decay}
            for side, decay in (("lora_A", 0.0), ("lora_B", job.descent.weight_decay))
        ]
        self._optimizer = torch.optim.AdamW(groups, betas=(0.9, job.descent.adam_b2), fused=True)
        self._one_mb = self._more_mb = 0.0
        if not job.batch:  # what the longest item keeps, and what one more in its batch
            longest = lambda batch: max(len(job.queries[i].prompt_ids) for i in batch)
            pair = max(scorer.batches(job.queries, 2), key=longest)
            self._one_mb = self._kept_mb(pair[:1])
            self._more_mb = self._kept_mb(pair) - self._one_mb if pair[1:] else self._one_mb

    def run(self) -> float:
        """One step over all examples in micro-batches; the loss before it."""
        self._scorer.used = self._scorer.computed = 0
        loss = self._gradients(range(len(self._job.queries)), self._job.batch)
        torch.nn.utils.clip_grad_norm_(self._trained, self._job.descent.clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = self._job.descent.learning_rates[self._steps]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._steps += 1
        return loss

    def trial(self, batch: int) -> int | None:
        """Gradients of the largest micro-batch of a size."""
        few = self._largest_batch(batch)
        kept_mb = self._one_mb + (len(few) - 1) * self._more_mb
        if not few or kept_mb > _SHARE_OF_MEMORY * available_mb():
            return None
        self._gradients(few, batch)
        self._optimizer.zero_grad(set_to_none=True)
        return len(few)

    def _gradients(self, items: Sequence[int], size: int) -> float:
        """Adds up the gradients of the mean loss of some items, in batches of a size; the loss."""
        whole = 0.0
        for batch in self._scorer.batches([self._job.queries[i] for i in items], size):
            loss = self._loss([items[i] for i in batch]) / len(items)
            loss.backward()
            whole += loss.item()
        return whole

    def _loss(self, items: Sequence[int]) -> torch.Tensor:
        queries = [self._job.queries[i] for i in items]
        q = word_sums(queries, self._job.stops, self._scorer.log_mass(queries))
        target = torch.tensor([share for i in items for share in self._job.shares[i]])
        return (torch.xlogy(target, target) - torch.xlogy(target, q)).sum()

    def _kept_mb(self, batch: Sequence[int]) -> float:
        """What a batch keeps for its backward pass, besides the parameters."""
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self._loss(batch)
        parameters = {p.untyped_storage().data_ptr() for p in self._model.parameters()}
        return sum(size for place, size in kept.items() if place not in parameters) / 2**20
