"""The named models: ids, pairs, and shapes whose totals are transformers' and the published."""

from __future__ import annotations

import copy
import dataclasses

import jax
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from antiimit_jax.models.catalog import CATALOG, alias_of, entry_of, pair_of, series_of
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.leaves import leaves_of

# What the study names, and the ids the releases bear.
STUDY = {
    "qwen2-7b": "Qwen/Qwen2-7B",
    "qwen2-7b-instruct": "Qwen/Qwen2-7B-Instruct",
    "mistral-7b": "mistralai/Mistral-7B-v0.3",
    "mistral-7b-instruct": "mistralai/Mistral-7B-Instruct-v0.3",
    "llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "llama-2-7b-chat": "meta-llama/Llama-2-7b-chat-hf",
    "llama-3-8b": "meta-llama/Meta-Llama-3-8B",
    "llama-3-8b-instruct": "meta-llama/Meta-Llama-3-8B-Instruct",
    "gemma-7b": "google/gemma-7b",
    "gemma-7b-it": "google/gemma-7b-it",
    "deepseek-coder-7b": "deepseek-ai/deepseek-coder-7b-base-v1.5",
    "deepseek-coder-7b-instruct": "deepseek-ai/deepseek-coder-7b-instruct-v1.5",
}
# Billions of parameters, as published (tied heads once; gemma-3-4b: the text part).
PUBLISHED = {
    "llama-2-7b": 6.738,
    "llama-2-13b": 13.016,
    "llama-3-8b": 8.030,
    "llama-3.1-8b": 8.030,
    "llama-3.2-1b": 1.236,
    "llama-3.2-3b": 3.213,
    "mistral-7b": 7.248,
    "mistral-7b-v0.1": 7.242,
    "qwen2-0.5b": 0.494,
    "qwen2-1.5b": 1.544,
    "qwen2-7b": 7.616,
    "qwen2.5-0.5b": 0.494,
    "qwen2.5-1.5b": 1.544,
    "qwen2.5-3b": 3.086,
    "qwen2.5-7b": 7.616,
    "qwen3-0.6b": 0.596,
    "qwen3-1.7b": 1.721,
    "qwen3-4b": 4.022,
    "qwen3-8b": 8.191,
    "gemma-2b": 2.506,
    "gemma-7b": 8.538,
    "gemma-2-2b": 2.614,
    "gemma-2-9b": 9.242,
    "gemma-3-1b": 1.000,
    "gemma-3-4b": 3.880,
    "deepseek-coder-1.3b": 1.346,
    "deepseek-coder-6.7b": 6.741,
    "deepseek-coder-7b": 6.910,
    "deepseek-llm-7b": 6.910,
    "olmo-2-1b": 1.485,
    "olmo-2-7b": 7.299,
    "smollm2-135m": 0.1345,
    "smollm2-360m": 0.3618,
    "smollm2-1.7b": 1.711,
    "smollm3-3b": 3.075,
    "phi-3-mini-4k-instruct": 3.821,
    "phi-3.5-mini-instruct": 3.821,
}
SHAPES = sorted(PUBLISHED)


def ours(alias: str) -> int:
    cfg = parse_config(CATALOG[alias].config, alias)
    total = 0
    for leaf in leaves_of(cfg):
        size = 1
        for side in leaf.shape(cfg):
            size *= side
        total += size * (cfg.n_layers if leaf.stacked else 1)
    return total


def theirs(alias: str) -> int:
    """transformers' own count of a model made from the same dict, on the meta device."""
    config = copy.deepcopy(dict(CATALOG[alias].config))
    config = config.get("text_config", config)
    config = AutoConfig.for_model(config.pop("model_type"), **config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return model.num_parameters()


@pytest.mark.parametrize("alias", SHAPES)
def test_parameters_add_up_as_transformers_and_the_release_say(alias):
    assert ours(alias) == theirs(alias)
    assert ours(alias) / 1e9 == pytest.approx(PUBLISHED[alias], abs=6e-4)


def test_every_shape_of_the_catalog_is_among_those_checked():
    checked = {str(ours_shape(alias)) for alias in SHAPES}
    assert {str(ours_shape(alias)) for alias in CATALOG} <= checked


def ours_shape(alias: str) -> list:
    cfg = parse_config(CATALOG[alias].config, alias)
    return [(leaf.path, leaf.shape(cfg), cfg.n_layers) for leaf in leaves_of(cfg)]


def test_the_twelve_of_the_study_map_to_their_releases():
    assert {alias: CATALOG[alias].hub_id for alias in STUDY} == STUDY


def test_every_alias_is_its_counterparts_counterpart_of_the_other_kind_and_the_same_shape():
    single = set()
    for alias, entry in CATALOG.items():
        if not entry.counterpart:
            single.add(alias)
            continue
        other = CATALOG[entry.counterpart]
        assert other.counterpart == alias
        assert {entry.prompt_format, other.prompt_format} == {"base", "chat"}
        assert ours_shape(alias) == ours_shape(entry.counterpart)
    assert single == {"mistral-7b-instruct-v0.2", "phi-3-mini-4k-instruct", "phi-3.5-mini-instruct"}
    for alias in single:
        assert "released" in CATALOG[alias].note


def test_every_version_of_an_ambiguous_name_has_its_own_alias():
    for short, versions in {
        "mistral-7b": ("v0.1", "v0.3"),
        "mistral-7b-instruct": ("v0.1", "v0.2", "v0.3"),
    }.items():
        ids = {CATALOG[f"{short}-{version}"].hub_id for version in versions}
        assert len(ids) == len(versions) and CATALOG[short].hub_id in ids
    for kind in ("", "-instruct"):
        assert CATALOG[f"deepseek-coder-6.7b{kind}"].config["vocab_size"] == 32256
        meant = CATALOG[f"deepseek-coder-7b{kind}"]
        assert meant.hub_id == CATALOG[f"deepseek-coder-7b{kind}-v1.5"].hub_id
        assert "deepseek-coder-6.7b" in meant.note


def test_what_the_hub_gates_is_marked():
    for alias, entry in CATALOG.items():
        gated = entry.hub_id.split("/")[0] in ("meta-llama", "google")
        assert gated == entry.gate.startswith("accept"), alias
        assert entry.licence, alias


def test_a_hub_id_finds_its_entry():
    assert entry_of("google/gemma-7b-it") is CATALOG["gemma-7b-it"]
    assert entry_of("google/gemma-70b") is None


def test_the_published_config_of_the_embedded_model_is_what_its_file_says(smollm2):
    published = parse_config(CATALOG["smollm2-135m-instruct"].config, "published")
    stored = float(np.float32(published.norm_eps))  # as GGUF keeps it
    assert dataclasses.replace(published, norm_eps=stored) == smollm2.cfg
    assert ours("smollm2-135m-instruct") == sum(x.size for x in jax.tree.leaves(smollm2.params))


def test_series_and_pairs_of_the_catalog():
    series: dict[str, list[str]] = {}
    for entry in dict.fromkeys(map(alias_of, CATALOG.values())):
        series.setdefault(series_of(CATALOG[entry]), []).append(entry)
    assert series["qwen3"][:2] == ["qwen3-0.6b-base", "qwen3-0.6b"]
    assert series["gemma"] == ["gemma-2b", "gemma-2b-it", "gemma-7b", "gemma-7b-it"]
    assert series["gemma-2"] == ["gemma-2-2b", "gemma-2-2b-it", "gemma-2-9b", "gemma-2-9b-it"]
    assert "deepseek-coder-7b-v1.5" not in series["deepseek-coder"]
    assert alias_of(CATALOG["mistral-7b"]) == "mistral-7b-v0.3"
    assert pair_of(CATALOG["mistral-7b-instruct"]) == "mistral-7b-v0.3"
    assert pair_of(CATALOG["mistral-7b-instruct-v0.2"]) == ""
    for alias in dict.fromkeys(map(alias_of, CATALOG.values())):
        entry = CATALOG[alias]
        if pair_of(entry):
            assert series_of(entry) == series_of(CATALOG[pair_of(entry)])
