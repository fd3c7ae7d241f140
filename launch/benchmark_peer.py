"""The peer of the benchmark: the same work in transformers and PEFT, as it is commonly written.

Every token path of every word is a sequence of its own behind its prompt, padded on the left to its
batch; the head is applied to the last positions only (`logits_to_keep`). float32, SDPA.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.leaves import leaves_of
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.peft import save_adapter
from antiimit_jax.scoring.trie import WordQuery, event_parents
from antiimit_jax.training.config import TrainConfig

Tree = Any
Example = tuple[WordQuery, Sequence[float]]  # a question and the target shares of its words
VERSIONS = {module.__name__: module.__version__ for module in (torch, transformers, peft)}
_SHARE_OF_MEMORY = 0.35  # the rest is for gradients, logits and what allocators keep


def use_threads(count: int) -> None:
    """Torch's threads."""
    torch.set_num_threads(count)


def llama(cfg: ModelConfig, params: Tree) -> transformers.LlamaForCausalLM:
    """The transformers model with our weights."""
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=cfg.vocab_size,
            hidden_size=cfg.hidden_size,
            num_hidden_layers=cfg.n_layers,
            num_attention_heads=cfg.n_heads,
            num_key_value_heads=cfg.n_kv_heads,
            head_dim=cfg.head_dim,
            intermediate_size=cfg.mlp_size,
            max_position_embeddings=cfg.max_positions,
            rope_parameters={"rope_type": "default", "rope_theta": cfg.ropes[0].theta},
            rms_norm_eps=cfg.norm_eps,
            tie_word_embeddings=cfg.tied_head,
            attention_bias=cfg.qkv_bias,
            mlp_bias=cfg.mlp_bias,
            attn_implementation="sdpa",
            dtype=torch.float32,
        )
    )
    state = {}
    for leaf in leaves_of(cfg):
        array = params
        for key in leaf.path:
            array = array[key]
        for i in range(cfg.n_layers) if leaf.stacked else (0,):
            one = np.asarray(array[i] if leaf.stacked else array, np.float32)
            state[leaf.hf.format(i=i)] = torch.tensor(one.T if leaf.transposed else one)
    if cfg.tied_head:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model.eval()


class Scorer:
    """Word probabilities of a transformers model, with or without a PEFT adapter."""

    def __init__(self, model: torch.nn.Module, stops: np.ndarray) -> None:
        self.model = model
        self._stops = stops
        self._stop_ids = torch.from_numpy(np.flatnonzero(stops))

    def word_probs(self, queries: Sequence[WordQuery], size: int) -> list[np.ndarray]:
        """q of every query's words, in batches of `size` queries."""
        answers: list[np.ndarray] = []
        with torch.inference_mode():
            for start in range(0, len(queries), size):
                part = queries[start : start + size]
                counts = [query.n_words for query in part]
                answers += [q.numpy() for q in self.batch(part).split(counts)]
        return answers

    def batch(self, queries: Sequence[WordQuery]) -> torch.Tensor:
        """q of the words of all queries, one after the other; differentiable."""
        path, word, sign = [], [], []  # what is added to or taken from which word
        first_path = first_word = 0
        for query in queries:
            for z, parent in enumerate(event_parents(query.paths, self._stops)):
                path.append(first_path + z)
                word.append(first_word + query.paths[z].word)
                sign.append(1.0)
                if parent >= 0:
                    path.append(first_path + z)
                    word.append(first_word + query.paths[parent].word)
                    sign.append(-1.0)
            first_path += len(query.paths)
            first_word += query.n_words
        mass = self._path_log_mass(queries).exp()[torch.tensor(path)] * torch.tensor(sign)
        return torch.zeros(first_word).index_add(0, torch.tensor(word), mass)

    def _path_log_mass(self, queries: Sequence[WordQuery]) -> torch.Tensor:
        """log P(path, then any terminator | prompt) of every path of every query."""
        pairs = [(query.prompt_ids, path.tokens) for query in queries for path in query.paths]
        longest = max(len(prompt) + len(path) for prompt, path in pairs)
        keep = max(len(path) for _, path in pairs) + 1
        ids, mask = (torch.zeros(len(pairs), longest, dtype=torch.long) for _ in range(2))
        said = torch.full((len(pairs), keep - 1), -1)  # path tokens at the places that predict them
        for row, (prompt, path) in enumerate(pairs):
            ids[row, longest - len(prompt) - len(path) :] = torch.tensor((*prompt, *path))
            mask[row, longest - len(prompt) - len(path) :] = 1
            said[row, keep - 1 - len(path) :] = torch.tensor(path)
        logits = self.model(
            input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=keep
        ).logits  # [paths, keep, V]
        total = logits.logsumexp(-1)
        step = logits[:, :-1].gather(-1, said.clamp(min=0)[..., None])[..., 0] - total[:, :-1]
        stop = logits[:, -1, self._stop_ids].logsumexp(-1) - total[:, -1]
        return torch.where(said >= 0, step, 0.0).sum(-1) + stop


class Trainer:
    """The fine-tuning step in PEFT: forward KL on word probabilities, clip, AdamW."""

    def __init__(
        self,
        model: transformers.LlamaForCausalLM,
        stops: np.ndarray,
        adapter: Tree,
        cfg: ModelConfig,
        lora: LoraConfig,
        train: TrainConfig,
    ) -> None:
        """Starts from our adapter, handed over as PEFT's own files."""
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # between PEFT and transformers
            save_adapter(Path(folder) / "adapter", adapter, cfg, lora, "")
            tuned = peft.PeftModel.from_pretrained(
                model, str(Path(folder) / "adapter"), is_trainable=True
            )
        self._scorer = Scorer(tuned.train(), stops)
        self._clip = train.clip_norm
        named = [(name, p) for name, p in tuned.named_parameters() if p.requires_grad]
        self._trained = [p for _, p in named]
        decays = {"lora_A": 0.0, "lora_B": train.weight_decay}
        groups = [
            {"params": [p for name, p in named if side in name], "weight_decay": decay}
            for side, decay in decays.items()
        ]
        self._optimizer = torch.optim.AdamW(groups, betas=(0.9, train.adam_b2), fused=True)

    def step(self, examples: Sequence[Example], size: int, learning_rate: float) -> float:
        """One step over all examples in micro-batches of `size`; the loss before it."""
        loss = self.gradients(examples, size)
        torch.nn.utils.clip_grad_norm_(self._trained, self._clip)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self.forget()
        return loss

    def gradients(self, examples: Sequence[Example], size: int) -> float:
        """Adds up the gradients of the mean loss of all examples; the loss."""
        whole = 0.0
        for start in range(0, len(examples), size):
            loss = self._loss(examples[start : start + size]) / len(examples)
            loss.backward()
            whole += loss.item()
        return whole

    def forget(self) -> None:
        """Drops the gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def fits(self, examples: Sequence[Example], size: int) -> bool:
        """Whether a micro-batch of `size` keeps no more for its backward pass than memory holds."""
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        few = examples[:2]
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self._loss(few)
        for parameter in self._scorer.model.parameters():
            kept.pop(parameter.untyped_storage().data_ptr(), None)
        return sum(kept.values()) / len(few) * size < _SHARE_OF_MEMORY * _memory_available()

    def _loss(self, examples: Sequence[Example]) -> torch.Tensor:
        q = self._scorer.batch([query for query, _ in examples])
        target = torch.tensor([share for _, shares in examples for share in shares])
        return (torch.xlogy(target, target) - torch.xlogy(target, q)).sum()


def _memory_available() -> float:
    """Bytes that can still be had; infinity where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("inf")
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    return kilobytes[0] * 1024 if kilobytes else float("inf")
