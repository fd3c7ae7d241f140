"""Drift on unrelated text against scipy on plain logits, and the rulers beside it."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr

from antiimit_jax.evaluation.rulers import apply_ruler
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import load_language_model
from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.models.decoder import Decoder, sequences
from antiimit_jax.models.lora import LoraConfig, init_adapter
from antiimit_jax.reporting.rows import Rows
from antiimit_jax.results import BASE, Stage, adapter_stage, make_row
from antiimit_jax.scoring.differences import first_fit
from antiimit_jax.study import score
from antiimit_jax.suites import control, drift
from antiimit_jax.suites.drift import choose_prompts
from antiimit_jax.tasks.neutral import anchor_categories, load_neutral
from antiimit_jax.text.formats import neutral_tokens
from tests.suites.small import as_read, small_config, values_of

CFG = small_config().drift
LORA = LoraConfig(rank=2, alpha=6.0)
RULER = Stage(name="changed", kind="other")
TUNED = adapter_stage("tuned", 0)


def test_drift_equals_scipy_on_plain_logits(asker, runner, lm):
    changed = apply_ruler("int8_channel", lm.params)
    stage = dataclasses.replace(asker(RULER), variant=runner.with_params(changed))
    table = drift.measure(stage, CFG)["drift"]
    prompt = choose_prompts(7)[3]
    ids, first = neutral_tokens(lm.tokenizer, prompt.messages, prompt.text, lm.prompt_format)
    length = len(ids)
    forest = sequences(np.array([ids]), np.arange(length)[None], np.full((1, length), length))
    decoder, logs = Decoder(lm.cfg), []
    for params in (lm.params, changed):
        hidden = decoder.apply({"params": params}, forest)
        logits = decoder.apply({"params": params}, hidden, method="logits")
        logs.append(log_softmax(np.asarray(logits, np.float64)[0], axis=-1)[first:-1])
    log_p, log_t = logs
    p, t = np.exp(log_p), np.exp(log_t)
    mine = [i for i, name in enumerate(table["prompt_id"]) if name == prompt.id]
    assert [table["position"][i] for i in mine] == list(range(first, length - 1))
    assert [table["token"][i] for i in mine] == list(ids[first + 1 :])
    get = lambda name: np.array([table[name][i] for i in mine])
    np.testing.assert_allclose(get("kl_base_tuned"), rel_entr(p, t).sum(-1), atol=2e-6)
    np.testing.assert_allclose(get("kl_tuned_base"), rel_entr(t, p).sum(-1), atol=2e-6)
    np.testing.assert_allclose(get("entropy_base"), -(p * log_p).sum(-1), atol=1e-4)
    np.testing.assert_allclose(get("entropy_tuned"), -(t * log_t).sum(-1), atol=1e-4)
    following = np.array(ids[first + 1 :])
    rows = np.arange(len(following))
    np.testing.assert_allclose(get("logp_base"), log_p[rows, following], atol=1e-4)
    np.testing.assert_allclose(get("logp_tuned"), log_t[rows, following], atol=1e-4)
    np.testing.assert_array_equal(get("top1_base"), log_p.argmax(-1))
    five = [set(np.argsort(-a)[:5]) & set(np.argsort(-b)[:5]) for a, b in zip(log_p, log_t)]
    np.testing.assert_allclose(get("top5_overlap"), [len(s) / 5 for s in five], atol=1e-6)


def test_divergence_on_requests_equals_scipy_on_plain_logits(asker, runner, lm):
    changed = apply_ruler("int8_channel", lm.params)
    stage = dataclasses.replace(asker(RULER), variant=runner.with_params(changed))
    tables = as_read(drift.measure(stage, CFG))
    items = control.plain_pairs(CFG.control, 0, CFG.n_task)
    assert list(tables["drift_task"]["item"]) == [item.item for item in items]
    ids = lm.prompt(items[1].messages).ids
    n, decoder, logs = len(ids), Decoder(lm.cfg), []
    forest = sequences(np.array([ids]), np.arange(n)[None], np.full((1, n), n))
    for params in (lm.params, changed):
        hidden = decoder.apply({"params": params}, forest)
        logits = decoder.apply({"params": params}, hidden, method="logits")
        logs.append(log_softmax(np.asarray(logits, np.float64)[0, -1]))
    kl = rel_entr(*np.exp(logs)).sum()
    np.testing.assert_allclose(tables["drift_task"]["kl_task"][1], kl, atol=2e-6)
    (row,) = [r for r in drift.score(tables, CFG, Bootstrap(n_boot=0)) if r["split"] == "task"]
    assert row["metric"] == "kl_task" and row["n"] == CFG.n_task
    assert row["value"] == tables["drift_task"]["kl_task"].mean() > 0


def test_answers_of_the_base_are_read_and_not_made_again(asker):
    few = dataclasses.replace(CFG, rulers=(), n_prompts=1, n_task=0)
    base = drift.measure(asker(), few)
    base["drift_said"]["text"] = ("river stone", "")  # an empty answer has nothing to read
    table = drift.measure(asker(RULER, of_base=base), few)["drift_continued"]
    assert set(table["prompt_id"]) == {base["drift_said"]["prompt_id"][0]}
    assert not drift.measure(asker(), dataclasses.replace(few, n_continued=0))


def drifting(**kl: float) -> list[dict]:
    """Rows of stages that differ from the base by so many nats a token, give or take a fifth."""
    rng, n = np.random.default_rng(0), 600
    categories = {text.category for text in load_neutral("drift")}
    lacking = min(categories - set(anchor_categories()))
    same = {name: np.zeros(n) for name in drift.TABLES["drift"].names}
    same |= {"category": np.full(n, lacking), "prompt_id": np.arange(n) // 20}
    same |= {"position": np.arange(n) % 20}
    spread = rng.uniform(0.8, 1.2, n)
    parts = [
        same
        | {"stage": np.full(n, name), "kl_base_tuned": size * spread * rng.uniform(0.9, 1.1, n)}
        for name, size in kl.items()
    ]
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return drift.score({"drift": table}, CFG, Bootstrap(n_boot=200))


def leaking(slope: float, rate: float, n: int = 400) -> list[dict]:
    where = dict(stage="tuned", suite="leak", split="leak_mention", slice="all", n=n, clusters=25)
    return [
        make_row(metric=name, value=at, ci_low=at - 0.005, ci_high=at + 0.005, **where)
        for name, at in (("leak_slope", slope), ("leak_rate", rate))
    ]


@pytest.mark.parametrize(
    "kl, word", [(0.01, "below"), (0.02, "not told apart from"), (0.03, "above")]
)
def test_a_drift_is_told_from_the_ruler_by_the_difference_text_by_text(kl, word):
    rows = drifting(tuned=kl, placebo=0.005, **{"ruler:int8_channel": 0.02})
    assert {r["slice"] for r in rows if ":" in r["stage"]} > {"all", "anchor=lacks"}
    found = values_of(rows, slice="all", metric="kl_base_tuned", stage="diff:tuned-placebo")
    assert found["kl_base_tuned"] == pytest.approx(kl - 0.005, rel=0.05)
    (said,) = drift.questions(Rows(rows, [BASE, TUNED]))[0].found  # no word of a rule without leak
    assert said.startswith(f"drift {word} the ruler") and "text by text" in said


@pytest.mark.parametrize(
    "kl, leaks, word",
    [
        (0.01, (0.0, 0.0), "holds"),
        (0.03, (0.0, 0.0), "fails"),
        (0.01, (0.1, 0.0), "fails"),
        (0.01, (0.0, 0.1), "fails"),
        (0.01, (0.018, 0.0), "is open"),
        (0.01, (0.0, 0.0, 399), "is open"),
        (0.0201, (0.0, 0.0), "is open"),
    ],
)
def test_the_decision_rule_asks_for_little_drift_and_little_leak(kl, leaks, word):
    rows = drifting(tuned=kl, **{"ruler:int8_channel": 0.02}) + leaking(*leaks)
    said = drift.questions(Rows(rows, [BASE, TUNED]))[0].found[1]
    assert said.startswith(f"decision rule {word}: ") and "1 training seed of the 3" in said
    three = [adapter_stage("tuned", seed) for seed in range(3)]
    assert "seed" not in drift.questions(Rows(rows, [BASE, *three]))[0].found[1]


def test_the_base_does_not_drift_from_itself(asker):
    tables = as_read(drift.measure(asker(Stage(name="same", kind="other")), CFG))
    values = values_of(drift.score(tables, CFG, Bootstrap(n_boot=0)), stage="same", slice="all")
    assert values["kl_base_tuned"] == 0 and values["top1_agree"] == 1


def test_an_adapter_whose_b_is_zero_gives_the_numbers_of_the_base_to_the_bit(asker, runner, lm):
    adapter = init_adapter(jax.random.key(0), lm.cfg, LORA)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(adapter))  # a is not zero
    off = dataclasses.replace(asker(RULER), variant=runner.adapted(adapter, LORA.scale))
    tables = as_read(drift.measure(off, CFG))
    table = tables["drift"]
    assert len(tables["drift_task"]["kl_task"]) == CFG.n_task > 0
    assert not tables["drift_task"]["kl_task"].any()
    assert not table["kl_base_tuned"].any() and not table["kl_tuned_base"].any()
    assert (table["top5_overlap"] == 1).all()
    for name in ("top1", "entropy", "logp"):
        np.testing.assert_array_equal(table[f"{name}_tuned"], table[f"{name}_base"])


def test_intervals_are_resampled_as_often_as_the_run_says(asker):
    tables = as_read(drift.measure(asker(), CFG))
    rows = {n: score(tables, small_config(n_boot=n), []) for n in (0, 50)}
    at = lambda row: (row["split"], row["slice"])
    ends = {n: [row["ci_low"] for row in rows[n] if at(row) == ("neutral", "all")] for n in rows}
    assert len(ends[0]) == 6 * len(CFG.rulers)
    assert set(ends[0]) == {None} and None not in ends[50]


def test_prompts_come_from_all_categories_in_turn_and_texts_fit_their_sequences():
    prompts = choose_prompts(26)
    assert len({p.category for p in prompts[:13]}) == 13 == len({p.category for p in prompts[13:]})
    lengths = [300, 200, 400, 100, 120]
    packed = first_fit(lengths, 512)
    assert sorted(i for members in packed for i in members) == [0, 1, 2, 3, 4]
    assert all(sum(lengths[i] for i in members) <= 512 for members in packed)


def test_rulers_of_a_model_read_in_bfloat16_start_from_its_checkpoint(asker, model):
    narrow = Runner(load_language_model(str(model), dtype="bfloat16"), jax.local_devices()[:2])
    of_narrow = as_read(drift.measure(asker(runner=narrow), CFG))
    of_float32 = as_read(drift.measure(asker(), CFG))
    assert set(of_narrow["drift"]["stage"]) == {"ruler:int8_channel", "ruler:bf16"}
    assert set(of_narrow["drift"]["dtype"]) == {"float32"}
    kl, expected = (
        values_of(drift.score(tables, CFG, Bootstrap(n_boot=0)), stage="ruler:bf16", slice="all")[
            "kl_base_tuned"
        ]
        for tables in (of_narrow, of_float32)
    )
    assert kl > 0
    np.testing.assert_allclose(kl, expected, rtol=1e-3)


def test_a_run_with_quantised_weights_has_what_they_cost_beside_the_rulers(asker, model):
    held = Runner(load_language_model(str(model), quantize="int8"), jax.local_devices()[:2])
    cfg = small_config(model, quantize="int8").drift
    assert cfg.measured == ("int8_channel", "bf16", "own_int8")
    assert not dataclasses.replace(cfg, rulers=()).measured and CFG.measured == CFG.rulers
    cfg = dataclasses.replace(cfg, rulers=("int8_channel",), n_task=0)
    tables = as_read(drift.measure(asker(runner=held), cfg))
    rows = drift.score(tables, cfg, Bootstrap(n_boot=0))
    own, ruler = (
        values_of(rows, stage=f"ruler:{name}", split="neutral", slice="all")["kl_base_tuned"]
        for name in ("own_int8", "int8_channel")
    )
    # The same rounding, but for the embedding, which `qwix` leaves as it is.
    assert 0 < own < 1.5 * ruler
    read = drift.section({}, Rows(rows)).readings
    assert any("layers in int8" in line and f"{own:.4f}" in line for line in read)
