"""Runs the core over many queries on all local devices; one `Runner` serves a whole evaluation."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from antiimit_jax.language_model import LanguageModel
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.sharding import split_axes
from antiimit_jax.parallel import DataParallel, place
from antiimit_jax.scoring.batching import pack_batches
from antiimit_jax.scoring.packing import PackedBatch, check_window
from antiimit_jax.scoring.trie import WordQuery
from antiimit_jax.scoring.word_probs import word_log_probs

Tree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordProbs:
    """The answer to one query."""

    q: np.ndarray  # [words] exact probabilities
    path_mass: np.ndarray  # [paths of the query] probability of each token path, properly ended

    @property
    def residual(self) -> float:
        """Probability of anything but the words."""
        return 1.0 - float(self.q.sum())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A model to be asked: the base with an adapter, or with other weights. Trees are placed."""

    params: Tree
    adapter: Tree | None = None
    lora_scale: float = 1.0

    @property
    def variables(self) -> dict[str, Tree]:
        """The collections of `Decoder`."""
        return {"params": self.params} | ({"lora": self.adapter} if self.adapter else {})


class Runner:
    """A base model placed once on the devices, and the compiled functions that ask it."""

    def __init__(
        self,
        lm: LanguageModel,
        devices: Sequence[jax.Device] | None = None,
        *,
        weights: str = "replicated",
    ) -> None:
        """`weights` is "replicated", a copy on every device, or "sharded", a slice on each."""
        self.lm = lm
        self.devices = list(devices or jax.local_devices())
        self.weights = weights
        self._shards = len(self.devices) if weights == "sharded" else 1
        self.base = self.with_params(lm.params)
        self._compiled: dict[tuple[str, float], DataParallel] = {}

    def adapted(self, adapter: Tree, lora_scale: float) -> Variant:
        """The base with an adapter."""
        return dataclasses.replace(
            self.base, adapter=place(adapter, self.devices), lora_scale=lora_scale
        )

    def with_params(self, params: Tree) -> Variant:
        """Weights of the base's shape (its own, or a ruler's)."""
        axes = split_axes(self.lm.cfg, self._shards)
        return Variant(params=place(params, self.devices, axes))

    def decoder(self, variant: Variant) -> Decoder:
        """The module a variant runs under."""
        return Decoder(self.lm.cfg, lora_scale=variant.lora_scale, shards=self._shards)

    def map(
        self, name: str, fn: Callable, variant: Variant, arguments: Tree, batches, empty
    ) -> Iterator[Tree]:
        """Results of `fn(decoder, *arguments, batch)` for each batch, data-parallel.

        Args:
          name: identifies `fn`, which is compiled once for each batch shape.
          arguments: placed trees; the variant's variables come first by custom.
        """
        key = (name, variant.lora_scale)
        if key not in self._compiled:
            decoder = self.decoder(variant)
            self._compiled[key] = DataParallel(
                lambda placed, batch: fn(decoder, *placed, batch), self.devices
            )
        return self._compiled[key](arguments, batches, empty)

    def word_probs(
        self,
        variant: Variant,
        queries: Sequence[WordQuery],
        *,
        terminators: str = "standard",
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[WordProbs]:
        """Exact word probabilities of every query, in order.

        Raises:
          UserError: a prompt longer than the model's window, or unknown terminators.
        """
        check_window(queries, self.lm.cfg.max_positions)
        stops = self.lm.terminators.mask(terminators)
        arguments = (variant.variables, place(jnp.asarray(stops), self.devices))
        answers: list[WordProbs | None] = [None] * len(queries)
        for work in pack_batches(queries, stops, devices=len(self.devices)):
            results = self.map(
                "words", _word_log_probs, variant, arguments, work.batches, work.empty
            )
            for rows, result in zip(work.queries, results):
                done = 0
                for b, members in enumerate(rows):
                    for i, answer in _split(
                        members, queries, result.log_q[b], result.path_log_mass[b]
                    ):
                        answers[i] = answer
                        done += 1
                progress(done)
        return answers


def _word_log_probs(decoder: Decoder, variables: Tree, stops: jax.Array, batch: PackedBatch):
    return word_log_probs(decoder, variables, stops, batch)


def _split(
    members: list[int], queries: Sequence[WordQuery], log_q: np.ndarray, path_log: np.ndarray
) -> Iterator[tuple[int, WordProbs]]:
    """The queries of one row, which follow each other in its word and path slots."""
    word = path = 0
    for i in members:
        query = queries[i]
        q = np.exp(log_q[word : word + query.n_words].astype(np.float64))
        mass = np.exp(path_log[path : path + len(query.paths)].astype(np.float64))
        word, path = word + query.n_words, path + len(query.paths)
        yield i, WordProbs(q=q, path_mass=mass)
