"""What a plan counts is what a real, tiny model holds: weights, training state, batch shapes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.asker import LocalAsker
from antiimit_jax.evaluation.programs import Work
from antiimit_jax.evaluation.progress import silent
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import load_language_model
from antiimit_jax.models.catalog import CATALOG
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.known import find_known, n_params
from antiimit_jax.models.leaves import leaves_of
from antiimit_jax.models.lora import init_adapter, train_mask
from antiimit_jax.models.weights import abstract_params, find_model, load_params
from antiimit_jax.planning.advice import joint_flags, judge
from antiimit_jax.planning.hardware import find_hardware
from antiimit_jax.planning.memory import Estimator, peak
from antiimit_jax.results import BASE
from antiimit_jax.run_config import RunConfig, from_dict, to_dict
from antiimit_jax.study import measure
from antiimit_jax.training.step import init_state, make_optimizer
from antiimit_jax.trees import flat, n_bytes, nested
from tests.tiny_model import write_tiny_model

FEW = {
    "control": {"splits": ["heldout_words"], "n_items": 8},
    "scoring": {"n_items": 4},
    "residual": {"n_items": 4},
    "ladder": {"rungs": ["L6", "L13"], "n_sets": 1, "n_thoughts": 2, "thought_tokens": 4},
    "seed_words": {"n_seeds": 1, "n_train_seeds": 0, "n_shots": 0, "most_paths": 20},
    "drift": {"n_prompts": 3, "rulers": ["bf16"], "n_task": 0, "n_continued": 0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def run() -> RunConfig:
    return from_dict(FEW).on("cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_abstract_weights_are_those_that_are_loaded(folder, dtype):
    cfg, params = load_params(find_model(str(folder)), jnp.dtype(dtype))
    described = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), tree)
    abstract = abstract_params(cfg, dtype)
    assert described(abstract) == described(params)
    assert n_bytes(abstract) == sum(leaf.nbytes for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    "alias",
    [
        "mistral-7b",
        "qwen2-0.5b",
        "qwen3-0.6b",
        "gemma-2b",
        "gemma-2-2b",
        "gemma-3-4b",
        "olmo-2-1b",
        "smollm3-3b",
        "phi-3-mini-4k-instruct",
    ],
)
def test_parameters_counted_on_the_decoder_are_those_of_the_leaf_table(alias):
    cfg = parse_config(CATALOG[alias].config, alias)
    table = sum(
        np.prod(leaf.shape(cfg), dtype=int) * (cfg.n_layers if leaf.stacked else 1)
        for leaf in leaves_of(cfg)
    )
    assert n_params(cfg) == table


def test_the_training_state_is_counted_as_it_is(folder, run):
    cfg, _ = load_params(find_model(str(folder)))
    adapter = init_adapter(jax.random.key(0), cfg, run.lora)
    optimizer = make_optimizer(run.train, run.train.steps, train_mask(adapter, cfg, run.lora))
    real = sum(leaf.nbytes for leaf in jax.tree.leaves(init_state(adapter, optimizer)))
    (planned,) = Estimator(find_known(str(folder)), "tpu").finetune(run).values()
    assert planned["adapter and Adam's moments"] == real
    floats = sum(leaf.size for leaf in jax.tree.leaves(adapter))
    assert real == pytest.approx(3 * 4 * floats, abs=64)


def test_no_batch_of_a_real_evaluation_is_larger_than_the_plan_says(folder, run, monkeypatch):
    lm = load_language_model(str(folder))
    seen: dict[str, list] = {}
    real = Runner.map

    def spy(self, fn, variant, arguments, batches, empty):
        seen.setdefault(fn.__name__, []).append(empty)
        return real(self, fn, variant, arguments, batches, empty)

    monkeypatch.setattr(Runner, "map", spy)
    runner = Runner(lm, jax.local_devices()[:1])
    suites = (
        "control",
        "scoring",
        "residual",
        "ladder",
    )  # all that the base asks without other weights
    asker = LocalAsker(
        runner=runner,
        variant=runner.base,
        stage=BASE,
        scoring=run.rule,
        seed=run.seed,
        eval_seed=run.eval_seed,
        progress=silent,
    )
    measure(asker, dataclasses.replace(run, suites=suites))
    work = Work(lm.tokenizer, lm.prompt_format)
    kinds = ("words", "first_tokens", "top_words", "generate")
    planned: dict[str, list] = {kind: [] for kind in kinds}
    for program in dataclasses.replace(run, suites=suites).programs():
        planned[program.kind] += work.batches(program)
    readouts = lambda batch: batch.read_at.size
    tokens = lambda batch: batch.forest.tokens.size + batch.forest.trunk_tokens.size
    for size in (readouts, tokens):
        assert max(map(size, seen["word_log_probs"])) == max(map(size, planned["words"]))
        assert max(map(size, seen["next_token_probs"])) == max(map(size, planned["first_tokens"]))
    assert max(map(tokens, seen["continuations"])) <= max(map(tokens, planned["top_words"]))
    (drawn,), (expected,) = seen["sampled"], planned["generate"]
    assert [a.shape for a in drawn] == [a.shape for a in expected]


def test_a_second_model_lies_beside_the_first_and_what_is_generated_is_a_phase(folder, run):
    estimator = Estimator(find_known(str(folder)), "cpu")
    cfg = estimator.cfg
    run = dataclasses.replace(run, suites=("drift",))
    own = {"n_continued": 2, "continued_tokens": 4, "rulers": ()}
    run = dataclasses.replace(run, drift=dataclasses.replace(run.drift, **own))
    alone = estimator.evaluate(run)
    assert list(alone) == ["drift", "drift, own answers"]
    kept = 2 * (2 + 2) * 32 * cfg.n_layers * cfg.n_kv_heads * cfg.head_dim  # of prompts and rows
    assert alone["drift, own answers"]["temporaries"] > 4 * kept
    both = estimator.evaluate(dataclasses.replace(run, against=str(folder)))
    second = {"second model (float32)": estimator.weights(run)}
    assert both == {name: parts | second for name, parts in alone.items()}
    of_self = {"tasks": ["token_count"], "n_other": 2, "near": "none"}
    asked = from_dict({"suites": ["drift", "introspection"], "introspection": of_self}).on("cpu")
    asked = dataclasses.replace(asked, drift=run.drift)
    wider = str(write_tiny_model(folder.parent / "wider", vocab_size=98304, scale=0.0))
    small, larger = (
        estimator.evaluate(dataclasses.replace(asked, against=name)) for name in ("", wider)
    )
    grows = {n: larger[n]["temporaries"] > small[n]["temporaries"] for n in small}
    assert grows == {"drift": False, "drift, own answers": False, "introspection": True}
    with pytest.raises(UserError, match="--against=no-such-model: not in the catalog"):
        estimator.evaluate(dataclasses.replace(run, against="no-such-model"))


def test_flags_are_added_until_it_fits_and_each_is_said_with_what_it_saves(folder, run):
    estimator = Estimator(find_known(str(folder)), "tpu")
    run = dataclasses.replace(run, suites=("drift",))
    phases = {name: sum(parts.values()) for name, parts in estimator.evaluate(run).items()}
    between = (phases["drift"] + phases["rulers"]) // 2
    machine = dataclasses.replace(find_hardware("v5e-1"), device_bytes=between, share=1.0)
    one = judge("evaluate", run, estimator, machine)
    assert not one["fits"] and one["rescued"] and one["flags"]
    need = one["peak"]
    for flag, size in zip(one["flags"], one["saved"]):
        assert need > between and size > 0
        need -= size
        field, _, value = flag.removeprefix("--config.").partition("=")
        value = [] if value == "()" else value
        run = from_dict(nested(flat(to_dict(run)) | {field: value}))
        assert need == peak(estimator.evaluate(run))
    assert need == one["peak_with_flags"] <= between
    roomy = dataclasses.replace(machine, device_bytes=phases["rulers"])
    easy = judge("evaluate", run, estimator, roomy)
    assert easy["fits"] and not easy["flags"]


def test_what_needs_more_than_jax_takes_names_the_variable(run, folder):
    class Halves(Estimator):
        """An evaluation takes two bytes, and one in bfloat16."""

        def evaluate(self, run):
            return {"all": {"weights": 1 if run.dtype == "bfloat16" else 2}}

        def weights(self, run):
            return 0

    def judged(share: float) -> dict:
        machine = dataclasses.replace(find_hardware("a100-40"), device_bytes=2, share=share)
        return judge("evaluate", run, Halves(find_known(str(folder)), "gpu"), machine)

    assert judged(1.0)["fits"] and not judged(1.0)["environment"]
    easy, tight = judged(0.6), judged(0.3)
    assert not easy["fits"] and easy["rescued"] and not easy["environment"]
    assert tight["rescued"] and "MEM_FRACTION" in tight["environment"]
    assert easy["flags"] == ["--config.dtype=bfloat16"] and easy["saved"] == [1]


def test_programs_of_one_run_have_one_set_of_flags(run):
    """Each field once; a mesh that was found is named where the flags leave it as it is."""
    half, rows, mesh = "--config.dtype=bfloat16", "--config.train.rows=1", "data:2,model:4"
    one = lambda flags, rescued=True: {"flags": flags, "rescued": rescued}
    copied, split = (dataclasses.replace(run, mesh=name) for name in ("data:8,model:1", mesh))
    assert joint_flags([one([]), one([])], split) == []
    assert joint_flags([one([half]), one([half, rows])], copied) == [half, rows]
    assert joint_flags([one([half]), one([rows], rescued=False)], copied) == [half]
    assert joint_flags([one([half]), one([])], split) == [half, f"--config.mesh={mesh}"]
    shared = "--config.mesh=data:1,model:8"
    assert joint_flags([one([half]), one([half, shared])], split) == [half, shared]


def test_weights_that_fill_a_device_are_hopeless(run):
    estimator = Estimator(find_known("llama-2-7b"), "tpu")
    run = dataclasses.replace(run, suites=("drift",))
    machine = dataclasses.replace(find_hardware("v2-8"), devices=1)
    one = judge("evaluate", run, estimator, machine)
    assert not one["fits"] and not one["rescued"] and not one["flags"]
    # Published: 12.55 GiB of weights in two bytes each.
    narrow = dataclasses.replace(run, dtype="bfloat16")
    assert estimator.weights(narrow) / 2**30 == pytest.approx(12.55, abs=0.01)


def test_devices_that_share_the_weights_hold_what_the_plan_says(folder, run):
    mesh = "data:1,model:8"
    lm = load_language_model(str(folder), dtype="bfloat16", mesh=mesh)
    runner = Runner(lm)
    first = lambda leaf: leaf.addressable_shards[0].data.nbytes
    held = sum(map(first, jax.tree.leaves(runner.base.params)))
    estimator = Estimator(find_known(str(folder)), "tpu", 8)
    copied = dataclasses.replace(run, dtype="bfloat16")
    shared = dataclasses.replace(copied, mesh=mesh)
    assert estimator.weights(shared) == held < estimator.weights(copied) / 7


def test_what_no_device_holds_alone_fits_when_all_share_it(run):
    estimator = Estimator(find_known("llama-2-7b"), "tpu", 8)
    run = from_dict(
        FEW | {"suites": ["drift"], "dtype": "bfloat16", "drift": FEW["drift"] | {"rulers": []}}
    )
    one = judge("evaluate", run, estimator, find_hardware("v2-8"))
    assert not one["fits"] and one["rescued"]
    assert one["flags"] == ["--config.mesh=data:1,model:8"]
    shared = dataclasses.replace(run, mesh="data:1,model:8")
    more = one["peak_with_flags"] - estimator.weights(shared)
    assert 0 < more < 0.2 * estimator.weights(run)
    less = {"dtype": "bfloat16", "remat": True, "rows": 1, "groups": 1}
    training = dataclasses.replace(shared, train=dataclasses.replace(run.train, **less))
    assert peak(estimator.finetune(training)) < find_hardware("v2-8").usable
