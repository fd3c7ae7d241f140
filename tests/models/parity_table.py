"""Prints the table of parity with transformers in antiimit_jax/models/README.md, a line a family.

    python -m tests.models.parity_table

Each figure is the largest difference of a logit from transformers', by the range of the true
logits, over random tiny checkpoints (`family_peers.CASES`) and sequences longer than every window
and original length; float32 weights and activations on a CPU.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import numpy as np

from antiimit_jax.models.families import FAMILIES
from tests.models.family_peers import CASES, random_model
from tests.models.llama_peer import load, our_logits, torch_logits, write


def worst_error(case: str, seeds: int = 3) -> float:
    """The largest relative difference over a few random models of one case."""
    errors = []
    for seed in range(seeds):
        model = random_model(case, seed)
        with tempfile.TemporaryDirectory() as folder:
            cfg, params = load(write(model, Path(folder)))
        tokens = np.random.default_rng(seed).integers(0, 47, (2, 23))
        true = torch_logits(model, tokens)
        errors.append(np.abs(our_logits(params, cfg, tokens) - true).max() / np.ptp(true))
    return float(max(errors))


def main() -> None:
    print("| family | switches tried | largest difference |\n|---|---|---|")
    for family in FAMILIES:
        cases = [case for case in CASES if case.startswith(f"{family}:")]
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            worst = max(worst_error(case) for case in cases)
        tried = "; ".join(case.split(": ", 1)[1] for case in cases)
        print(f"| {family} | {tried} | {worst:.0e} |", flush=True)


if __name__ == "__main__":
    main()
