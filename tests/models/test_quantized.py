"""Quantised kernels are those of `qwix`, near the weights; all else of a model is as it was."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import qwix
from safetensors.numpy import load_file

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.asker import LocalAsker
from antiimit_jax.evaluation.progress import silent
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.export.merged import write_merged
from antiimit_jax.language_model import load_language_model
from antiimit_jax.models import quantized
from antiimit_jax.models.known import find_known
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.peft import load_adapter, save_adapter
from antiimit_jax.models.weights import abstract_params, cast_matrices
from antiimit_jax.planning.memory import Estimator
from antiimit_jax.results import BASE
from antiimit_jax.run_config import from_dict
from antiimit_jax.scoring.asks import Ask, Scoring
from antiimit_jax.text.formats import Message
from tests.random_decoder import random_adapter
from tests.tiny_model import write_tiny_model

FORMATS = ("int8", "nf4")
FAMILIES = {
    "llama": {},
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]},  # biases
}
# Largest difference of log q, in nats, on the random models below.
WITHIN = {"int8": 0.3, "nf4": 2.0}
WORDS = ("river", "apple", "stone", "cloud", "winter")
ASKS = [Ask(messages=(Message("user", "Say one word."),), words=WORDS)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A model of each family, its layers far from the identity."""
    how = dict(hidden_size=64, intermediate_size=96, scale=0.2)
    place = tmp_path_factory.mktemp("models")
    return {
        name: write_tiny_model(place / name, **how, **changes) for name, changes in FAMILIES.items()
    }


def asker_of(lm) -> LocalAsker:
    runner = Runner(lm, jax.local_devices()[:1])
    how = dict(scoring=Scoring(), seed=0, progress=silent)
    return LocalAsker(runner=runner, variant=runner.base, stage=BASE, **how)


def log_q(asker: LocalAsker) -> np.ndarray:
    return np.log(asker.words(ASKS, what="words")[0].q)


@pytest.mark.parametrize("how", FORMATS)
def test_a_kernel_is_what_qwix_makes_of_the_stack_and_widens_as_its_own(how, monkeypatch):
    monkeypatch.setattr(quantized, "_AT_ONCE", 64 * 7)  # 40 outputs in parts of 7
    w = np.random.default_rng(0).standard_normal((3, 64, 40), np.float32)
    w[0, :, 3] = 0.0  # an output without weights has no scale of its own
    blocks, axes = ({1: 32}, [0, 2]) if how == "nf4" else ({}, [0, 2])
    kind = how if how == "nf4" else np.int8
    true = qwix.dequantize(qwix.quantize(w, kind, channelwise_axes=axes, tiled_axes=blocks))
    tree = {"layers": {"mlp": {"up": {"kernel": w, "bias": w[0]}}}, "embed": {"embedding": w[0]}}
    quantized.quantize_layers(tree, how)
    layer = tree["layers"]["mlp"]["up"]
    assert layer["bias"] is not layer["kernel"] and isinstance(
        tree["embed"]["embedding"], np.ndarray
    )
    for i in range(len(w)):
        kernel = jax.tree.map(lambda leaf, i=i: leaf[i], layer["kernel"])
        np.testing.assert_array_equal(kernel.widened(), true[i])
    np.testing.assert_array_equal(quantized.rounded_to(how, w), true)
    largest = np.abs(w.reshape(3, -1, 32, 40) if blocks else w[:, None]).max(axis=2, keepdims=True)
    error = np.abs(np.asarray(true) - w).reshape(3, -1, 32 if blocks else 64, 40)
    half_a_step = 0.5 / 127.5 if how == "int8" else (0.6961928 - 1.0) / -2
    assert (error <= 1.001 * half_a_step * largest).all() and error.max() > 0


@pytest.mark.parametrize("how", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_probabilities_stay_near_and_the_cost_is_that_of_the_weights(folders, family, how):
    path = str(folders[family])
    plain, held = (load_language_model(path, quantize=one) for one in ("none", how))
    asker = asker_of(held)
    found = log_q(asker)
    exact = log_q(asker_of(plain))
    assert 1e-4 < np.abs(found - exact).max() < WITHIN[how]
    rounded = asker.stored.changed(
        lambda params: jax.tree_util.tree_map_with_path(
            lambda p, w: quantized.rounded_to(how, w) if p[-1].key == "kernel" else w, params
        )
    )
    np.testing.assert_allclose(found, log_q(rounded), atol=1e-4)
    np.testing.assert_array_equal(log_q(asker.stored), exact)  # read again, not widened
    other = asker_of(load_language_model(path, quantize=how, dtype="bfloat16"))
    assert np.abs(log_q(other) - exact).max() < WITHIN[how] + 0.1


@pytest.mark.parametrize("how", FORMATS)
def test_a_device_holds_the_bytes_that_the_plan_counts(folders, how):
    lm = load_language_model(str(folders["llama"]), quantize=how, dtype="bfloat16")
    described = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), tree)
    assert described(abstract_params(lm.cfg, "bfloat16", how)) == described(lm.params)
    leaves = jax.tree.leaves(Runner(lm, jax.local_devices()[:1]).base.params)
    held = sum(leaf.addressable_data(0).on_device_size_in_bytes() for leaf in leaves)
    estimator = Estimator(find_known(str(folders["llama"])), "tpu")
    whole = from_dict({"dtype": "bfloat16"})
    run = dataclasses.replace(whole, quantize=how)
    assert estimator.weights(run) == held < estimator.weights(whole)


def test_a_cast_changes_what_quantised_matrices_are_widened_to_and_not_their_values(folders):
    lm = load_language_model(str(folders["llama"]), quantize="nf4")
    before = lm.params["layers"]["attn"]["q"]["kernel"]
    after = cast_matrices(lm.params["layers"], "bfloat16")["attn"]["q"]["kernel"]
    assert after.values is before.values and after.widened().dtype == "bfloat16"
    assert cast_matrices(lm.params["layers"], "float32")["attn"]["q"]["kernel"] is before


def test_an_adapter_of_a_quantised_model_is_merged_into_the_weights_of_the_files(folders, tmp_path):
    lm, lora = load_language_model(str(folders["llama"]), quantize="nf4"), LoraConfig(rank=2)
    save_adapter(tmp_path / "a", random_adapter(lm.cfg, lora, 1), lm.cfg, lora, "tiny")
    adapter = load_adapter(tmp_path / "a", lm.cfg)
    checkpoint = lm.source.open()
    (tmp_path / "out").mkdir()
    write_merged(tmp_path / "out", checkpoint, lm.cfg, adapter, "float32", "1GB", lambda n: None)
    name = "model.layers.1.mlp.down_proj.weight"
    pair = adapter.tree["layers"]["mlp"]["down"]
    exact = checkpoint.read(name) + adapter.scale * (pair["b"][1] @ pair["a"][1])
    np.testing.assert_allclose(
        load_file(tmp_path / "out" / "model.safetensors")[name], exact, atol=1e-6
    )


def test_what_cannot_be_held_so_is_refused_in_one_line(folders, tmp_path, monkeypatch):
    odd = str(write_tiny_model(tmp_path / "odd"))
    with pytest.raises(
        UserError, match=f"--model={odd}.*nf4.*32.*layers.mlp.down.kernel has 48.*int8"
    ):
        load_language_model(odd, quantize="nf4")
    with pytest.raises(UserError, match="quantize 'int4': one of none, int8, nf4"):
        load_language_model(odd, quantize="int4")
    with pytest.raises(UserError, match="quantize = 'int4': one of none, int8, nf4"):
        from_dict({"quantize": "int4"})
    monkeypatch.setattr(quantized.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"quantize=int8.*qwix.*antiimit_jax\[quant\]"):
        load_language_model(str(folders["llama"]), quantize="int8")


def test_nobody_imports_qwix_who_does_not_quantise():
    programs = "import launch.commands, antiimit_jax.study, antiimit_jax.planning.memory, sys"
    code = f"{programs}; sys.exit('qwix' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
