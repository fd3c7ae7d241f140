"""The parts of an evaluation against numpy, scipy and the core itself."""

from __future__ import annotations

import jax
import ml_dtypes
import numpy as np
import pytest
from antiimit_jax.evaluation.config import ControlConfig, DriftConfig
from antiimit_jax.evaluation.control import VARIANTS, control, scoring_variants
from antiimit_jax.evaluation.drift import choose_prompts, drift, first_fit
from antiimit_jax.evaluation.residual import CATEGORIES, category, explore, take_apart
from scipy.special import log_softmax, rel_entr

from antiimit_jax.evaluation.progress import silent
from antiimit_jax.evaluation.rulers import RULERS, apply_ruler
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.models.decoder import Decoder, sequences
from antiimit_jax.scoring.trie import FormPath, WordQuery
from antiimit_jax.tasks.output_control import Mixture, evaluation_items
from antiimit_jax.tasks.templates import HELDOUT_TEMPLATES
from antiimit_jax.text.formats import neutral_tokens
from tests.tiny_model import write_tiny_model

CONTROL = ControlConfig(
    mixture=Mixture(
        templates=tuple(range(10)),
        ks=(2, 3),
        k_weights=(0.7, 0.3),
        shots=(0, 2),
        shot_weights=(0.7, 0.3),
    ),
    splits=("heldout_words", "heldout_both"),
    n_items=80,
    n_explored=6,
    n_variants=8,
    n_boot=50,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> LanguageModel:
    return load_language_model(str(write_tiny_model(tmp_path_factory.mktemp("m"), scale=0.3)))


@pytest.fixture(scope="module")
def runner(tiny) -> Runner:
    return Runner(tiny, jax.local_devices()[:2])


@pytest.fixture(scope="module")
def base(runner):
    return control(
        runner,
        runner.base,
        "base",
        CONTROL,
        forms="strict",
        terminators="standard",
        seed=0,
        prior=None,
        progress=silent,
    )


def test_main_figures_stand_on_plain_requests(base):
    result, prior = base
    items = evaluation_items(CONTROL.mixture, "heldout_words", CONTROL.n_items, 0)
    plain = [i for i in items if i.n_shots == 0 and i.template not in HELDOUT_TEMPLATES]
    count = lambda where: next(
        row["n"]
        for row in result.rows
        if (row["stage"], row["split"], row["slice"], row["metric"])
        == ("base", "heldout_words", where, "tvd_res")
    )
    assert count("all") == len(plain)
    assert count("k=2") == sum(len(i.words) == 2 for i in plain)
    other = [i for i in items if i.n_shots == 0 and i.template in HELDOUT_TEMPLATES]
    assert count("templates=heldout") == len(other)
    few = [i for i in items if i.n_shots == 2 and i.template not in HELDOUT_TEMPLATES]
    assert count("shots=2") == len(few)
    assert set(prior) == {row for row in result.tables["items"]["item"]}


def test_tvd_can_be_had_from_the_item_table_alone(base):
    result, _ = base
    table = result.tables["items"]
    tvd: dict[str, float] = {}
    for split, item, k, template, shots, target, q, residual in zip(
        *(
            table[c]
            for c in ("split", "item", "k", "template", "n_shots", "target", "q", "residual")
        )
    ):
        if (split, k, shots) == ("heldout_both", 2, 0) and template not in HELDOUT_TEMPLATES:
            tvd[item] = tvd.get(item, residual / 2) + abs(q - target) / 2
    row = next(
        row
        for row in result.rows
        if (row["stage"], row["split"], row["slice"], row["metric"])
        == ("base", "heldout_both", "k=2", "tvd_res")
    )
    assert row["value"] == pytest.approx(np.mean(list(tvd.values())), abs=1e-6)


def test_every_way_of_scoring_has_rows_and_wide_holds_narrow(runner):
    result = scoring_variants(
        runner, runner.base, "base", CONTROL, forms="strict", seed=0, progress=silent
    )
    mass = {r["slice"]: r["value"] for r in result.rows if r["metric"] == "mass"}
    assert set(mass) == {f"scoring={name}" for name in VARIANTS}
    narrow, standard, wide = (
        mass[f"scoring={name}"] for name in ("terminators_narrow", "standard", "terminators_wide")
    )
    assert narrow < standard < wide
    assert mass["scoring=forms_lenient"] > standard
    assert mass["scoring=tokenisations_8"] >= standard


def test_drift_equals_scipy_on_plain_logits(runner, tiny):
    cfg = DriftConfig(n_prompts=7)
    changed = apply_ruler("int8_channel", tiny.params)
    result = drift(
        runner, runner.with_params(changed), "ruler", cfg, seed=0, n_boot=0, progress=silent
    )
    table = result.tables["drift"]
    prompt = choose_prompts(7)[3]
    ids, first = neutral_tokens(tiny.tokenizer, prompt.messages, prompt.text, tiny.prompt_format)
    length = len(ids)
    forest = sequences(np.array([ids]), np.arange(length)[None], np.full((1, length), length))
    decoder, logs = Decoder(tiny.cfg), []
    for params in (tiny.params, changed):
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
    following = np.array(ids[first + 1 :])
    rows = np.arange(len(following))
    np.testing.assert_allclose(get("logp_base"), log_p[rows, following], atol=1e-4)
    np.testing.assert_allclose(get("logp_tuned"), log_t[rows, following], atol=1e-4)
    np.testing.assert_array_equal(get("top1_base"), log_p.argmax(-1))
    five = [set(np.argsort(-a)[:5]) & set(np.argsort(-b)[:5]) for a, b in zip(log_p, log_t)]
    np.testing.assert_allclose(get("top5_overlap"), [len(s) / 5 for s in five], atol=1e-6)


def test_the_base_does_not_drift_from_itself(runner):
    cfg = DriftConfig(n_prompts=5)
    result = drift(runner, runner.base, "same", cfg, seed=0, n_boot=0, progress=silent)
    values = {row["metric"]: row["value"] for row in result.rows if row["slice"] == "all"}
    assert values["kl_base_tuned"] == 0 and values["top1_agree"] == 1


def test_prompts_come_from_all_categories_in_turn_and_texts_fit_their_rows():
    prompts = choose_prompts(14)
    assert len({p.category for p in prompts[:7]}) == 7 == len({p.category for p in prompts[7:]})
    rows = first_fit([300, 200, 400, 100, 120], 512)
    assert sorted(i for row in rows for i in row) == [0, 1, 2, 3, 4]
    assert all(sum([300, 200, 400, 100, 120][i] for i in row) <= 512 for row in rows)


def test_rulers_change_matrices_by_what_they_say(tiny):
    kernel = lambda tree: np.asarray(tree["layers"]["mlp"]["up"]["kernel"])
    w = kernel(tiny.params)
    for name in RULERS:
        tree = apply_ruler(name, tiny.params)
        for norm in ("attn_norm", "mlp_norm"):
            np.testing.assert_array_equal(
                tree["layers"][norm]["scale"], tiny.params["layers"][norm]["scale"]
            )
        assert np.abs(kernel(tree) - w).max() > 0
        assert tree["embed"]["embedding"].shape == tiny.params["embed"]["embedding"].shape
    step = np.abs(w).max(axis=1, keepdims=True) / 127
    levels = kernel(apply_ruler("int8_channel", tiny.params)) / step
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    assert np.abs(levels).max() <= 127.001
    assert np.abs(levels * step - w).max() <= step.max() / 2 * 1.001
    np.testing.assert_array_equal(
        kernel(apply_ruler("bf16", tiny.params)), w.astype(ml_dtypes.bfloat16).astype(np.float32)
    )
    block = np.abs(kernel(apply_ruler("int8_block", tiny.params)) - w).mean()
    assert block <= np.abs(kernel(apply_ruler("int8_channel", tiny.params)) - w).mean()
    assert np.std(kernel(apply_ruler("noise", tiny.params)) - w) == pytest.approx(1e-5, rel=0.05)


def test_found_words_have_the_probability_that_the_core_gives_their_path(runner, tiny):
    items = evaluation_items(CONTROL.mixture, "heldout_words", 8, 0)[:3]
    searches = explore(runner, runner.base, [i.messages for i in items], terminators="standard")
    for item, search in zip(items, searches):
        found = search.words
        assert found and search.unvisited >= 0
        assert sum(w.p for w in found) + search.unvisited == pytest.approx(1, abs=1e-5)
        assert [w.p for w in found] == sorted((w.p for w in found), reverse=True)
        prompt = tiny.prompt(item.messages)
        paths = [tuple(tiny.tokenizer.encode_plain(w.text)) for w in found[:10]]
        texts = [tiny.tokenizer.decode(path) for path in paths]
        query = WordQuery(
            prompt.ids,
            tuple(FormPath("", path, n) for n, path in enumerate(dict.fromkeys(paths))),
            len(set(paths)),
        )
        (answer,) = runner.word_probs(runner.base, [query])
        mass = dict(zip(dict.fromkeys(paths), answer.path_mass))
        for word, path, text in zip(found, paths, texts):
            if text == word.text:
                assert word.p >= mass[path] * (1 - 1e-4)


def test_shares_of_the_residual_sum_to_one(runner):
    result = take_apart(
        runner, runner.base, "base", CONTROL, terminators="standard", seed=0, progress=silent
    )
    table = result.tables["residual"]
    assert set(table["category"]) == set(CATEGORIES)
    for forms in ("strict", "lenient"):
        shares = [s for s, f in zip(table["share"], table["forms"]) if f == forms]
        assert sum(shares) == pytest.approx(1, abs=1e-4) and min(shares) >= 0
    assert {"item", "prompt", "words", "targets", "q", "top"} <= result.samples[0].keys()


@pytest.mark.parametrize(
    "text, expected",
    [
        (' "apple', "quotes_markup"),
        ("**", "quotes_markup"),
        (" 75", "digits"),
        ("12.5%", "digits"),
        (" Sorry", "refusal"),
        ("I'm", "refusal"),
        (" I’m", "refusal"),
        ("", "end_of_turn"),
        ("\n", "end_of_turn"),
        (" banana", "other_words"),
        ("Ébène", "other_words"),
    ],
)
def test_words_fall_into_their_category(text, expected):
    assert category(text) == expected


def test_slices_of_results_without_plain_requests_hold_all(base, runner):
    mixture = Mixture(templates=HELDOUT_TEMPLATES, ks=(2,), k_weights=(1.0,))
    cfg = ControlConfig(mixture=mixture, splits=("train",), n_items=8, n_boot=0)
    result, _ = control(
        runner,
        runner.base,
        "tuned",
        cfg,
        forms="strict",
        terminators="standard",
        seed=0,
        prior={},
        progress=silent,
    )
    assert next(r["n"] for r in result.rows if r["slice"] == "all") == 8
