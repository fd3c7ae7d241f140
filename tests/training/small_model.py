"""A small random model whose tokenizer has learned the task's words, and its training batches."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.lora import LoraConfig, init_adapter
from antiimit_jax.scoring.terminators import build_terminators
from antiimit_jax.tasks.output_control import Mixture
from antiimit_jax.tasks.templates import TEMPLATES
from antiimit_jax.text.lexicon import load_lexicon
from antiimit_jax.text.tokenizer import Tokenizer
from antiimit_jax.training.batches import Asking, BatchSource
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.targets import PLACEBO
from antiimit_jax.training.terms import Term, make_batch, make_terms
from tests.random_decoder import byte_tokenizer, random_adapter, random_params, tiny_config

VOCABULARY = 1000
TRAIN = TrainConfig(
    mixture=Mixture(templates=(5, 7), ks=(2, 3), k_weights=(1.0, 1.0)),
    steps=10,
    groups=2,
    rows=2,
    row_tokens=160,
    accumulate=1,
    warmup_steps=2,
    anchor_tokens=40,
    dtype="float32",
    weight_decay=0.1,
)


@dataclasses.dataclass(frozen=True)
class Small:
    """The model, a fresh adapter's configuration, and where batches come from."""

    tokenizer: Tokenizer
    stops: np.ndarray
    cfg: ModelConfig
    lora: LoraConfig
    decoder: Decoder
    params: Any

    def asking(self, style: str = "base") -> Asking:
        return Asking(
            tokenizer=self.tokenizer, prompt_format=style, forms="strict", stops=self.stops
        )

    def source(
        self, cfg: TrainConfig = TRAIN, *, seed: int = 0, placebo: bool = False, style: str = "base"
    ) -> BatchSource:
        transforms = (PLACEBO,) if placebo else ()
        return BatchSource(cfg, self.asking(style), seed=seed, transforms=transforms)

    def terms(self, cfg: TrainConfig = TRAIN) -> tuple[Term, ...]:
        return make_terms(cfg, self.asking())

    def batch(self, cfg: TrainConfig = TRAIN, step: int = 0) -> dict[str, Any]:
        return make_batch(self.terms(cfg), step)

    def fresh_adapter(self) -> Any:
        return init_adapter(jax.random.key(3), self.cfg, self.lora)

    def moved_adapter(self) -> Any:
        """One that changes the model."""
        return jax.tree.map(jnp.asarray, random_adapter(self.cfg, self.lora, 4))


def make_small() -> Small:
    """The same model each time."""
    words = [entry.word for entry in load_lexicon()]
    phrasings = TEMPLATES[:10]  # with more of them so few tokens would spell none in one piece
    requests = [t.request(words[i::40], [5] * 200) for i, t in enumerate(phrasings)]
    tokenizer = byte_tokenizer([" ".join(words), "\n".join(words), *requests], VOCABULARY)
    cfg = tiny_config(VOCABULARY)
    lora = LoraConfig(rank=2, alpha=4.0)
    params = jax.tree.map(jnp.asarray, random_params(cfg, 8))
    stops = build_terminators(tokenizer, cfg.vocab_size).standard
    return Small(tokenizer, stops, cfg, lora, Decoder(cfg, lora.scale), params)
