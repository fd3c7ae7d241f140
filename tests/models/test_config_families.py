"""Every key of a config.json is read, checked or knowingly ignored; faults stand in one line."""

from __future__ import annotations

import json

import pytest
from transformers import LlamaConfig

from antiimit_jax.models.families import parse_config
from tests.models.refusals import refused

GOOD = dict(
    model_type="llama",
    vocab_size=47,
    hidden_size=24,
    intermediate_size=36,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
)


def test_each_field_is_read_from_its_own_key():
    cfg = parse_config(
        GOOD | dict(head_dim=10, attention_bias=True, tie_word_embeddings=True), "config.json"
    )
    assert (cfg.family, cfg.vocab_size, cfg.hidden_size, cfg.mlp_size) == ("llama", 47, 24, 36)
    assert (cfg.n_layers, cfg.n_heads, cfg.n_kv_heads, cfg.head_dim) == (2, 4, 2, 10)
    assert (cfg.max_positions, cfg.ropes[0].theta, cfg.norm_eps) == (64, 10000.0, 1e-5)
    assert (cfg.tied_head, cfg.qkv_bias, cfg.mlp_bias) == (True, True, False)


def test_what_a_bare_config_leaves_out_is_what_transformers_takes():
    bare = {"model_type": "llama"} | {
        key: GOOD[key]
        for key in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        )
    }
    cfg, true = parse_config(bare, "config.json"), LlamaConfig(**bare)
    assert cfg.n_kv_heads == true.num_key_value_heads == 4
    assert cfg.head_dim == true.head_dim == 6
    assert cfg.norm_eps == true.rms_norm_eps
    assert cfg.ropes[0].theta == true.rope_parameters["rope_theta"]
    assert cfg.tied_head == true.tie_word_embeddings
    assert (cfg.qkv_bias, cfg.mlp_bias) == (true.attention_bias, true.mlp_bias)


def test_the_config_that_transformers_writes_is_understood():
    written = json.loads(LlamaConfig(**GOOD).to_json_string(use_diff=False))
    assert parse_config(written, "config.json").hidden_size == 24


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 16}
FAULTS = {
    "unknown key": (dict(sliding_window=4096), ["sliding_window", "4096"]),
    "key of another family": (dict(attn_logit_softcapping=50.0), ["attn_logit_softcapping"]),
    "unknown family": (dict(model_type="mamba"), ["mamba", "llama"]),
    "no family": (dict(model_type=None), ["model_type"]),
    "family that is no name": (dict(model_type=["llama"]), ["model_type"]),
    "unknown rope, old dialect": (
        dict(rope_scaling={"type": "su", "factor": 4.0}),
        ["rope", "su", "longrope"],
    ),
    "rope that lacks numbers": (
        dict(rope_scaling={"rope_type": "llama3", "factor": 8.0}),
        ["llama3", "low_freq_factor", "high_freq_factor"],
    ),
    "scaled rope without a factor": (
        dict(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}),
        ["yarn", "factor"],
    ),
    "negative factor": (dict(rope_scaling={"type": "linear", "factor": -4.0}), ["factor", "-4.0"]),
    "number of another rope": (
        dict(rope_scaling={"type": "linear", "factor": 4.0, "beta_fast": 3}),
        ["beta_fast"],
    ),
    "factors of the wrong length": (
        dict(rope_scaling={"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}),
        ["short_factor", "3"],
    ),
    "scaled rope beside plain one": (
        dict(
            rope_parameters={"rope_type": "default"}, rope_scaling={"type": "linear", "factor": 2.0}
        ),
        ["rope_parameters", "rope_scaling", "linear"],
    ),
    "rope a layer type": (
        dict(rope_parameters={"full_attention": {"rope_theta": 1e6}}),
        ["full_attention"],
    ),
    "partial rope": (
        dict(rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.5}),
        ["partial_rotary_factor"],
    ),
    "rope of no shape": (dict(rope_parameters="default"), ["rope_parameters"]),
    "two bases": (dict(rope_parameters={"rope_theta": 5e5}), ["rope_theta", "500000.0", "10000.0"]),
    "base zero": (dict(rope_theta=0), ["rope_theta"]),
    "base next to zero": (dict(rope_theta=1e-300), ["rope_theta", "1e-300"]),
    "base without end": (dict(rope_theta=float("inf")), ["rope_theta", "inf"]),
    "factor without end": (dict(rope_scaling={"type": "linear", "factor": 1e308}), ["factor"]),
    "bands turned round": (
        dict(rope_parameters=LLAMA3 | {"low_freq_factor": 4.0, "high_freq_factor": 4.0}),
        ["high_freq_factor", "low_freq_factor"],
    ),
    "nothing to stretch": (
        dict(head_dim=2, rope_scaling={"type": "dynamic", "factor": 2.0}),
        ["dynamic"],
    ),
    "eps beyond use": (dict(rms_norm_eps=1e30), ["rms_norm_eps", "1e+30"]),
    "eps that is none": (dict(rms_norm_eps=float("nan")), ["rms_norm_eps", "nan"]),
    "base null": (dict(rope_theta=None), ["rope_theta"]),
    "eps text": (dict(rms_norm_eps="small"), ["rms_norm_eps", "small"]),
    "eps null": (dict(rms_norm_eps=None), ["rms_norm_eps"]),
    "other activation": (dict(hidden_act="relu"), ["hidden_act", "relu"]),
    "endless layers": (dict(num_hidden_layers=10**9), ["num_hidden_layers"]),
    "switch that is a word": (dict(attention_bias="no"), ["attention_bias", "no"]),
    "tie that is a word": (dict(tie_word_embeddings="no"), ["tie_word_embeddings"]),
    "size text": (dict(hidden_size="24"), ["hidden_size", "24"]),
    "size zero": (dict(num_hidden_layers=0), ["num_hidden_layers", "0"]),
    "size true": (dict(vocab_size=True), ["vocab_size", "True"]),
    "heads that do not share": (dict(num_key_value_heads=3), ["num_key_value_heads", "3"]),
    "odd head size": (dict(head_dim=7), ["head_dim", "7"]),
    "odd head size by division": (dict(hidden_size=12), ["head_dim", "hidden_size"]),
    "heads that do not divide": (dict(hidden_size=25), ["head_dim", "hidden_size"]),
    "quantised": (
        dict(quantization_config={"quant_method": "gptq", "bits": 4}),
        ["quantization_config"],
    ),
    "code of its own": (dict(auto_map={"AutoModel": "evil.Model"}), ["auto_map"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_config_whose_meaning_is_not_certain_is_refused_by_name(fault):
    change, named = FAULTS[fault]
    with refused("some/config.json", *named):
        parse_config(GOOD | change, "some/config.json")


def test_all_faults_of_a_config_stand_in_one_message():
    config = {k: v for k, v in GOOD.items() if k not in ("vocab_size", "intermediate_size")}
    with refused("vocab_size", "intermediate_size", "hidden_size", "novel_gate", "linear"):
        parse_config(
            config | dict(hidden_size=-1, novel_gate=2, rope_scaling={"type": "linear"}), "x.json"
        )


@pytest.mark.parametrize("off", [None, False])
def test_an_unknown_switch_that_is_off_is_no_fault(off):
    assert parse_config(GOOD | {"use_novel_thing": off}, "x.json") == parse_config(GOOD, "x.json")
