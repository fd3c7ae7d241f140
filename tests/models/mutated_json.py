"""Seeded mutations of JSON files that a model or adapter brings, read as the programs read them.

    python -m tests.models.mutated_json KIND FIRST COUNT

Runs in a process of its own, with 1 GiB beyond what it needs at its start. Prints one JSON line a
failure: anything but a `UserError`, or more than five seconds. The last line counts the refusals.
"""

from __future__ import annotations

import copy
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from antiimit_jax.errors import UserError
from antiimit_jax.json_files import parse_json
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.peft_config import CONFIG_FILE, read_adapter_config
from antiimit_jax.models.tables import read_table
from antiimit_jax.text.tokenizer import load_tokenizer
from tests.random_decoder import byte_tokenizer

SECONDS, MEMORY = 5.0, 1 << 30
SCALARS = (None, True, False, 0, 1, -1, 3, 1e308, 1e-320, -0.5, 2**31, 2**62, 10**30, "", "x", "\0")
WORDS = "default linear yarn longrope llama3 gelu LORA all-linear layers Ġ ▁ <s> ByteLevel".split()
NESTED = ([], [[]], [None], ["a"], [1e308] * 4, {}, {"a": 1}, {"": [None]}, {"type": {}})
TEXTS = (
    "NaN",
    "1e999",
    "9" * 400,
    "9" * 5000,
    '"\\ud800"',
    "[" * 300,
    "[" * 100_000,
    "{",
    "",
    "\xff",
)
ADAPTER = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj", "v_proj"],
    "base_model_name_or_path": "base",
    "bias": "none",
    "init_lora_weights": True,
    "use_rslora": False,
    "rank_pattern": {"q_proj": 2},
    "alpha_pattern": {"v_proj": 8.0},
    "layers_to_transform": [0, 1],
    "layers_pattern": "layers",
    "exclude_modules": None,
    "modules_to_save": None,
}
PATTERNS = ("(", "(a+)+$", "x{65536}{65536}", "(?P<idx>x)", ".*", "q_proj\0", "(" * 3000, "[\\")
MODULES = [f"model.layers.{i}.self_attn.{side}_proj" for i in (0, 1, 10**400) for side in "qkv"]


def mutated(document: Any, rng: random.Random, pool: Sequence[Any] = ()) -> bytes:
    """A few changes of the tree, half of them to a value of the same type, and of its text.

    Args:
      pool: values beside those that any file may get.
    """
    tree = copy.deepcopy(document)
    pool = (*SCALARS, *WORDS, *NESTED, *pool)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holder, key = rng.choice(list(places(tree)))
        alike = [value for value in pool if type(value) is type(holder[key])]
        change = rng.random()
        if change < 0.1:
            del holder[key]
        elif change < 0.2:
            holder[key] = copy.deepcopy(rng.choice(list(places(tree)))[0])
        elif change < 0.25:
            holder[key] = [holder[key]]
        else:
            holder[key] = copy.deepcopy(rng.choice(alike if alike and change < 0.7 else pool))
        if not tree:
            break
    text = json.dumps(tree)
    if rng.random() < 0.15:
        at = rng.randrange(len(text))
        end = rng.choice((at, at + 1, len(text)))
        text = text[:at] + rng.choice(TEXTS) + text[end:]
    return text.encode("latin-1")


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(list or object, index or key) of all values; of a long list the first ones."""
    keys = list(tree) if isinstance(tree, dict) else range(min(len(tree), 6))
    for key in keys:
        yield tree, key
        if isinstance(tree[key], (dict, list)):
            yield from places(tree[key])


def config_case(folder: Path) -> Callable[[random.Random], None]:
    configs = [row["config"] for row in read_table("configs")]

    def read(rng: random.Random) -> None:
        data = mutated(rng.choice(configs), rng)
        parse_config(parse_json(data, source="config.json"), "config.json")

    return read


def adapter_case(folder: Path) -> Callable[[random.Random], None]:
    def read(rng: random.Random) -> None:
        pool = PATTERNS if rng.random() < 0.04 else ()  # matching them takes a process
        (folder / CONFIG_FILE).write_bytes(mutated(ADAPTER, rng, pool))
        config = read_adapter_config(folder)
        config.rank_and_scale(MODULES)
        config.not_targeted(MODULES)
        Path(config.base_model).resolve()

    return read


def tokenizer_case(folder: Path) -> Callable[[random.Random], None]:
    byte_tokenizer(["a small text of some words, and more"] * 4, 290).hf.save_pretrained(folder)
    document = json.loads((folder / "tokenizer.json").read_text())

    def read(rng: random.Random) -> None:
        (folder / "tokenizer.json").write_bytes(mutated(document, rng))
        tokenizer = load_tokenizer(folder)
        tokenizer.encode_text("A word: 3 naïve\n")
        tokenizer.encode_continued(" word")

    return read


CASES = {"config": config_case, "adapter": adapter_case, "tokenizer": tokenizer_case}


def main(kind: str, first: int, count: int) -> None:
    refused, report = 0, os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # where Rust prints what it ignores
    with tempfile.TemporaryDirectory() as scratch:
        read = CASES[kind](Path(scratch))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
        for seed in range(first, first + count):
            os.pwrite(3, b"%20d" % seed, 0)  # what was read when the process died
            began, fault = time.monotonic(), ""
            try:
                read(random.Random(seed))
            except UserError as error:
                refused += 1
                fault = "" if str(error).isprintable() else f"not one line: {error!r}"
            except BaseException as error:  # a Rust panic is none of Exception's children
                fault = f"{type(error).__name__}: {error}"[:300]
            if (took := time.monotonic() - began) > SECONDS:
                fault += f" {took:.1f} s"
            if fault:
                print(json.dumps({"seed": seed, "fault": fault}), file=report, flush=True)
    print(json.dumps({"refused": refused}), file=report, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
