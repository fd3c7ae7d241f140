"""Adapters in PEFT's format: opened by peft itself with equal logits, and read back from it."""

from __future__ import annotations

import json

import jax
import numpy as np
import peft
import pytest
import torch
import transformers

from antiimit_jax.models.families import FAMILIES
from antiimit_jax.models.lora import ALL_LINEAR, LoraConfig
from antiimit_jax.models.peft import load_adapter, save_adapter
from antiimit_jax.models.peft_write import write_adapter
from antiimit_jax.models.weights import find_model, load_config
from tests.models.adapter_peers import merged_model, random_tree
from tests.models.family_peers import CASES, random_model
from tests.models.llama_peer import assert_same_logits, load, our_logits, torch_logits, write

TOKENS = np.random.default_rng(1).integers(0, 47, (2, 9))
ONE_OF_EACH = [next(case for case in CASES if case.startswith(f"{name}:")) for name in FAMILIES]
LLAMA, PHI3 = ONE_OF_EACH[0], "phi3: fused projections"


def shape_of(case, folder):
    """Our shape of the random model of a case."""
    return load_config(find_model(str(write(random_model(case), folder / "model"))))


def assert_peft_agrees(case, folder, cfg, tree, scale):
    """Peft computes with the files what the tree means, and we read the files as that."""
    model = peft.PeftModel.from_pretrained(random_model(case), folder)
    theirs = torch_logits(model, TOKENS)
    assert_same_logits(torch_logits(merged_model(case, tree, scale), TOKENS), theirs)
    again = load_adapter(folder, cfg)
    assert_same_logits(torch_logits(merged_model(case, again.tree, again.scale), TOKENS), theirs)
    assert np.abs(theirs - torch_logits(random_model(case), TOKENS)).max() > 0.1
    return again


@pytest.mark.parametrize(
    "case, lora",
    [(case, LoraConfig(rank=4, alpha=6.0)) for case in ONE_OF_EACH]
    + [
        (LLAMA, LoraConfig(rank=3, alpha=3.0, targets=("down", "o"), first_layer=1)),
        (PHI3, LoraConfig(rank=2, alpha=3.0, targets=("q", "v", "up", "down"), last_layer=2)),
        (PHI3, LoraConfig(rank=3, alpha=4.0, targets=("k", "gate"))),
    ],
)
def test_peft_opens_our_adapter_with_the_same_logits(case, lora, tmp_path):
    cfg = shape_of(case, tmp_path)
    tree = random_tree(cfg, lora)
    save_adapter(tmp_path / "a", tree, cfg, lora, "base")
    again = assert_peft_agrees(case, tmp_path / "a", cfg, tree, lora.scale)
    assert again.scale == lora.scale and again.rank == lora.rank
    if set(lora.targets) == set(ALL_LINEAR):
        jax.tree.map(np.testing.assert_array_equal, again.tree, tree)


@pytest.mark.parametrize("alike", ["everywhere", "in one layer"])
def test_fused_projections_that_share_a_keep_their_rank(alike, tmp_path):
    cfg = shape_of(PHI3, tmp_path)
    lora = LoraConfig(rank=2, alpha=3.0, targets=("q", "k", "v"))
    tree = random_tree(cfg, lora)
    attn = tree["layers"]["attn"]
    for name in ("k", "v"):
        layers = slice(None) if alike == "everywhere" else slice(1)
        attn[name]["a"][layers] = attn["q"]["a"][layers]
    save_adapter(tmp_path / "a", tree, cfg, lora, "base")
    assert_peft_agrees(PHI3, tmp_path / "a", cfg, tree, lora.scale)
    pattern = json.loads((tmp_path / "a" / "adapter_config.json").read_text())["rank_pattern"]
    assert pattern == ({} if alike == "everywhere" else {"qkv_proj": 6})


ALL = dict(target_modules="all-linear")
MADE_BY_PEFT = [(case, ALL) for case in ONE_OF_EACH] + [
    (LLAMA, dict(target_modules=["q_proj", "up_proj", "down_proj"], use_rslora=True)),
    (
        LLAMA,
        ALL
        | dict(
            use_rslora=True,
            rank_pattern={"q_proj": 5, r"layers\.[02]\.mlp\.(up|down)_proj": 2, "o_proj": 1},
            alpha_pattern={"model.layers.1.self_attn.v_proj": 11, r".*mlp\..*": 2.5},
        ),
    ),
    (LLAMA, ALL | dict(rank_pattern={"proj": 6, r"q_pro.": 7, r"^model.layers.0.mlp.up_proj": 3})),
    (LLAMA, dict(target_modules=["v_proj", "gate_proj"], layers_to_transform=[0, 2])),
    (LLAMA, dict(target_modules=["k_proj"], layers_to_transform=1, layers_pattern="layers")),
    (LLAMA, dict(target_modules=["k_proj"], layers_to_transform=[1], layers_pattern=["h", "l.+s"])),
    (LLAMA, dict(target_modules=r".*\.(0|2)\.(self_attn\.(q|o)|mlp\.down)_proj")),
    (LLAMA, ALL | dict(exclude_modules=["q_proj", "model.layers.1.mlp.up_proj"])),
    (LLAMA, dict(target_modules=["q_proj", "o_proj"], exclude_modules=r".*layers\.1\..*")),
    (
        PHI3,
        dict(
            target_modules=["qkv_proj", "o_proj"],
            rank_pattern={"o_proj": 5},
            alpha_pattern={r"layers\.2\.self_attn\.qkv_proj": 9},
        ),
    ),
]


@pytest.mark.parametrize("case, kind", MADE_BY_PEFT)
def test_an_adapter_made_by_peft_opens_here_with_the_same_logits(case, kind, tmp_path):
    cfg = shape_of(case, tmp_path)
    torch.manual_seed(0)
    made = peft.get_peft_model(
        random_model(case),
        peft.LoraConfig(
            **{"r": 4, "lora_alpha": 6} | kind, init_lora_weights=False, task_type="CAUSAL_LM"
        ),
    )
    made.save_pretrained(tmp_path / "theirs")
    ours = load_adapter(tmp_path / "theirs", cfg)
    assert_peft_agrees(case, tmp_path / "theirs", cfg, ours.tree, ours.scale)
    # and what was read goes out again in our own words
    pairs = {name: pair for group in ours.tree["layers"].values() for name, pair in group.items()}
    (tmp_path / "ours").mkdir()
    write_adapter(
        tmp_path / "ours",
        pairs,
        cfg,
        rank=ours.rank,
        alpha=ours.scale * ours.rank,
        layers=range(cfg.n_layers),
        base_model="base",
    )
    assert_peft_agrees(case, tmp_path / "ours", cfg, ours.tree, ours.scale)


@pytest.mark.parametrize("case", [LLAMA, PHI3])
def test_our_own_forward_pass_gives_pefts_logits(case, tmp_path):
    """What a tree means is shown with torch above; here our decoder computes with it."""
    cfg, params = load(write(random_model(case), tmp_path / "model"))
    torch.manual_seed(0)
    kind = dict(r=4, lora_alpha=6, rank_pattern={"o_proj": 2}, alpha_pattern={"down_proj": 9})
    made = peft.get_peft_model(
        random_model(case), peft.LoraConfig(**kind | ALL, init_lora_weights=False)
    )
    made.save_pretrained(tmp_path / "a")
    ours = load_adapter(tmp_path / "a", cfg)
    assert_same_logits(
        our_logits(params, cfg, TOKENS, lora=ours.tree, lora_scale=ours.scale),
        torch_logits(made, TOKENS),
    )


def test_an_adapter_of_a_model_that_also_sees_opens_in_its_language_model(tmp_path):
    """Gemma-3's language model lies deeper there, and so do the names of its modules."""
    text = random_model("gemma3_text: two ropes")
    cfg = shape_of("gemma3_text: two ropes", tmp_path)
    vision = dict(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    both = transformers.Gemma3Config(
        text_config=text.config.to_dict(), vision_config=vision, mm_tokens_per_image=4
    )
    seeing = transformers.Gemma3ForConditionalGeneration(both).eval()
    seeing.model.language_model.load_state_dict(text.model.state_dict())
    torch.manual_seed(0)
    config = dict(r=3, lora_alpha=4, init_lora_weights=False)
    where = r".*language_model.*(q|down)_proj"
    made = peft.get_peft_model(seeing, peft.LoraConfig(**config, target_modules=where))
    made.save_pretrained(tmp_path / "a")
    ours = load_adapter(tmp_path / "a", cfg)
    mine = merged_model("gemma3_text: two ropes", ours.tree, ours.scale)
    assert_same_logits(torch_logits(mine, TOKENS), torch_logits(made, TOKENS))


def test_the_config_is_written_as_peft_writes_it(tmp_path):
    cfg = shape_of(LLAMA, tmp_path)
    lora = LoraConfig(rank=2, alpha=5.0)
    save_adapter(tmp_path / "a", random_tree(cfg, lora), cfg, lora, "org/name", "main")
    text = (tmp_path / "a" / "adapter_config.json").read_text()
    ours = json.loads(text)
    read = peft.PeftConfig.from_pretrained(tmp_path / "a")
    read.save_pretrained(tmp_path / "b")
    theirs = json.loads((tmp_path / "b" / "adapter_config.json").read_text())
    theirs["target_modules"].sort()
    assert {key: theirs[key] for key in ours} == ours
    assert text == json.dumps(ours, indent=2, sort_keys=True) + "\n"
    assert (ours["base_model_name_or_path"], ours["revision"]) == ("org/name", "main")
