"""A made-up run folder with hand-made behaviour, so that reports can be built without a model.

The base model hardly says the words at all, the tuned one follows the request with some bias
towards the ends and towards the first word, the placebo says the words and ignores the percentages.
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import numpy as np

from antiimit_jax.files import sha256
from antiimit_jax.reporting import run_files
from antiimit_jax.reporting.report import schemas
from antiimit_jax.results import stage_named
from antiimit_jax.run_config import from_dict, to_dict
from antiimit_jax.study import score
from antiimit_jax.suites import SUITES
from antiimit_jax.suites.residual import CATEGORIES as ANSWERS
from antiimit_jax.suites.scoring import RULES
from antiimit_jax.tasks.templates import TEMPLATES

STAGES = ("base", "tuned", "placebo")
SPLITS = ("heldout_words", "heldout_both", "heldout_percent", "train")
WORDS = (
    "river",
    "lantern",
    "walnut",
    "saddle",
    "copper",
    "meadow",
    "anchor",
    "violin",
    "pebble",
    "harvest",
    "thimble",
    "orchard",
    "falcon",
    "velvet",
    "quarry",
    "beacon",
    "juniper",
    "mortar",
    "cobalt",
    "thicket",
    "gravel",
    "tulip",
    "barley",
    "canyon",
)
TRAINED = tuple(p / 100 for p in range(5, 100, 5) if p not in (15, 35, 65, 85))
HELD_OUT = tuple(p / 100 for p in range(1, 100) if p % 5 or p in (15, 35, 65, 85))
CATEGORIES = ("prose", "questions", "code", "chat")


def write_synthetic_run(
    folder: Path,
    *,
    items_per_split: int = 120,
    stages: tuple[str, ...] = STAGES,
    seed: int = 0,
    hostile: str = "",
    drift: bool = True,
    steps: int = 900,
    placebo_steps: int = 900,
) -> Path:
    """Writes all files of a run; `hostile` is put into the model's name, a word and model text."""
    rng = np.random.default_rng(seed)
    items = _items(rng, items_per_split, hostile)
    results = {stage: [_behave(stage, item, rng) for item in items] for stage in stages}
    adapters = [s for s in stages if s != "base"]
    tables = {"items": _item_columns("control", items, results, rule="strict,standard")}
    pairs = [i for i, item in enumerate(items) if item["split"] == "heldout_words"]
    pairs = [i for i in pairs if items[i]["k"] == 2 and items[i]["n_shots"] == 0][:24]
    asked = [items[i] for i in pairs]
    given = {stage: [q[i] for i in pairs] for stage, q in results.items()}
    base = {"base": given["base"]} if "base" in given else {}
    tables["scoring"] = _joined(_item_columns("scoring", asked, given, rule=rule) for rule in RULES)
    tables["precision"] = _joined(
        _item_columns("precision", asked, base, dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    tables["residual"] = _residual(asked, stages)
    tables["residual_samples"] = _samples(asked[:5], given, hostile)
    if drift:
        tables["drift"] = _drift(adapters, rng)
    if adapters:
        length = {"tuned": steps, "placebo": placebo_steps}
        run_files.write_training(folder, _training({name: length[name] for name in adapters}, rng))
    known = schemas(SUITES)
    for name, columns in tables.items():
        run_files.write_table(folder, name, run_files.to_table(name, columns, known[name]))
    config = from_dict(
        {
            "model": "smollm2-135m-instruct",
            "dtype": "float32",
            "seed": seed,
            "n_boot": 60,
            "suites": ("control", "scoring", "precision", "residual", "drift"),
            "control": {"n_items": items_per_split},
            "train": {"steps": steps, "placebo_steps": placebo_steps},
        }
    )
    order = [stage_named(name) for name in stages]
    info = {
        "model": f"SmolLM2-135M-Instruct{hostile}",
        "revision": "12fd25f77366fa6b3b4b768ec3050bf6",
        "adapter_sha256": "9f2c" * 16,
        "stages": [vars(stage) for stage in order],
        "tables": {f"{name}.parquet": sha256(folder / f"{name}.parquet") for name in tables},
        "dtype": "float32",
        "seed": seed,
        "config_sha256": run_files.write_config(folder, to_dict(config)),
        "versions": {"jax": "0.10.0", "flax": "0.12.8", "antiimit_jax": "0.1.0"},
        "device": "cpu x2",
    }
    rows = score(run_files.read_tables(folder, known), config, order)
    run_files.write_metrics(folder, info, rows)
    return folder


def _joined(parts) -> dict[str, list]:
    parts = list(parts)
    return {name: sum((part[name] for part in parts), []) for name in parts[0]}


def _items(rng: np.random.Generator, count: int, hostile: str) -> list[dict]:
    items = []
    for split in SPLITS:
        levels = TRAINED if split in ("train", "heldout_words") else HELD_OUT
        for i in range(count):
            cluster, order = divmod(i, 4)  # a word set in both orders, its shares exchanged
            k = 3 if cluster % 4 == 3 else 2
            local = np.random.default_rng([cluster, SPLITS.index(split)])
            words = tuple(local.choice(WORDS, k, replace=False))
            if hostile and cluster == 0:
                words = (f"river{hostile}", *words[1:])
            p = float(local.choice(levels))
            target = (p, 1 - p) if k == 2 else (p, 0.7 * (1 - p), 0.3 * (1 - p))
            words = words[::-1] if order > 1 else words
            target = target[::-1] if order % 2 else target
            shots = {5: 2, 9: 11}.get(cluster % 12, 0)
            items.append(
                {
                    "split": split,
                    "item": f"{split}-{i:04d}",
                    "cluster": f"{split}/{cluster}",
                    "k": k,
                    "words": words,
                    "target": np.array(target),
                    "template": (0, 1, 2, 3, 5, 4)[cluster % 6],
                    "n_shots": shots,
                    "shot_set": cluster % 8 if shots else -1,
                    "order": order,
                    "tokens": int(1 + cluster % 3),
                    "prompt": _prompt((0, 1, 2, 3, 5, 4)[cluster % 6], words, target, shots),
                    "last_shot": np.array((0.3, 0.7) if k == 2 else (0.2, 0.3, 0.5)),
                    "prior": 0.002 * np.array((0.7, 0.3) if k == 2 else (0.5, 0.3, 0.2)),
                }
            )
    return items


def _prompt(template: int, words: tuple[str, ...], target: tuple[float, ...], shots: int) -> str:
    ask = lambda *asked: f"User:\n{TEMPLATES[template].request(*asked)}\nAssistant:"
    shot = ask(("apple", "stone"), (30, 70)) + " stone\n\n"
    return shot * shots + ask(words, [round(100 * share) for share in target])


def _behave(stage: str, item: dict, rng: np.random.Generator) -> np.ndarray:
    target, heldout = item["target"], item["split"] != "train"
    if stage == "base":
        mass = float(rng.beta(0.6, 60))
        logits = rng.normal(0, 1.0, len(target)) - [0, 0.8, 1][: item["k"]]
    elif stage == "placebo":
        mass, logits = float(rng.beta(60, 2)), rng.normal(0, 0.45, len(target))
    else:
        mass, noise = float(rng.beta(60, 2)), 0.35 + 0.3 * heldout + 0.1 * item["tokens"]
        logits = 1.1 * np.log(target) + rng.normal(0, noise, len(target))
        logits[0] += 0.2
    share = np.exp(logits - logits.max())
    return mass * share / share.sum()


def _item_columns(
    suite: str, items: list[dict], results: dict, *, rule: str = "", dtype: str = "float32"
) -> dict[str, list]:
    columns = {name: [] for name in SUITES["control"].ITEMS.names}
    for stage, given in results.items():
        for item, q in zip(items, given):
            record = {name: item[name] for name in columns if name in item} | {
                "stage": stage,
                "suite": suite,
                "template_heldout": TEMPLATES[item["template"]].heldout,
                "prompt_ids": [1, 2, 3],
                "form_count": 2,
                "token_count": item["tokens"],
                "residual": 1 - q.sum(),
                "scoring": rule,
                "dtype": dtype,
                "facets": "{}",
            }
            for j, word in enumerate(item["words"]):
                of_word = record | {
                    "word": word,
                    "word_index": j,
                    "target": item["target"][j],
                    "q": q[j] * (1.01 if dtype == "bfloat16" and j == 0 else 1),
                    "prior": item["prior"][j] if stage == "base" else None,
                    "last_shot": item["last_shot"][j] if item["n_shots"] else None,
                }
                for name, value in of_word.items():
                    columns[name].append(value)
    return columns


def _drift(stages: list[str], rng: np.random.Generator) -> dict[str, list]:
    levels = {
        "tuned": (0.009, 0.93),
        "placebo": (0.007, 0.94),
        "ruler:int8_channel": (0.0036, 0.938),
        "ruler:int8_block": (0.0013, 0.96),
        "ruler:bf16": (0.0014, 0.953),
    }
    columns = defaultdict(list)
    for stage in [s for s in levels if s in stages or ":" in s]:
        level, agree = levels[stage]
        for c, category in enumerate(CATEGORIES):
            for prompt in range(6):
                for position in range(12):
                    kl = level * (0.5 + 0.4 * c) * rng.gamma(0.7, 1.4)
                    record = {
                        "stage": stage,
                        "prompt_id": f"{category}-{prompt}",
                        "category": category,
                        "position": position,
                        "token": 7,
                        "kl_base_tuned": kl,
                        "kl_tuned_base": 1.1 * kl,
                        "top1_base": 7,
                        "top1_tuned": 7 if rng.random() < agree else 8,
                        "top5_overlap": 0.9,
                        "entropy_base": 2.0,
                        "entropy_tuned": 2.0 + kl,
                        "logp_base": -2.0,
                        "logp_tuned": -2.0 - kl,
                        "dtype": "float32",
                    }
                    for name, value in record.items():
                        columns[name].append(value)
    return columns


def _training(adapters: dict[str, int], rng: np.random.Generator) -> list[dict]:
    log = []
    for adapter, steps in adapters.items():
        for step in range(1, steps + 1):
            floor = 0.06 if adapter == "tuned" else 0.22
            kl = floor + 6 * math.exp(-step / 60) + abs(rng.normal(0, 0.03))
            log.append(
                {
                    "adapter": adapter,
                    "step": step,
                    "loss": kl + 0.01,
                    "kl_fwd": kl,
                    "residual": 0.03 + 0.95 * math.exp(-step / 40),
                    "anchor_kl": 0.004 * rng.gamma(4, 0.3),
                    "grad_norm": rng.gamma(3, 0.5),
                    "lr": 1e-3 * min(1, step / 50) * (1 - step / 1000),
                    "tokens_per_s": 900.0,
                    "skipped": step == 101,
                }
            )
    return log


def _residual(items: list[dict], stages: tuple[str, ...]) -> dict[str, list]:
    strict = {  # of ANSWERS
        "base": (0.01, 0.02, 0.03, 0.09, 0.21, 0.05, 0.42, 0.10, 0.06, 0.01),
        "tuned": (0.962, 0.006, 0.008, 0.0, 0.004, 0.001, 0.014, 0.002, 0.001, 0.002),
        "placebo": (0.958, 0.007, 0.009, 0.0, 0.005, 0.002, 0.014, 0.002, 0.001, 0.002),
    }
    columns = defaultdict(list)
    for stage in stages:
        for forms in ("strict", "lenient"):
            shares = list(strict[stage])
            if forms == "lenient":
                shares[0], shares[1] = shares[0] + shares[1], 0.0
            for item in items:
                for category, share in zip(ANSWERS, shares):
                    record = {name: item[name] for name in ("split", "item", "cluster")} | {
                        "stage": stage,
                        "forms": forms,
                        "category": category,
                        "share": share,
                    }
                    for name, value in record.items():
                        columns[name].append(value)
    return columns


def _samples(items: list[dict], results: dict, hostile: str) -> dict[str, list]:
    columns = defaultdict(list)
    for stage, given in results.items():
        for item, q in zip(items, given):
            top = [(f" {w}", float(x)) for w, x in zip(item["words"], q)]
            top += [(f'"\n{hostile}', 0.004), ("I'm sorry", 0.002)]
            texts, shares = zip(*sorted(top, key=lambda word: -word[1]))
            record = {
                "stage": stage,
                "item": item["item"],
                "prompt": item["prompt"] + hostile,
                "words": list(item["words"]),
                "targets": item["target"].tolist(),
                "q": q.tolist(),
                "top_text": list(texts),
                "top_p": list(shares),
            }
            for name, value in record.items():
                columns[name].append(value)
    return columns
