"""A step is a sum of terms: what a new one adds, what each counts, and what a step may not do."""

from __future__ import annotations

import dataclasses
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antiimit_jax.models.lora import LoraConfig, train_mask
from antiimit_jax.scoring.word_probs import WordLogProbs, word_log_probs
from antiimit_jax.tasks.output_control import Mixture
from antiimit_jax.tasks.templates import TRAIN_TEMPLATES
from antiimit_jax.training import loop
from antiimit_jax.training import terms as terms_module
from antiimit_jax.training.batches import ControlBatch
from antiimit_jax.training.objectives import OBJECTIVES
from antiimit_jax.training.step import init_state, make_gradient, make_optimizer, make_step
from antiimit_jax.training.targets import PLACEBO
from antiimit_jax.training.terms import Symmetry, Words, make_batch, make_terms
from tests.training.small_model import TRAIN
from tests.training.test_loop import CFG, train_with
from tests.unpack import unpack

SMALL = dataclasses.replace(TRAIN, groups=1, rows=1)


@dataclasses.dataclass(frozen=True)
class Shrink:
    """A term of a test's own: half the squared size of the b matrices, in three microbatches."""

    name: str = "shrink"
    weight: float = 0.5

    def batch(self, step):
        return {"share": np.full(3, 1 / 3, np.float32)}

    def loss(self, decoder, variables, batch):
        size = sum((x**2).sum() for x in jax.tree.leaves(variables["lora"])) * batch["share"]
        return size, {"size": size}


def test_a_new_term_adds_its_loss_its_slope_and_its_column(small):
    adapter, terms = small.moved_adapter(), small.terms(SMALL)
    gradient = lambda terms: jax.jit(make_gradient(small.decoder, terms))(
        adapter, small.params, make_batch(terms, 0)
    )
    (before, slopes), (after, more) = gradient(terms), gradient((*terms, Shrink()))
    assert after.keys() - before.keys() == {"size"}
    size = sum((np.asarray(x) ** 2).sum() for x in jax.tree.leaves(adapter))
    assert float(after["size"]) == pytest.approx(size, rel=1e-5)
    assert float(after["loss"] - before["loss"]) == pytest.approx(0.5 * size, rel=1e-4)
    for a, b, x in zip(*map(jax.tree.leaves, (slopes, more, adapter)), strict=True):
        np.testing.assert_allclose(b - a, x, rtol=1e-3, atol=1e-4)


def test_a_step_is_the_sum_of_its_microbatches(small):
    cfg = dataclasses.replace(SMALL, accumulate=2)
    adapter, terms = small.moved_adapter(), small.terms(cfg)
    batch = make_batch(terms, 0)
    gradient = jax.jit(make_gradient(small.decoder, terms))
    alone = lambda i: jax.tree.map(lambda leaf: leaf[i : i + 1], batch["control"])
    parts = [gradient(adapter, small.params, batch | {"control": alone(i)})[0] for i in (0, 1)]
    whole = gradient(adapter, small.params, batch)[0]
    for column in ("kl_fwd", "residual"):
        total = sum(float(part[column]) for part in parts)
        assert float(whole[column]) == pytest.approx(total, rel=1e-5)
    assert float(parts[0]["kl_fwd"]) != float(parts[1]["kl_fwd"])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_steps_on_every_objective_lower_it(small, objective):
    cfg = dataclasses.replace(SMALL, objective=objective, anchor_weight=0.0, learning_rate=1e-2)
    adapter, terms = small.moved_adapter(), small.terms(cfg)
    optimizer = make_optimizer(cfg, cfg.steps, train_mask(adapter, small.cfg, small.lora))
    step = jax.jit(make_step(small.decoder, terms, optimizer))
    state, losses, batch = init_state(adapter, optimizer), [], make_batch(terms, 0)
    for _ in range(4):
        state, metrics = step(state, small.params, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] and int(state.skipped) == 0
    same = objective in ("kl", "sampled", "kl_canonical")
    assert (float(metrics["kl_fwd"]) == losses[-1]) == same


def test_the_objective_of_several_items_a_row_is_the_mean_of_each_alone(small):
    adapter = small.moved_adapter()
    found = {}
    for name, how in {"kl": {}, "tvd": {"objective": "tvd"}, "mass": {"mass": 0.5}}.items():
        terms = small.terms(dataclasses.replace(SMALL, anchor_weight=0.0, **how))
        batch = make_batch(terms, 0)
        metrics, gradient = make_gradient(small.decoder, terms)(adapter, small.params, batch)
        found[name] = float(metrics["loss"])
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    control = batch["control"]
    packed = jax.tree.map(lambda leaf: leaf[0], control.packed)
    out = jax.jit(word_log_probs, static_argnums=0)(
        small.decoder, {"params": small.params, "lora": adapter}, small.stops, packed
    )
    items = {}
    for slot in unpack(packed):
        pair = float(np.exp(out.log_q[slot.row, slot.slot])), control.target[0, slot.row, slot.slot]
        items.setdefault((slot.row, slot.item), []).append(pair)
    assert len(items) == control.n_items[0] > len({row for row, _ in items})
    kls, tvds, masses = [], [], []
    for pairs in items.values():
        q, t = np.array(pairs).T
        kls.append((t * np.log(t / q)).sum())
        tvds.append((abs(q - t).sum() + 1 - q.sum()) / 2)
        masses.append(-np.log(q.sum()))
    assert found["mass"] - found["kl"] == pytest.approx(0.5 * np.mean(masses), rel=1e-4)
    assert found["kl"] == pytest.approx(np.mean(kls), rel=1e-5)
    assert found["tvd"] == pytest.approx(np.mean(tvds), rel=1e-5)


def test_the_symmetry_of_a_step_is_that_of_its_pairs_whatever_the_targets(small):
    adapter, found = small.moved_adapter(), {}
    cfg = dataclasses.replace(SMALL, anchor_weight=0.0, accumulate=2, symmetry=0.5, rows=3)
    for placebo in (False, True):
        terms = make_terms(cfg, small.asking(), transforms=(PLACEBO,) if placebo else ())
        batch = make_batch(terms, 0)
        found[placebo], _ = make_gradient(small.decoder, terms)(adapter, small.params, batch)
    assert float(found[True]["symmetry"]) == float(found[False]["symmetry"])
    metrics, pairs = found[False], {}
    total = float(metrics["kl_fwd"]) + 0.5 * float(metrics["symmetry"])
    assert float(metrics["loss"]) == pytest.approx(total, rel=1e-6)

    source = small.source(cfg)  # the requests of both microbatches, in the order of the rows
    scored = jax.jit(word_log_probs, static_argnums=0)
    for micro in range(2):
        rows, queries, _, _ = source._group(0, micro)
        items = list(itertools.islice(cfg.mixture.training(rng_of(micro)), len(queries)))
        packed = jax.tree.map(lambda leaf, m=micro: leaf[m], batch["control"].packed)
        variables = {"params": small.params, "lora": adapter}
        log_q = np.asarray(scored(small.decoder, variables, small.stops, packed).log_q)
        for b, row in enumerate(rows):
            for place, i in enumerate(row.queries):
                ratio = log_q[b][packed.word_item[b] == place]
                if len(ratio) == 2 and items[i].targets != (0.5, 0.5):
                    pairs.setdefault((micro, items[i].words), []).append(ratio[0] - ratio[1])
    whole = [np.mean(both) for both in pairs.values() if len(both) == 2]
    assert len(whole) == batch["control"].n_pairs[0] > 2
    expected = np.mean(np.log(np.cosh(np.array(whole) / 2)))
    assert float(metrics["symmetry"]) == pytest.approx(expected, rel=1e-4)


def test_all_that_reads_the_words_shares_one_pass_through_the_model(small, monkeypatch):
    real, passes = terms_module.word_log_probs, []

    def counted(*args):
        passes.append(args)
        return real(*args)

    monkeypatch.setattr(terms_module, "word_log_probs", counted)
    terms = small.terms(dataclasses.replace(SMALL, anchor_weight=0.0, symmetry=0.5, mass=0.5))
    gradient, batch = make_gradient(small.decoder, terms), make_batch(terms, 0)
    jax.eval_shape(gradient, small.moved_adapter(), small.params, batch)
    assert len(passes) == 1


def test_symmetry_has_no_slope_where_a_pair_follows_its_requests():
    """Of a pair's four words, and of two whose request has no partner."""
    pair, side = np.array([[0, 0, 0, 0, -1, -1]]), np.array([[1.0, -1, 1, -1, 0, 0]])
    batch = ControlBatch(None, None, pair, side, np.float32(3), np.float32(1))

    def at(first: float, second: float) -> tuple[jax.Array, jax.Array]:
        shares = np.array([[first, 1 - first, second, 1 - second, 0.99, 0.01]])
        loss = lambda log_q: Symmetry(1.0).loss(Words(log_q, *[None] * 4), batch)[0]
        return jax.value_and_grad(loss)(jnp.log(0.9 * shares))

    np.testing.assert_allclose(np.concatenate([x.ravel() for x in at(0.7, 0.3)]), 0, atol=1e-6)
    value, slope = at(0.7, 0.6)
    alpha = (np.log(0.7 / 0.3) + np.log(0.6 / 0.4)) / 2
    np.testing.assert_allclose(value, np.log(np.cosh(alpha / 2)), rtol=1e-5)
    np.testing.assert_allclose(slope, np.tanh(alpha / 2) / 4 * side, rtol=1e-5)


def rng_of(group: int) -> np.random.Generator:
    """Of the items of a group of step 0."""
    return np.random.default_rng([0, 1, 0, group])


def test_canonical_queries_hold_the_one_form_that_an_answer_has(small):
    cfg = dataclasses.replace(SMALL, mixture=Mixture(templates=TRAIN_TEMPLATES), groups=4)
    assert all(len(query.paths) > query.n_words for query, _ in small.source(cfg).examples(0))
    source = small.source(dataclasses.replace(cfg, objective="kl_canonical"))
    for group in range(cfg.groups):
        items = cfg.mixture.training(rng_of(group))
        for query, item in zip(source._group(0, group)[1], items):
            # In base format every prompt ends in a prefill.
            assert [path.text for path in query.paths] == [" " + word for word in item.words]
            assert [path.word for path in query.paths] == list(range(query.n_words))


@pytest.fixture
def guarded(monkeypatch):
    """The loop's step traced once at most, and never moving an array without saying so."""
    real = loop.make_step
    traced = lambda *args: chex.assert_max_traces(real(*args), n=1)
    monkeypatch.setattr(loop, "make_step", traced)
    jitted, calls = loop.jit_step, []

    def jit_step(*args):
        step = jitted(*args)

        def guarded_step(*inputs):
            calls.append(1)
            with jax.transfer_guard("disallow"):
                return step(*inputs)

        return guarded_step

    monkeypatch.setattr(loop, "jit_step", jit_step)
    chex.clear_trace_counter()
    return calls


def test_the_loop_traces_its_step_once_and_makes_no_implicit_transfer(tiny, tmp_path, guarded):
    cfg = dataclasses.replace(CFG, accumulate=1, steps=4)
    whole, _ = train_with(tiny, "tuned", cfg, LoraConfig(rank=2), tmp_path / "w")
    assert len(guarded) == 4
    with pytest.raises(Exception, match="[Dd]isallowed host-to-device"):
        with jax.transfer_guard("disallow"):
            jnp.sin(np.ones(3))


def test_steps_of_one_shape_are_one_program_whatever_their_batch_and_counters(small):
    terms, adapter = small.terms(SMALL), small.moved_adapter()
    optimizer = make_optimizer(SMALL, SMALL.steps, train_mask(adapter, small.cfg, small.lora))
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(make_step(small.decoder, terms, optimizer), n=1))
    state = init_state(adapter, optimizer)
    for number in range(3):
        state, _ = step(state, small.params, make_batch(terms, number))
    other = small.terms(dataclasses.replace(SMALL, row_tokens=192))
    with pytest.raises(AssertionError, match="traced"):
        step(state, small.params, make_batch(other, 0))


def test_training_code_promotes_no_ranks(small, monkeypatch):
    """All but the model, whose answers are stood in for by arrays of their shapes."""

    def answers(decoder, variables, stops, packed):
        log_q = sum((x**2).sum() for x in jax.tree.leaves(variables["lora"]))
        log_q = jnp.full(packed.word_item.shape, -1.0) - log_q
        return WordLogProbs(log_q, log_q, log_q)

    def logits(decoder, variables, row):
        size = sum(((x**2).sum() for x in jax.tree.leaves(variables.get("lora"))), jnp.zeros(()))
        return jnp.zeros((*row.scored.shape, 7)) + size * jnp.arange(7.0)[None, None]

    monkeypatch.setattr(terms_module, "word_log_probs", answers)
    monkeypatch.setattr(terms_module, "text_logits", logits)
    adapter = small.moved_adapter()
    optimizer = make_optimizer(TRAIN, TRAIN.steps, train_mask(adapter, small.cfg, small.lora))
    state = init_state(adapter, optimizer)
    for objective in OBJECTIVES:
        terms = small.terms(dataclasses.replace(TRAIN, objective=objective, accumulate=2))
        batch = make_batch(terms, 0)
        with jax.numpy_rank_promotion("raise"):
            step = make_step(small.decoder, terms, optimizer)
            new, _ = jax.eval_shape(step, state, small.params, batch)
        assert jax.tree.structure(new) == jax.tree.structure(state)
