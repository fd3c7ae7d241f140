"""Continuations: greedy as transformers says, sampled as often as the exact distribution says."""

from __future__ import annotations

import collections
import dataclasses
import string

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy import stats

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import LanguageModel
from antiimit_jax.models.config import Rope
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.families import FAMILIES
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.parallel import make_mesh
from antiimit_jax.scoring.generate import draw, pack_draws, places
from tests.enumeration import PlainModel
from tests.models.adapter_peers import merged_model, random_tree
from tests.models.family_peers import CASES, random_model
from tests.models.llama_peer import load, write
from tests.random_decoder import END_OF_TURN, char_tokenizer, random_params, tiny_config

ONE_OF_EACH = [next(case for case in CASES if case.startswith(f"{name}:")) for name in FAMILIES]
LORA = LoraConfig(rank=2, alpha=3.0)
SWITCHES = (
    "mistral: window",
    "qwen2: layer types",
    "gemma2: soft caps",
    "llama: dynamic rope",
    "llama: longrope, beyond it",
)


def language_model(cfg, params, end: int | None = None) -> LanguageModel:
    """A model of one character a token, in which the token `end` ends an answer."""
    pieces = list(string.printable[: cfg.vocab_size])
    if end is not None:
        pieces[end] = END_OF_TURN
    tokenizer = char_tokenizer(pieces)  # without an end it gets one beyond the embedding
    return LanguageModel(
        source=None,
        cfg=cfg,
        params=params,
        tokenizer=tokenizer,
        terminators=None,
        prompt_format="base",
    )


def prompts_of(lengths, vocab_size=47) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(3)
    return [tuple(rng.integers(0, vocab_size, length).tolist()) for length in lengths]


def theirs(model, prompt, steps: int) -> tuple[int, ...]:
    """What transformers says greedily."""
    ids = torch.tensor([prompt])
    how = dict(do_sample=False, max_new_tokens=steps, attention_mask=torch.ones_like(ids))
    return tuple(model.generate(ids, **how)[0, len(prompt) :].tolist())


@pytest.mark.parametrize(
    "case, adapted", [(case, True) for case in ONE_OF_EACH] + [(case, False) for case in SWITCHES]
)
def test_greedy_tokens_are_those_of_transformers(case, adapted, tmp_path):
    cfg, params = load(write(random_model(case), tmp_path))
    short = cfg.max_positions < 20  # dynamic rope: the window is where it changes
    prompts, steps = prompts_of((1, 3) if short else (1, 5, 8, 17, 30)), 5 if short else 8
    runner = Runner(language_model(cfg, params), jax.local_devices()[:2])
    variant, model = runner.base, random_model(case)
    if adapted:
        tree = random_tree(cfg, LORA)
        variant, model = runner.adapted(tree, LORA.scale), merged_model(case, tree, LORA.scale)
    where = np.zeros((len(prompts), 1, steps), np.float32)
    for prompt, (said,) in zip(prompts, runner.generate(variant, prompts, where, temperature=0)):
        assert said == theirs(model, prompt, steps)


@pytest.fixture(scope="module")
def small() -> tuple:
    """Shape and weights of a model of two layers and 40 tokens, one of them an end."""
    cfg = tiny_config(40, windows=(6,))
    return cfg, random_params(cfg, 1)


PROMPTS = prompts_of((2, 9, 33, 40, 4, 4), 40)
SEED, TEMPERATURE, END, N, STEPS = 5, 0.8, 7, 9, 6
WHERE = np.stack([places(SEED, prompt, N, STEPS) for prompt in PROMPTS])


@pytest.fixture(scope="module")
def drawn(small) -> list:
    runner = Runner(language_model(*small, END), jax.local_devices()[:1])
    return runner.generate(runner.base, PROMPTS, WHERE, temperature=TEMPERATURE)


def test_every_token_drawn_lies_at_its_place_in_the_exact_distribution(small, drawn):
    cfg, params = small
    plain = PlainModel(Decoder(cfg), {"params": params}, 48)
    ended = 0
    for prompt, samples, where in zip(PROMPTS, drawn, WHERE, strict=True):
        assert len(samples) == N
        for said, at in zip(samples, where):
            for s, token in enumerate(said):
                logits = plain.log_next(prompt + said[:s]) / TEMPERATURE
                ends = np.cumsum(np.exp(logits)) / np.exp(logits).sum()
                assert ends[token] - np.diff(ends, prepend=0)[token] - 1e-5 <= at[s]
                assert at[s] <= ends[token] + 1e-5
            assert END not in said[:-1] and (len(said) == STEPS or said[-1] == END)
            ended += said[-1] == END
    assert ended > 3, "nothing shown about ends"
    assert len({said for samples in drawn for said in samples}) > 30


@pytest.mark.parametrize("shards", [1, 4, 8])
def test_eight_devices_draw_what_one_draws(small, drawn, shards):
    mesh = make_mesh(jax.local_devices(), shards)
    runner = Runner(dataclasses.replace(language_model(*small, END), mesh=mesh))
    assert drawn == runner.generate(runner.base, PROMPTS, WHERE, temperature=TEMPERATURE)


def test_an_answer_depends_neither_on_company_nor_on_how_many_are_drawn(small, drawn):
    runner = Runner(language_model(*small, END), jax.local_devices()[:1])
    for i in (1, 3):
        where = places(SEED, PROMPTS[i], 2, STEPS)[None]
        (few,) = runner.generate(runner.base, [PROMPTS[i]], where, temperature=TEMPERATURE)
        assert few == drawn[i][:2]
    assert drawn[4] != drawn[5] and PROMPTS[4] != PROMPTS[5]


def test_samples_are_as_frequent_as_enumeration_says(small):
    """Chi-square over all answers of two tokens, the rare ones taken together."""
    cfg, params = small
    runner = Runner(language_model(cfg, params, END), jax.local_devices()[:2])
    prompt, n = PROMPTS[0], 4000
    where = places(SEED, prompt, n, 2)[None]
    (samples,) = runner.generate(runner.base, [prompt], where, temperature=1.0)
    plain = PlainModel(Decoder(cfg), {"params": params}, 48)
    first = np.exp(plain.log_next(prompt))
    exact = {(END,): first[END]}
    for a in set(range(cfg.vocab_size)) - {END}:
        after = first[a] * np.exp(plain.log_next((*prompt, a)))
        exact |= {(a, b): after[b] for b in range(cfg.vocab_size)}
    counts = collections.Counter(samples)
    assert set(counts) <= set(exact) and sum(exact.values()) == pytest.approx(1)
    often = [said for said, p in exact.items() if n * p >= 5]
    seen = [counts[said] for said in often]
    p = [exact[said] for said in often]
    assert len(often) > 20
    assert stats.chisquare([*seen, n - sum(seen)], n * np.array([*p, 1 - sum(p)])).pvalue > 0.01


def test_places_at_the_edges_find_tokens_that_have_probability():
    logits = jnp.full((1, 1000), -jnp.inf).at[0, jnp.array([3, 300, 301, 998])].set(0.0)
    edges = [0.0, 0.2499, 0.2501, 0.5001, 0.7501, np.nextafter(np.float32(1), 0)]
    assert draw(logits, jnp.array([edges]))[0].tolist() == [3, 3, 300, 301, 998, 998]


def test_many_samples_of_a_prompt_share_its_computation():
    cfg = tiny_config(40)
    where = np.zeros((5, 2000, 4), np.float32)
    (work,) = pack_draws(prompts_of((40,) * 5), where, cfg, devices=2)
    computed = len(work.batches) * len(work.empty.length)
    assert computed <= 2 * 5 + len(work.batches)
    assert sum(len(rows) for rows in work.rows) * work.empty.place.shape[2] < 1.1 * 5 * 2000


def test_a_prompt_that_leaves_no_room_is_refused():
    cfg, where = tiny_config(40, max_positions=50), np.zeros((1, 1, 11), np.float32)
    assert len(list(pack_draws([(1,) * 39], where, cfg))) == 1
    with pytest.raises(UserError, match="prompt of 40 tokens with 11 more .* window of 50"):
        list(pack_draws([(1,) * 40], where, cfg))
    rope = Rope(kind="longrope", dim=8, original=45)
    cfg = tiny_config(40, max_positions=90, ropes=(rope,))
    with pytest.raises(UserError, match="passes 45 tokens"):
        list(pack_draws([(1,) * 40], where, cfg))
    assert len(list(pack_draws([(1,) * 46], where, cfg))) == 1
