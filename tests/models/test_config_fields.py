"""No field of a config is dead: change it, and we refuse or compute what transformers computes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from antiimit_jax.errors import UserError
from antiimit_jax.models.families import FAMILIES, parse_config
from tests.models.family_peers import CASES, random_model
from tests.models.llama_peer import assert_same_logits, load, our_logits, torch_logits, write
from tests.models.refusals import refused

# The last case of each family has as many switches on as it has.
RICH = {case.split(":")[0]: case for case in CASES}


def changes(value: Any) -> Iterator[Any]:
    """Other values of the same kind."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, 2 * value)
    elif isinstance(value, float):
        yield from (1.5 * value, 0.5 * value)
    elif isinstance(value, str):
        yield from ("gelu", "something_else", "bfloat16")
    elif isinstance(value, list):
        yield from ([_other(value[0]), *value[1:]], value[1:])
    elif value is None:
        yield from (3, True)


def _other(entry: Any) -> Any:
    if isinstance(entry, str):
        return "sliding_attention" if entry == "full_attention" else "full_attention"
    return 1 - entry if entry in (0, 1) else 2 * entry


def variants(config: dict, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict]]:
    """(path of the field, config with that one field changed)."""
    for key, value in config.items():
        if isinstance(value, dict):
            for path, inner in variants(value, (*prefix, key)):
                yield path, config | {key: inner}
        else:
            for other in changes(value):
                yield (*prefix, key), config | {key: other}


def _true_logits(model: torch.nn.Module, config: dict, tokens: np.ndarray) -> np.ndarray | None:
    """Of transformers' model of the same weights under another config; None: not even a config."""
    try:
        true = type(model.config).from_dict(config)
    except (StrictDataclassError, TypeError, AttributeError):
        return None
    again = type(model)(true).eval()
    again.load_state_dict(model.state_dict())
    again.set_attn_implementation("eager")
    return torch_logits(again, tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_field_is_refused_or_means_what_it_means_to_transformers(family, tmp_path):
    model = random_model(RICH[family])
    file = write(model, tmp_path) / "config.json"
    config = json.loads(file.read_text())
    tokens = np.random.default_rng(1).integers(0, 47, (2, 23))
    as_written, params = load(tmp_path)
    plain = our_logits(params, as_written, tokens)
    refusals, compared, live = set(), set(), set()
    for path, changed in variants(config):
        if path in compared:
            continue
        file.write_text(json.dumps(changed))
        try:
            cfg, params = load(tmp_path)
        except UserError:
            refusals.add(path)
            continue
        theirs = _true_logits(model, changed, tokens)
        if theirs is None:
            continue
        compared.add(path)
        ours = plain if cfg == as_written else our_logits(params, cfg, tokens)
        assert_same_logits(ours, theirs)
        if np.abs(ours - plain).max() > 1e-5 * np.ptp(plain):
            live.add(path)
    assert {("vocab_size",), ("intermediate_size",), ("model_type",)} <= refusals
    assert ("rms_norm_eps",) in live and any(path[-1] == "rope_theta" for path in live)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_key_that_no_family_has_is_refused_by_name(family, tmp_path):
    file = write(random_model(RICH[family]), tmp_path) / "config.json"
    config = json.loads(file.read_text())
    with refused("w/config.json", "clip_qkv", "8.0"):
        parse_config(config | {"clip_qkv": 8.0}, "w/config.json")
