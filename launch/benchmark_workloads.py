"""What the benchmark asks: the standard workloads, as jobs for each side, and models on disk."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from antiimit_jax.language_model import LanguageModel
from antiimit_jax.models.config import ModelConfig, Rope
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.leaves import Leaf, leaves_of
from antiimit_jax.models.lora import LoraConfig, init_adapter
from antiimit_jax.models.peft import save_adapter
from antiimit_jax.scoring.terminators import build_terminators
from antiimit_jax.scoring.trie import WordQuery, word_query
from antiimit_jax.tasks.output_control import Item, Mixture, evaluation_items
from antiimit_jax.tasks.templates import TEMPLATES
from antiimit_jax.text.tokenizer import Tokenizer
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.step import make_schedule
from launch.benchmark_ours import batch_source
from launch.benchmark_worker import FORMS, OURS, SEED, TERMINATORS, Job

LORA = LoraConfig()
_SPLIT = "heldout_words"
_RATES = 64  # steps that a peer is told the learning rates of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is asked, how many items are evaluated, and how a training step is filled."""

    mixture: Mixture
    n_items: int
    what: tuple[str, ...] = ("evaluate",)  # by default
    groups: int = 1
    accumulate: int = 2
    rows: int = 4
    row_tokens: int = 128
    random_model: bool = False  # the shape of Llama 3.2 1B with random weights

    def train_config(self, dtype: str = "float32") -> TrainConfig:
        """Training as in the quickstart, without the anchor, which the peers do not have."""
        return TrainConfig(
            mixture=self.mixture,
            groups=self.groups,
            accumulate=self.accumulate,
            rows=self.rows,
            row_tokens=self.row_tokens,
            dtype=dtype,
            anchor_weight=0.0,
        )


def _even(values: tuple[int, ...]) -> tuple[float, ...]:
    return (1.0,) * len(values)


_KS, _SHOTS = (2, 3, 4, 5), (0, 2, 11)
WORKLOADS = {
    # eleven turns before the question, each of eight shot sets behind four items
    "given-fewshot": Workload(
        mixture=Mixture(shots=(11,)), n_items=32, what=("evaluate", "train"), rows=2
    ),
    "given-bare": Workload(
        mixture=Mixture(), n_items=64, what=("evaluate", "train"), rows=8, row_tokens=64
    ),
    "five-words": Workload(mixture=Mixture(ks=(5,)), n_items=32, row_tokens=192),
    "mixed": Workload(
        mixture=Mixture(
            templates=tuple(range(len(TEMPLATES))),
            ks=_KS,
            k_weights=_even(_KS),
            shots=_SHOTS,
            shot_weights=_even(_SHOTS),
        ),
        n_items=24,
        rows=2,
        row_tokens=192,
    ),
    "given-bare-1b": Workload(
        mixture=Mixture(), n_items=4, accumulate=1, rows=1, random_model=True
    ),
}
STANDARD = ("given-bare", "given-fewshot", "five-words", "mixed")
SHAPE_1B = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "n_layers": 16,
    "n_heads": 32,
    "n_kv_heads": 8,
    "head_dim": 64,
    "mlp_size": 8192,
    "max_positions": 8192,
    "tied_head": True,
    "ropes": (Rope(theta=500_000.0, dim=64),),
}


def evaluation_job(
    lm: LanguageModel, workload: Workload, folder: str, n_items: int | None = None
) -> Job:
    """Our job for a workload's evaluation; `for_peer` makes the peers' of it.

    Args:
      folder: where peers find the model.
    """
    count = n_items or workload.n_items
    found = evaluation_items(workload.mixture, _SPLIT, count, SEED)[:count]
    return Job(
        side=OURS,
        what="evaluate",
        model=folder,
        queries=[item_query(lm, item) for item in found],
        groups=_groups(found),
        stops=lm.terminators.mask(TERMINATORS),
        prompt_format=lm.prompt_format,
    )


def training_job(lm: LanguageModel, workload: Workload, folder: str, adapter: Path) -> Job:
    """Our job for a workload's training step; writes the adapter that all sides start from."""
    cfg = workload.train_config()
    if not adapter.exists():
        tree = jax.tree.map(np.array, init_adapter(jax.random.key(SEED), lm.cfg, LORA))
        save_adapter(adapter, tree, lm.cfg, LORA, "")
    examples = batch_source(lm, cfg).examples(0)
    schedule = make_schedule(cfg, cfg.steps)
    return Job(
        side=OURS,
        what="train",
        model=folder,
        queries=[query for query, _ in examples],
        shares=[shares for _, shares in examples],
        stops=lm.terminators.mask(TERMINATORS),
        prompt_format=lm.prompt_format,
        train=cfg,
        learning_rates=[float(schedule(step)) for step in range(_RATES)],
        adapter=str(adapter),
    )


def item_query(lm: LanguageModel, item: Item, forms: str = FORMS) -> WordQuery:
    """An item's question."""
    return word_query(lm.tokenizer, lm.prompt(item.messages), item.words, forms=forms)


def _groups(found: list[Item]) -> list[list[int]]:
    """Items whose prompts begin alike: of one phrasing, word count, and shot set."""
    key = lambda i: (found[i].template, len(found[i].words), found[i].n_shots, found[i].shot_set)
    order = sorted(range(len(found)), key=key)
    return [list(members) for _, members in itertools.groupby(order, key)]


def peer_folder(lm: LanguageModel, into: Path) -> str:
    """A folder that transformers can read the model from, written where there is none."""
    there = lm.source.path.is_dir()
    return str(lm.source.path if there else write_model(into, lm, lm.cfg.n_layers))


def write_model(folder: Path, lm: LanguageModel, n_layers: int) -> Path:
    """Writes the first layers of a plain llama in float32, as a Hugging Face folder."""
    cfg = dataclasses.replace(lm.cfg, n_layers=n_layers)
    tensors = {}
    for leaf, i, name in _names(cfg):
        array = lm.params
        for key in leaf.path:
            array = array[key]
        one = np.asarray(array[i] if leaf.stacked else array, np.float32)
        tensors[name] = np.ascontiguousarray(one.T if leaf.transposed else one)
    return _write(folder, cfg, tensors, lm.tokenizer)


def random_1b(lm: LanguageModel, folder: Path) -> LanguageModel:
    """A model of Llama 3.2 1B's shape with the tokenizer of `lm` and random weights in a folder.

    Its own `params` are left out: who needs them reads the folder.
    """
    cfg = dataclasses.replace(lm.cfg, **SHAPE_1B)
    if not folder.exists():
        rng = np.random.default_rng(SEED)
        tensors = {}
        for leaf, _, name in _names(cfg):
            array = rng.standard_normal(leaf.shape(cfg), np.float32) * 0.02
            tensors[name] = (array + 1.0 if "norm" in name else array).astype(ml_dtypes.bfloat16)
        _write(folder, cfg, tensors, lm.tokenizer)
    stops = build_terminators(lm.tokenizer, cfg.vocab_size)
    return dataclasses.replace(lm, cfg=cfg, params=None, terminators=stops)


def _names(cfg: ModelConfig) -> Iterator[tuple[Leaf, int, str]]:
    """Every tensor of a Hugging Face folder: its leaf, layer and name."""
    for leaf in leaves_of(cfg):
        for i in range(cfg.n_layers) if leaf.stacked else (0,):
            yield leaf, i, leaf.hf.format(i=i)


def is_plain_llama(cfg: ModelConfig) -> bool:
    """Whether `_hf_config` says all there is to say about a model."""
    return cfg.family == "llama" and parse_config(_hf_config(cfg), cfg.family) == cfg


def _hf_config(cfg: ModelConfig) -> dict[str, Any]:
    return {
        "model_type": cfg.family,
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": cfg.vocab_size,
        "hidden_size": cfg.hidden_size,
        "num_hidden_layers": cfg.n_layers,
        "num_attention_heads": cfg.n_heads,
        "num_key_value_heads": cfg.n_kv_heads,
        "head_dim": cfg.head_dim,
        "intermediate_size": cfg.mlp_size,
        "max_position_embeddings": cfg.max_positions,
        "rms_norm_eps": cfg.norm_eps,
        "rope_theta": cfg.ropes[0].theta,
        "tie_word_embeddings": cfg.tied_head,
        "hidden_act": "silu",
    }


def _write(folder: Path, cfg: ModelConfig, tensors: dict, tokenizer: Tokenizer) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(_hf_config(cfg)), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.hf.save_pretrained(folder)
    return folder
