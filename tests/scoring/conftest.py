"""A small random model that speaks the words of these tests."""

from __future__ import annotations

import pytest

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.scoring.terminators import build_terminators
from tests.random_decoder import byte_tokenizer, random_adapter, random_params, tiny_config
from tests.scoring.layouts import Tiny

TEXTS = (
    "Pick a word: apple or apples or applesauce, river or rivers, rock or rock 'n' roll.\n",
    "car carpet cart carton; naïve café, the 3 of them, a word it is. Word: Answer:\n",
) * 4


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """Vocabulary 320, two layers, an adapter on every linear layer."""
    tokenizer = byte_tokenizer(TEXTS, 320)
    assert tokenizer.size == 320
    cfg = tiny_config(330)  # more rows than the tokenizer has tokens
    lora = LoraConfig(rank=3, alpha=6.0)
    variables = {"params": random_params(cfg, 1), "lora": random_adapter(cfg, lora, 2)}
    stops = build_terminators(tokenizer, cfg.vocab_size).standard
    return Tiny(tokenizer, stops, Decoder(cfg, lora.scale), variables)
