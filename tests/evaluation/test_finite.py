"""A model that overflows has no probabilities: one line names it and the prompt, nothing else."""

from __future__ import annotations

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.asker import LocalAsker
from antiimit_jax.evaluation.progress import silent
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.models.families import FAMILIES, parse_config
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.weights import cast_matrices
from antiimit_jax.results import Stage
from antiimit_jax.scoring.asks import Ask, Scoring
from antiimit_jax.tasks.neutral import load_neutral
from antiimit_jax.text.formats import Message
from tests.battery import tenth
from tests.random_decoder import random_adapter, random_params
from tests.tiny_model import write_tiny_model

QUESTION = (Message("user", "Red or blue?"), Message("assistant", "Colour:"))
ASKS = [Ask(messages=QUESTION, words=("red", "blue"))]
LORA = LoraConfig(rank=2)
SIZES = dict(
    vocab_size=49152,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=48,
    max_position_embeddings=2048,
    tie_word_embeddings=False,
)
PHI3 = dict(original_max_position_embeddings=2048)
VALUES = (np.nan, np.inf, -np.inf)


@pytest.fixture(scope="module")
def lm(tmp_path_factory) -> LanguageModel:
    folder = write_tiny_model(tmp_path_factory.mktemp("m"), tie_word_embeddings=False)
    return load_language_model(str(folder))


@pytest.fixture(scope="module")
def runner(lm) -> Runner:
    return Runner(lm, jax.local_devices()[:1])


def asker(runner: Runner, variant=None, name: str = "mine") -> LocalAsker:
    return LocalAsker(
        runner=runner,
        variant=variant or runner.base,
        stage=Stage(name=name, kind="other"),
        scoring=Scoring(),
        seed=0,
        progress=silent,
    )


def ways(asker: LocalAsker) -> list:
    """Everything that a suite may ask."""
    texts = load_neutral("drift")[:2]
    return [
        lambda: asker.words(ASKS, what="words"),
        lambda: asker.first_tokens(ASKS, what="first tokens"),
        lambda: asker.top_words([QUESTION], what="words"),
        lambda: asker.lexicon_words([[QUESTION]], ["zebra"], what="words", most=3),
        lambda: asker.texts(texts, what="texts"),
        lambda: asker.generate([QUESTION], what="drawn", max_tokens=3, temperature=0.0),
        lambda: asker.generate([QUESTION], what="drawn", max_tokens=3, temperature=1.0, n=2),
    ]


@pytest.mark.parametrize("token", tenth(np.random.default_rng(0).integers(49152, size=50).tolist()))
def test_one_logit_of_49152_that_is_not_finite_is_enough(lm, runner, token):
    """The head's row of one token is spoiled, and with it that token's logit everywhere."""
    for value in VALUES:
        head = np.array(lm.params["head"])
        head[token] = value
        spoiled = asker(runner, runner.with_params(lm.params | {"head": head}))
        for ask in ways(spoiled):
            with pytest.raises(UserError) as caught:
                ask()
            assert str(lm.source.name) in str(caught.value)
            assert "in float32, stage mine: " in str(caught.value)


def test_the_prompt_at_fault_is_named_among_those_that_share_its_batch(lm, runner):
    """A row of the embedding whose square overflows harms the prompts that hold its token."""
    table = np.array(lm.params["embed"]["embedding"])
    table[lm.tokenizer.encode_plain(" zebra")[0]] = 1e25
    spoiled = asker(runner, runner.with_params(lm.params | {"embed": {"embedding": table}}))
    animals = ("cat", "dog", "cow", "zebra", "bee", "zebra")
    asks = [Ask(messages=(Message("user", f"One {x}"),), words=("a", "b")) for x in animals]
    for way in (
        lambda: spoiled.words(asks, what="words"),
        lambda: spoiled.first_tokens(asks, what="first tokens"),
        lambda: spoiled.top_words([ask.messages for ask in asks], what="words"),
    ):
        with pytest.raises(UserError, match="stage mine: prompt 4, which begins"):
            way()
    sound = [ask for ask, animal in zip(asks, animals) if animal != "zebra"]
    assert len(spoiled.words(sound, what="words")) == 4


@pytest.mark.parametrize("size", [1e3, 1e6, 1e10, 1e15, 1e17])
def test_an_adapter_that_overflows_is_named_and_the_base_is_not_blamed(lm, runner, size):
    big = jax.tree.map(lambda leaf: np.float32(size) * leaf, random_adapter(lm.cfg, LORA, 3))
    adapted = asker(runner, runner.adapted(big, LORA.scale))
    for ask in ways(adapted):
        try:
            found = ask()
        except UserError as error:
            assert "adapter is damaged" in str(error) and "stage mine" in str(error)
        else:  # large, and yet not too large
            assert size <= 1e6 and found
    for ask in ways(adapted.base):
        assert ask()


def family(name: str, lm: LanguageModel, dtype: str) -> LanguageModel:
    """A random model whose gated product is beyond 65504; the tokenizer is the embedded one's."""
    config = SIZES | {"model_type": name} | (PHI3 if name == "phi3" else {})
    if "sliding_window" in FAMILIES[name].defaults:
        config["sliding_window"] = 16
    cfg = parse_config(config, name)
    params = random_params(cfg, 5)
    for part in params["layers"]["mlp"].values():
        part["kernel"] = 300 * part["kernel"]
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    source = dataclasses.replace(lm.source, name=f"a {name}")
    params = cast_matrices(params, getattr(ml_dtypes, dtype, None) or np.dtype(dtype))
    return dataclasses.replace(lm, cfg=cfg, params=params, source=source)


@pytest.mark.parametrize("name", tenth(sorted(FAMILIES)))
def test_float16_that_overflows_is_refused_in_every_family_and_wider_types_are_not(lm, name):
    assert len(FAMILIES) == 11
    for dtype in ("float32", "bfloat16"):
        runner = Runner(family(name, lm, dtype), jax.local_devices()[:1])
        (answer,) = asker(runner).words(ASKS, what="words")
        assert np.isfinite(answer.q).all() and 0 <= answer.residual <= 1
    runner = Runner(family(name, lm, "float16"), jax.local_devices()[:1])
    for ask in ways(asker(runner)):
        with pytest.raises(UserError, match=f"a {name} in float16.*use float32 or bfloat16"):
            ask()
