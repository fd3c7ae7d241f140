"""One step: what moves, what never moves, and what happens to steps that are not finite."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.lora import LoraConfig, init_adapter, train_mask
from antiimit_jax.scoring.packing import BatchShape, PackedSequence, needed, stack
from antiimit_jax.scoring.trie import word_query
from antiimit_jax.scoring.word_probs import word_log_probs
from antiimit_jax.text.formats import Message
from antiimit_jax.training.step import init_state, make_gradient, make_optimizer, make_step
from tests.training.small_model import TRAIN

CFG = dataclasses.replace(TRAIN, groups=1, learning_rate=1e-2)


class Trainer:
    """A compiled step and the state it starts from."""

    def __init__(self, small, cfg=CFG, lora=None, adapter=None):
        self.adapter = small.moved_adapter() if adapter is None else adapter
        mask = train_mask(self.adapter, small.cfg, lora or small.lora)
        optimizer = make_optimizer(cfg, cfg.steps, mask)
        self.state = init_state(self.adapter, optimizer)
        self.step = jax.jit(make_step(small.decoder, small.terms(cfg), optimizer))


@pytest.fixture(scope="module")
def trainer(small) -> Trainer:
    return Trainer(small)


def as_bytes(tree) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_training_lowers_the_loss_moves_every_adapter_and_no_base_weight(small, trainer):
    before, start = as_bytes(small.params), as_bytes(trainer.adapter)
    state, losses = trainer.state, []
    batch = small.batch(CFG)
    for _ in range(6):
        state, metrics = trainer.step(state, small.params, batch)
        losses.append(float(metrics["loss"]))
    assert as_bytes(small.params) == before
    assert all(a != b for a, b in zip(as_bytes(state.adapter), start, strict=True))
    assert losses[-1] < 0.9 * losses[0]
    assert int(state.step) == 6 and int(state.skipped) == 0


def test_gradients_and_optimizer_state_exist_for_adapters_alone(small, trainer):
    _, grads = jax.eval_shape(
        make_gradient(small.decoder, small.terms(CFG)),
        trainer.adapter,
        small.params,
        small.batch(CFG),
    )
    shapes = lambda tree: sorted(x.shape for x in jax.tree.leaves(tree) if x.shape)
    assert jax.tree.structure(grads) == jax.tree.structure(trainer.adapter)
    assert shapes(grads) == shapes(trainer.adapter)
    assert shapes(trainer.state.opt_state) == sorted(2 * shapes(trainer.adapter))


def test_only_the_named_modules_in_the_layer_range_move(small):
    narrow = LoraConfig(rank=2, alpha=4.0, targets=("q", "down"), first_layer=1, last_layer=2)
    trainer = Trainer(small, dataclasses.replace(CFG, weight_decay=0.5), lora=narrow)
    state = trainer.state
    for step in range(3):
        state, metrics = trainer.step(state, small.params, small.batch(CFG, step))
    for group, modules in state.adapter["layers"].items():
        for name, leaves in modules.items():
            for kind, leaf in leaves.items():
                start = trainer.adapter["layers"][group][name][kind]
                moved = np.any(np.asarray(leaf != start), axis=(1, 2))
                trains = name in narrow.targets
                assert moved.tolist() == [False, trains], (name, kind)


@pytest.fixture(scope="module")
def after_one(small, trainer):
    state, _ = trainer.step(trainer.state, small.params, small.batch(CFG))
    return state


def broken(small, batch, how: str):
    """(params, batch) whose loss or gradient is not finite."""
    if how == "loss":
        scale = small.params["final_norm"]["scale"].at[0].set(jnp.nan)
        return small.params | {"final_norm": {"scale": scale}}, batch
    few = batch["control"]._replace(n_items=np.full(1, 1e-25, np.float32))
    return small.params, batch | {"control": few}  # finite loss, norm overflows


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(small, trainer, after_one, how):
    batch = small.batch(CFG, 1)
    state, metrics = trainer.step(after_one, *broken(small, batch, how))
    assert np.isfinite(metrics["loss"]) == (how == "gradient")
    assert bool(metrics["skipped_now"])
    assert as_bytes(state.adapter) == as_bytes(after_one.adapter)
    assert as_bytes(state.opt_state) == as_bytes(after_one.opt_state)
    counts = lambda s: (int(s.step), int(s.skipped), int(s.skipped_in_row))
    assert counts(state) == (2, 1, 1)
    state, _ = trainer.step(state, *broken(small, batch, how))
    assert counts(state) == (3, 2, 2)

    # The next sound step is the one that an undisturbed run would have made.
    state, metrics = trainer.step(state, small.params, batch)
    undisturbed, _ = trainer.step(after_one, small.params, batch)
    assert counts(state) == (4, 2, 0) and not bool(metrics["skipped_now"])
    assert as_bytes(state.adapter) == as_bytes(undisturbed.adapter)
    assert as_bytes(state.opt_state) == as_bytes(undisturbed.opt_state)


def test_a_step_to_an_adapter_that_float32_cannot_square_is_skipped(small):
    trainer = Trainer(small, dataclasses.replace(CFG, learning_rate=1e25, warmup_steps=0))
    state, metrics = trainer.step(trainer.state, small.params, small.batch(CFG))
    assert np.isfinite(metrics["loss"]) and np.isfinite(metrics["grad_norm"])
    assert bool(metrics["skipped_now"]) and int(state.skipped_in_row) == 1
    assert as_bytes(state.adapter) == as_bytes(trainer.adapter)


def test_accumulated_microbatches_make_the_step_of_one_large_batch(small):
    large = dataclasses.replace(CFG, groups=2)
    parts = dataclasses.replace(CFG, groups=1, accumulate=2)
    updates = []
    for cfg in (large, parts):
        trainer = Trainer(small, cfg)
        state, metrics = trainer.step(trainer.state, small.params, small.batch(cfg))
        first_moments = jax.tree.leaves(state.opt_state)
        updates.append((float(metrics["loss"]), float(metrics["grad_norm"]), first_moments))
    (loss_a, norm_a, a), (loss_b, norm_b, b) = updates
    assert loss_a == pytest.approx(loss_b, rel=1e-5)
    assert norm_a == pytest.approx(norm_b, rel=1e-4)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6)


def test_a_fresh_adapter_on_the_real_model_changes_not_one_bit(smollm2):
    lora = LoraConfig(rank=4)
    prompt = smollm2.prompt((Message("user", "apple or river?"), Message("assistant", "Word:")))
    query = word_query(smollm2.tokenizer, prompt, ["apple", "river"])
    stops = smollm2.terminators.standard
    row = PackedSequence(needed(query, stops), stops)
    assert row.add(0, query)
    batch = stack([row], BatchShape(row.limits, 1, 1, 0))
    score = jax.jit(word_log_probs, static_argnums=0)
    decoder = Decoder(smollm2.cfg, lora.scale)
    params = jax.tree.map(jnp.asarray, smollm2.params)
    base = score(decoder, {"params": params}, stops, batch)
    adapter = init_adapter(jax.random.key(0), smollm2.cfg, lora)
    fresh = score(decoder, {"params": params, "lora": adapter}, stops, batch)
    assert as_bytes(fresh) == as_bytes(base)
