"""A random model with an adapter of it, and its export."""

from __future__ import annotations

import numpy as np
import torch

from antiimit_jax.export.folder import Form, export
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.peft import save_adapter
from antiimit_jax.models.weights import find_model, load_config
from tests.models.adapter_peers import merged_model, random_tree
from tests.models.family_peers import CASES, random_model
from tests.models.llama_peer import torch_logits, write

TOKENS = np.random.default_rng(1).integers(0, 47, (2, 9))
FAMILIES = {case.split(":")[0]: case for case in reversed(CASES)}  # the first case of each
LORA = LoraConfig(rank=2, alpha=5.0)


def prepared(folder, case=FAMILIES["llama"], lora=LORA, dtype=torch.float32):
    """A model's folder, an adapter's, and torch's logits of both together."""
    write(random_model(case).to(dtype), folder / "model")
    cfg = load_config(find_model(str(folder / "model")))
    tree = random_tree(cfg, lora)
    save_adapter(folder / "a", tree, cfg, lora, "base")
    return torch_logits(merged_model(case, tree, lora.scale), TOKENS)


def exported(folder, out="out", *, adapter="a", form="hf", overwrite=False, **how):
    return export(
        find_model(str(folder / "model")),
        folder / adapter if adapter else None,
        folder / out,
        Form(name=form, **how),
        suites={},
        overwrite=overwrite,
    )
