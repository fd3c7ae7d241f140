"""Every architecture's GGUF files give the logits of torch, and of transformers' own reader."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import transformers

from antiimit_jax.models.gguf_config import ARCHITECTURES as OURS
from tests.models.family_peers import CASES, random_model
from tests.models.gguf_files import write_gguf
from tests.models.llama_peer import assert_same_logits, load, our_logits, torch_logits

T = 23  # beyond every window and every original length of the cases
_GEMMA3 = dict(
    num_hidden_layers=7, query_pre_attn_scalar=10, sliding_window_pattern=6, layer_types=None
)
_SMOLLM3 = dict(
    num_hidden_layers=5, no_rope_layer_interval=4, no_rope_layers=None, use_sliding_window=False
)
_PERIOD = {"attention.sliding_window_pattern": 3}
_KINDS = ["full_attention", "sliding_attention", "sliding_attention"]

# case of family_peers -> (fields that GGUF can say, metadata beyond the converter's)
FILES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llama: grouped heads": ({}, {}),
    "llama: a key head each, biases": ({}, {}),
    "llama: llama3 rope": ({}, {}),
    "llama: linear rope": ({}, {}),
    "llama: yarn rope": ({}, {"rope.scaling.yarn_beta_fast": 32.0}),
    "llama: longrope, beyond it": (
        {
            "rope_parameters": CASES["llama: longrope, beyond it"][2]["rope_parameters"]
            | {"factor": 4.0}
        },
        {"rope.scaling.type": "longrope", "rope.scaling.original_context_length": 16},
    ),
    "mistral: no window": ({}, {}),
    "mistral: window": ({}, {"attention.sliding_window": 4}),
    "qwen2: no window": ({"tie_word_embeddings": True}, {}),
    "qwen3: norms of queries and keys": ({}, {}),
    "qwen3: window, biases": (dict(use_sliding_window=False), {}),
    "gemma: tied": (dict(rope_parameters={"rope_type": "default", "rope_theta": 1e4}), {}),
    "gemma2: soft caps": (
        dict(query_pre_attn_scalar=10, rope_parameters={"rope_type": "default", "rope_theta": 1e4}),
        {},
    ),
    "gemma3_text: two ropes": (_GEMMA3, {}),
    "gemma3_text: linear rope on full layers": (_GEMMA3, {}),
    "gemma3_text: final cap": (
        _GEMMA3 | dict(num_hidden_layers=3, layer_types=_KINDS[1:] + _KINDS[:1]),
        _PERIOD,
    ),
    "olmo2: norms after": ({}, {}),
    "smollm3: by interval, window": (_SMOLLM3, {}),
    "phi3: fused projections": ({}, {}),
    "phi3: window": ({}, {}),
    "phi3: longrope": ({}, {}),
    "phi3: partial rotation": ({}, {}),
}


def _tokens(shape=(2, T)):
    return np.random.default_rng(1).integers(0, 47, shape)


def _assert_read(model, file, tokens):
    cfg, params = load(file)
    assert_same_logits(our_logits(params, cfg, tokens), torch_logits(model, tokens))


@pytest.mark.parametrize("case", FILES)
def test_a_file_of_every_family_has_the_logits_of_torch(case, tmp_path):
    fields, metadata = FILES[case]
    model = random_model(case, **fields)
    _assert_read(model, write_gguf(model, tmp_path / "m.gguf", metadata=metadata), _tokens())


def test_every_architecture_that_is_read_has_a_file():
    written = {case.split(":")[0] for case in FILES} - {"mistral"}  # written as llama
    assert written == {architecture.model_type for architecture in OURS.values()}


@pytest.mark.parametrize("length", [16, T])
def test_longrope_without_attention_factor_has_the_one_of_its_lengths(length, tmp_path):
    model = random_model("phi3: longrope")
    metadata = {"rope.scaling.attn_factor": None}
    file = write_gguf(model, tmp_path / "m.gguf", metadata=metadata)
    _assert_read(model, file, _tokens((2, length)))


def test_the_largest_gemma_scales_queries_by_the_width_of_hidden_over_heads(tmp_path):
    model = random_model(
        "gemma2: soft caps",
        num_hidden_layers=46,
        query_pre_attn_scalar=24 // 4,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )
    _assert_read(model, write_gguf(model, tmp_path / "m.gguf"), _tokens())


@pytest.mark.parametrize(
    "metadata",
    [
        {"attention.sliding_window": None},
        {"attention.sliding_window": 0},
        {"attention.sliding_window_pattern": 1},
    ],
    ids=["no key", "zero", "every layer the last of its period"],
)
def test_a_gemma3_file_without_window_sees_everything_everywhere(metadata, tmp_path):
    model = random_model("gemma3_text: two ropes", **_GEMMA3 | {"layer_types": _KINDS[:1] * 7})
    _assert_read(model, write_gguf(model, tmp_path / "m.gguf", metadata=metadata), _tokens())


def test_a_gemma3_file_without_local_base_turns_sliding_layers_at_10000(tmp_path):
    rope = CASES["gemma3_text: two ropes"][2]["rope_parameters"]
    local = {"rope_type": "default", "rope_theta": 1e4}
    rope = rope | {"sliding_attention": local}
    model = random_model("gemma3_text: two ropes", **_GEMMA3, rope_parameters=rope)
    metadata = {"rope.freq_base_swa": None}
    _assert_read(model, write_gguf(model, tmp_path / "m.gguf", metadata=metadata), _tokens())


# What transformers reads of a file leaves much at its own defaults; the models stay within them.
_PLAIN = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
_WIDE = dict(head_dim=256, query_pre_attn_scalar=256, num_attention_heads=2, num_key_value_heads=1)
_GEMMA3_ROPE = {
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 37.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
}
PEERS = {
    "llama: grouped heads": {},
    "mistral: no window": {},
    "qwen2: no window": {},
    "qwen3: norms of queries and keys": dict(head_dim=128, num_key_value_heads=1),
    "gemma2: soft caps": _WIDE
    | _PLAIN
    | dict(attn_logit_softcapping=50.0, final_logit_softcapping=30.0),
    "gemma3_text: two ropes": _GEMMA3 | _WIDE | _GEMMA3_ROPE,
    "phi3: fused projections": {},
}


@pytest.mark.parametrize("case", PEERS)
def test_logits_are_those_of_transformers_own_gguf_reader(case, tmp_path):
    file = write_gguf(random_model(case, **PEERS[case]), tmp_path / "m.gguf", tokens=True)
    peer = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=file.name, dtype="float32", attn_implementation="eager"
    ).eval()
    _assert_read(peer, file, _tokens())
