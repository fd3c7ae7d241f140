"""The peers of the benchmark, transformers and PEFT in float32 with SDPA: usual or strong."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import peft
import torch
import transformers

from antiimit_jax.scoring.trie import WordQuery
from launch.benchmark.job import Job, Side
from launch.benchmark.memory import available_mb
from launch.benchmark.paths import Scorer, word_probs, word_sums
from launch.benchmark.strong import SharedPrefixes
from launch.benchmark.usual import PaddedPaths

Example = tuple[WordQuery, Sequence[float]]  # a question and the target shares of its words
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


def _facts(scorer: Scorer) -> dict[str, Any]:
    return {"tokens": scorer.used, "padded_share": 1 - scorer.used / scorer.computed}


def _largest_batch(scorer: Scorer, queries: Sequence[WordQuery], size: int) -> Sequence[int]:
    """Of the batches of a size; none where it is not more than half full."""
    batch = max(scorer.batches(queries, size), key=len)
    return batch if 2 * len(batch) > size else ()


class Evaluation:
    """A peer's evaluation, a `Side`."""

    def __init__(self, job: Job, scorer: Scorer) -> None:
        self._job, self._scorer = job, scorer

    def run(self) -> list[np.ndarray]:
        """q of every query's words."""
        self._scorer.used = self._scorer.computed = 0
        return word_probs(self._scorer, self._job.queries, self._job.batch, self._job.stops)

    def facts(self) -> dict[str, Any]:
        """Of the last run."""
        return _facts(self._scorer)

    def trial(self, batch: int) -> int | None:
        """The largest batch of a size."""
        queries = self._job.queries
        few = [queries[i] for i in _largest_batch(self._scorer, queries, batch)]
        if few:
            word_probs(self._scorer, few, batch, self._job.stops)
        return len(few) or None


class Training:
    """A peer's training step, a `Side`: forward KL on word probabilities, clip, AdamW."""

    def __init__(self, job: Job, scorer: Scorer, model: peft.PeftModel) -> None:
        self._job, self._scorer, self._model = job, scorer, model
        self._examples = list(zip(job.queries, job.shares, strict=True))
        self._steps = 0
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._trained = [p for _, p in named]
        decays = {"lora_A": 0.0, "lora_B": job.train.weight_decay}
        groups = [
            {"params": [p for name, p in named if side in name], "weight_decay": decay}
            for side, decay in decays.items()
        ]
        self._optimizer = torch.optim.AdamW(groups, betas=(0.9, job.train.adam_b2), fused=True)
        self._one_mb = self._more_mb = 0.0
        if not job.batch:  # what the longest item keeps, and what one more in its batch
            longest = lambda batch: max(len(job.queries[i].prompt_ids) for i in batch)
            pair = max(scorer.batches(job.queries, 2), key=longest)
            self._one_mb = self._kept_mb(pair[:1])
            self._more_mb = self._kept_mb(pair) - self._one_mb if pair[1:] else self._one_mb

    def run(self) -> float:
        """One step over all examples in micro-batches; the loss before it."""
        self._scorer.used = self._scorer.computed = 0
        loss = self._gradients(self._examples, self._job.batch)
        torch.nn.utils.clip_grad_norm_(self._trained, self._job.train.clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = self._job.learning_rates[self._steps]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._steps += 1
        return loss

    def facts(self) -> dict[str, Any]:
        """Of the last step."""
        return _facts(self._scorer)

    def trial(self, batch: int) -> int | None:
        """Gradients of the largest micro-batch of a size."""
        few = _largest_batch(self._scorer, self._job.queries, batch)
        kept_mb = self._one_mb + (len(few) - 1) * self._more_mb
        if not few or kept_mb > _SHARE_OF_MEMORY * available_mb():
            return None
        self._gradients([self._examples[i] for i in few], batch)
        self._optimizer.zero_grad(set_to_none=True)
        return len(few)

    def _gradients(self, examples: Sequence[Example], size: int) -> float:
        """Adds up the gradients of the mean loss of all examples; the loss."""
        whole = 0.0
        for batch in self._scorer.batches([query for query, _ in examples], size):
            loss = self._loss([examples[i] for i in batch]) / len(examples)
            loss.backward()
            whole += loss.item()
        return whole

    def _loss(self, examples: Sequence[Example]) -> torch.Tensor:
        queries = [query for query, _ in examples]
        q = word_sums(queries, self._job.stops, self._scorer.log_mass(queries))
        target = torch.tensor([share for _, shares in examples for share in shares])
        return (torch.xlogy(target, target) - torch.xlogy(target, q)).sum()

    def _kept_mb(self, batch: Sequence[int]) -> float:
        """What a batch keeps for its backward pass, besides the parameters."""
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self._loss([self._examples[i] for i in batch])
        parameters = {p.untyped_storage().data_ptr() for p in self._model.parameters()}
        return sum(size for place, size in kept.items() if place not in parameters) / 2**20
