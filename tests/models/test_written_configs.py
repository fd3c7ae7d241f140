"""Every config.json that transformers itself writes for our families is opened."""

import copy
import json

import pytest
import transformers

from antiimit_jax.errors import UserError
from antiimit_jax.models.families import parse_config
from tests.models.test_families import _old_dialect

CLASSES = "Llama Mistral Qwen2 Qwen3 Gemma Gemma2 Gemma3Text Olmo2 Olmo3 SmolLM3 Phi3".split()
GEMMA = transformers.GemmaConfig().to_dict()


@pytest.mark.parametrize("name", CLASSES)
def test_a_config_with_every_key_is_opened_in_both_dialects(name, tmp_path):
    made = getattr(transformers, f"{name}Config")(dtype="bfloat16")
    made._name_or_path = "a/model.gguf"  # as after loading one
    made.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    full = made.to_dict() | {"_name_or_path": "a/model.gguf", "_anything": {"of": "theirs"}}
    found = [
        parse_config(config, name) for config in (saved, full, _old_dialect(copy.deepcopy(saved)))
    ]
    assert found[0] == found[1] == found[2]
    assert found[0].hidden_size == made.hidden_size and found[0].n_layers == made.num_hidden_layers


@pytest.mark.parametrize("other", [None, "gelu_pytorch_tanh", "gelu"])
def test_gemma_may_name_its_activation_twice(other):
    named = GEMMA | {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": other}
    assert parse_config(named, "gemma").activation == parse_config(GEMMA, "gemma").activation


@pytest.mark.parametrize("other", ["silu", ["gelu"], 3])
def test_gemma_with_two_activations_is_refused(other):
    with pytest.raises(UserError, match="hidden_activation"):
        parse_config(GEMMA | {"hidden_activation": other}, "gemma")


@pytest.mark.parametrize("note", ["six", [], {"a": 1}, 0, -1, True, 2.5, None])
def test_keys_that_begin_with_an_underscore_are_never_an_error(note):
    """Not even the one that is read: the interval of Gemma-3's layers."""
    bare = transformers.Gemma3TextConfig(num_hidden_layers=12).to_dict()
    for key in ("layer_types", "_sliding_window_pattern", "sliding_window_pattern"):
        bare.pop(key, None)
    for key in ("_sliding_window_pattern", "_attn_implementation", "_name_or_path"):
        noted = parse_config(bare | {key: note}, "gemma3")
        assert noted == parse_config(bare, "gemma3")
    every_third = parse_config(bare | {"_sliding_window_pattern": 3}, "gemma3")
    assert every_third.layer_window == (0, 0, 1) * 4
