"""What a step minimises: a weighted sum of terms, each with batches, a loss and log columns."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.scoring.texts import PackedTexts, text_logits
from antiimit_jax.scoring.word_probs import word_log_probs
from antiimit_jax.training.anchor import AnchorSource
from antiimit_jax.training.batches import Asking, BatchSource, ControlBatch
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.objectives import OBJECTIVES, anchor_kl, forward_kl
from antiimit_jax.training.targets import Transform

Array = jax.Array
Tree = Any
Loss = tuple[Array, dict[str, Array]]  # with log columns


class Term(Protocol):
    """One part of the loss. A term of weight 0 is not computed, and its log columns are 0."""

    name: str
    weight: float

    def batch(self, step: int) -> Tree:
        """Host arrays [A, ...] of a step: A microbatches whose losses add up."""

    def loss(self, decoder: Decoder, variables: Tree, batch: Tree) -> Loss:
        """A microbatch's part of the step's loss in nats, and of its log columns (sums as well).

        Args:
          variables: {"params": ..., "lora": ...}.
          batch: leaves [...], without the axis of microbatches.
        """


class Words(NamedTuple):
    """What the model says about a microbatch's words; slots of other items hold 0, log -inf."""

    log_q: Array  # [B, W]
    by_item: Array  # [B, I, W] the same, each item alone
    target: Array  # [B, I, W]
    exists: Array  # bool [B, I] items
    n_items: Array  # [] of the whole step

    def mean(self, of_items: Array) -> Array:
        """This microbatch's part of the mean over a step's items, of [B, I]."""
        return jnp.where(self.exists, of_items, 0.0).sum() / self.n_items


class WordTerm(Protocol):
    """A part of the loss that reads the words' probabilities; all such parts share one pass."""

    weight: float

    def loss(self, words: Words, batch: ControlBatch) -> Loss:
        """As `Term.loss`; with weight 0 the log columns alone count."""


@dataclasses.dataclass(frozen=True)
class Control:
    """Requests for words: one pass through the model, and the terms that read what it says."""

    stops: np.ndarray  # bool [V]
    batch: Callable[[int], ControlBatch]
    terms: tuple[WordTerm, ...]
    name: str = "control"
    weight: float = 1.0

    def loss(self, decoder: Decoder, variables: Tree, batch: ControlBatch) -> Loss:
        out = word_log_probs(decoder, variables, jnp.asarray(self.stops), batch.packed)
        by_item = _by_item(out.log_q, batch.target, batch.packed.word_item)
        words, total, columns = Words(out.log_q, *by_item, batch.n_items), jnp.zeros(()), {}
        for term in self.terms:
            loss, of_this = term.loss(words, batch)
            columns |= of_this
            if term.weight:
                total += term.weight * loss
        return total, columns


@dataclasses.dataclass(frozen=True)
class Objective:
    """Word probabilities as they are asked for: the mean objective over items.

    Log columns: `kl_fwd`, whatever the objective, and `residual`, means over items.
    """

    objective: str
    weight: float = 1.0

    def loss(self, words: Words, batch: ControlBatch) -> Loss:
        columns = {
            "kl_fwd": words.mean(forward_kl(words.by_item, words.target)),
            "residual": words.mean(1.0 - jnp.exp(words.by_item).sum(-1)),
        }
        return words.mean(OBJECTIVES[self.objective](words.by_item, words.target)), columns


@dataclasses.dataclass(frozen=True)
class Symmetry:
    """No preference between words: the mean over pairs of requests of log cosh(alpha / 2).

    alpha = (l + l') / 2 is what a pair's two log-ratios l = log q(A) / q(B) have in common: the
    model's preference between A and B, 0 where it follows both requests. The objective alone
    hardly corrects a preference at extreme percentages. Log column: `symmetry`, the mean.
    """

    weight: float

    def loss(self, words: Words, batch: ControlBatch) -> Loss:
        preference = pair_preferences(words.log_q, batch.pair, batch.side)
        apart = _log_cosh(preference / 2).sum() / jnp.maximum(batch.n_pairs, 1)
        return apart, {"symmetry": apart}


@dataclasses.dataclass(frozen=True)
class Mass:
    """Saying one of the words at all: the mean over items of -log of their probability together.

    Its place in the log is `residual`.
    """

    weight: float

    def loss(self, words: Words, batch: ControlBatch) -> Loss:
        # A slope where there is no item, too.
        held = jnp.where(words.exists[..., None], words.by_item, 0.0)
        return -words.mean(jax.nn.logsumexp(held, axis=-1)), {}


def pair_preferences(log_q: Array, pair: Array, side: Array) -> Array:
    """Each pair's preference alpha in logits, at its number [B W // 4], 0 where there is no pair.

    Args:
      log_q, pair, side: [B, W], the latter as in `ControlBatch`.
    """
    part = jnp.where(side != 0, side * log_q, 0.0) / 2
    n = log_q.size // 4  # a pair has four words
    return jnp.zeros(n).at[jnp.where(pair >= 0, pair, n)].add(part, mode="drop")


def _log_cosh(x: Array) -> Array:
    return jnp.logaddexp(x, -x) - np.log(2)


def _by_item(log_q: Array, target: Array, word_item: Array) -> tuple[Array, Array, Array]:
    """Words [B, W] of several items a row, each item alone: log q and target [B, I, W].

    A word has probability and target 0 in other items than its own. Last, which items exist [B, I].
    """
    items = jnp.arange(word_item.shape[-1])
    own = word_item[:, None, :] == items[None, :, None]
    alone = jnp.where(own, log_q[:, None, :], -jnp.inf)
    return alone, jnp.where(own, target[:, None, :], 0.0), own.any(-1)


@dataclasses.dataclass(frozen=True)
class Anchor:
    """Staying the base model on unrelated text. Log column: `anchor_kl`, KL(base || tuned)."""

    weight: float
    batch: Callable[[int], PackedTexts]
    name: str = "anchor"

    def loss(self, decoder: Decoder, variables: Tree, batch: PackedTexts) -> Loss:
        base = text_logits(decoder, {"params": variables["params"]}, batch)
        tuned = text_logits(decoder, variables, batch)
        kl = anchor_kl(base, tuned, batch.scored)
        return kl, {"anchor_kl": kl}


def make_terms(
    cfg: TrainConfig, asking: Asking, *, seed: int = 0, transforms: tuple[Transform, ...] = ()
) -> tuple[Term, ...]:
    """The terms of a configuration; `transforms` of control's targets make a placebo of it."""
    requests = BatchSource(cfg, asking, seed=seed, transforms=transforms)
    texts = AnchorSource(max(cfg.anchor_tokens, 1), asking, seed=seed)
    of_words = Objective(cfg.objective), Symmetry(cfg.symmetry), Mass(cfg.mass)
    return (
        Control(asking.stops, requests, of_words),
        Anchor(cfg.anchor_weight if cfg.anchor_tokens else 0.0, texts),
    )


def make_batch(terms: Sequence[Term], step: int) -> dict[str, Tree]:
    """The batch of a step, by the terms' names."""
    return {term.name: term.batch(step) for term in terms}
