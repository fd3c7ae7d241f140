"""A made-up run folder with hand-made behaviour, so that reports can be built without a model.

The base model hardly says the words at all, the tuned one follows the request with some bias
towards the ends and towards the first word, the placebo says the words and ignores the percentages.
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import numpy as np

from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.rows import baseline_rows, control_rows, standard_slices
from antiimit_jax.reporting import run_files

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
    few_slices: bool = False,
) -> Path:
    """Writes all files of a run; `hostile` is put into the model's name, a word and model text.

    heldout_words gets all slices, unless `few_slices`; the rest gets "all" and "k=2", to be quick.
    """
    rng = np.random.default_rng(seed)
    items = _items(rng, items_per_split, hostile)
    results = {stage: [_behave(stage, item, rng) for item in items] for stage in stages}
    rows = _control_rows(items, results, () if few_slices else ("heldout_words",))
    if drift:
        rows += _write_drift(folder, [s for s in stages if s != "base"], rng)
    config = {
        "model": {"name": "SmolLM2-135M-Instruct", "revision": None, "dtype": "float32"},
        "control": {"n_items": items_per_split, "forms": "strict", "shots": [0, 2, 11]},
        "train": {"steps": steps, "lr": 1e-3, "rank": 16, "objective": "kl", "anchor": 0.5},
        "seed": seed,
    }
    digest = run_files.write_config(folder, config)
    run_files.write_metrics(
        folder,
        {
            "model": f"SmolLM2-135M-Instruct{hostile}",
            "revision": "12fd25f77366fa6b3b4b768ec3050bf6",
            "adapter_sha256": "9f2c" * 16,
            "dtype": "float32",
            "seed": seed,
            "config_sha256": digest,
            "versions": {"jax": "0.10.0", "flax": "0.12.8", "antiimit_jax": "0.1.0"},
            "device": "cpu x2",
        },
        rows,
    )
    _write_items(folder, items, results)
    if adapters := [s for s in stages if s != "base"]:
        length = {"tuned": steps, "placebo": placebo_steps}
        _write_training(folder, {name: length[name] for name in adapters}, rng)
    _write_residual(folder, stages)
    _write_samples(folder, items, results, hostile)
    return folder


def _items(rng: np.random.Generator, count: int, hostile: str) -> list[dict]:
    items = []
    for split in SPLITS:
        levels = TRAINED if split in ("train", "heldout_words") else HELD_OUT
        for i in range(count):
            cluster = i // 4
            k = 2 if cluster % 4 else 3
            local = np.random.default_rng([cluster, SPLITS.index(split)])
            words = tuple(local.choice(WORDS, k, replace=False))
            if hostile and i == 0:
                words = (f"river{hostile}", *words[1:])
            words = words[::-1] if i % 2 else words
            p = float(rng.choice(levels))
            target = (p, 1 - p) if k == 2 else (p, 0.7 * (1 - p), 0.3 * (1 - p))
            shots = int((0, 2, 11)[i % 3])
            items.append(
                {
                    "split": split,
                    "item": f"{split}-{i:04d}",
                    "cluster": f"{split}/{cluster}",
                    "k": k,
                    "words": words,
                    "target": np.array(target),
                    "template": int(rng.integers(6)),
                    "n_shots": shots,
                    "shot_set": i % 8 if shots else -1,
                    "order": i % 4,
                    "tokens": int(1 + cluster % 3),
                    "prompt": _prompt(words, target, shots),
                    "last_shot": np.array((0.3, 0.7) if k == 2 else (0.2, 0.3, 0.5)),
                    "prior": 0.002 * np.array((0.7, 0.3) if k == 2 else (0.5, 0.3, 0.2)),
                }
            )
    return items


def _prompt(words: tuple[str, ...], target: tuple[float, ...], shots: int) -> str:
    shot = "User: Answer with one word: apple with 30%, stone with 70%.\nAssistant: stone\n\n"
    asked = ", ".join(f"{word} with {100 * share:.0f}%" for word, share in zip(words, target))
    return shot * shots + f"User: Answer with one word: {asked}.\nAssistant:"


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


def _control_rows(
    items: list[dict], results: dict[str, list[np.ndarray]], sliced: tuple[str, ...]
) -> list[dict]:
    rows = []
    for split in SPLITS:
        index = [i for i, item in enumerate(items) if item["split"] == split]
        chosen = [items[i] for i in index]
        for stage, given in results.items():
            answered = _as_results(chosen, [given[i] for i in index])
            slices = {
                name: mask
                for name, mask in standard_slices(answered).items()
                if name in ("all", "k=2") or split in sliced
            }
            rows += control_rows(answered, stage=stage, split=split, slices=slices, n_boot=60)
        rows += baseline_rows(answered, split=split, slices=slices, n_boot=60)
    return rows


def _as_results(items: list[dict], given: list[np.ndarray]) -> ControlResults:
    def padded(values: list) -> np.ndarray:
        return np.stack([np.pad(np.asarray(v, float), (0, 3 - len(v))) for v in values])

    def column(name: str) -> np.ndarray:
        return np.array([item[name] for item in items])

    last = padded([item["last_shot"] for item in items])
    last[column("n_shots") == 0] = np.nan
    return ControlResults(
        target=padded([item["target"] for item in items]),
        q=padded(given),
        k=column("k"),
        cluster=column("cluster"),
        shot_set=column("shot_set"),
        n_shots=column("n_shots"),
        template=column("template"),
        token_count=column("tokens"),
        last_shot=last,
        prior=padded([item["prior"] for item in items]),
    )


def _row(stage, suite, split, where, metric, value, half, n, clusters) -> dict:
    top = 1.0 if metric in ("top1_agree", "top5_overlap") else 99.0
    return {
        "stage": stage,
        "suite": suite,
        "split": split,
        "slice": where,
        "metric": metric,
        "value": float(value),
        "ci_low": float(value - half),
        "ci_high": float(min(top, value + half)),
        "n": n,
        "clusters": clusters,
    }


def _write_items(folder: Path, items: list[dict], results: dict) -> None:
    columns = defaultdict(list)
    for stage, given in results.items():
        for item, q in zip(items, given):
            for j, word in enumerate(item["words"]):
                record = {
                    name: item[name]
                    for name in (
                        "split",
                        "item",
                        "cluster",
                        "k",
                        "template",
                        "n_shots",
                        "shot_set",
                        "order",
                        "prompt",
                    )
                }
                record |= {
                    "stage": stage,
                    "suite": "control",
                    "prompt_ids": [1, 2, 3],
                    "word": word,
                    "word_index": j,
                    "form_count": 2,
                    "token_count": item["tokens"],
                    "target": item["target"][j],
                    "q": q[j],
                    "residual": 1 - q.sum(),
                    "prior": item["prior"][j],
                    "last_shot": item["last_shot"][j] if item["n_shots"] else math.nan,
                }
                for name, value in record.items():
                    columns[name].append(value)
    run_files.write_table(folder, "items", columns)


def _write_drift(folder: Path, stages: list[str], rng: np.random.Generator) -> list[dict]:
    levels = {
        "tuned": (0.009, 0.93),
        "placebo": (0.007, 0.94),
        "ruler:int8_channel": (0.0036, 0.938),
        "ruler:int8_block": (0.0013, 0.96),
        "ruler:bf16": (0.0014, 0.953),
    }
    columns, rows = defaultdict(list), []
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
                    }
                    for name, value in record.items():
                        columns[name].append(value)
        kl = np.array([v for v, s in zip(columns["kl_base_tuned"], columns["stage"]) if s == stage])
        figures = {
            "kl_base_tuned": kl.mean(),
            "kl_tuned_base": 1.1 * kl.mean(),
            "top1_agree": agree,
            "top5_overlap": 0.9,
            "delta_entropy": kl.mean(),
            "delta_ppl": 0.02,
        }
        rows += [
            _row(stage, "drift", "neutral", "all", metric, value, value * 0.05, kl.size, 24)
            for metric, value in figures.items()
        ]
        if stage in ("tuned", "placebo"):
            rows += [
                _row(stage, "drift", "neutral", "all", "leak_slope", 0.031, 0.012, 96, 24),
                _row(stage, "drift", "neutral", "all", "leak_rate", 0.02, 0.015, 96, 24),
            ]
    run_files.write_table(folder, "drift", columns)
    return rows


def _write_training(folder: Path, adapters: dict[str, int], rng: np.random.Generator) -> None:
    columns = defaultdict(list)
    for adapter, steps in adapters.items():
        for step in range(1, steps + 1):
            floor = 0.06 if adapter == "tuned" else 0.22
            kl = floor + 6 * math.exp(-step / 60) + abs(rng.normal(0, 0.03))
            record = {
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
            for name, value in record.items():
                columns[name].append(value)
    run_files.write_table(folder, "training", columns)


def _write_residual(folder: Path, stages: tuple[str, ...]) -> None:
    names = (
        "target_words",
        "other_case",
        "quotes_markup",
        "refusal",
        "digits",
        "other_words",
        "end_of_turn",
        "unexplored",
    )
    strict = {
        "base": (0.01, 0.02, 0.21, 0.09, 0.05, 0.31, 0.01, 0.30),
        "tuned": (0.962, 0.006, 0.004, 0.0, 0.001, 0.020, 0.002, 0.005),
        "placebo": (0.958, 0.007, 0.005, 0.0, 0.002, 0.020, 0.002, 0.006),
    }
    columns = defaultdict(list)
    for stage in stages:
        for forms in ("strict", "lenient"):
            shares = list(strict[stage])
            if forms == "lenient":
                shares[0], shares[1] = shares[0] + shares[1], 0.0
            for category, share in zip(names, shares):
                for name, value in {
                    "stage": stage,
                    "split": "heldout_words",
                    "forms": forms,
                    "category": category,
                    "share": share,
                    "n": 48,
                }.items():
                    columns[name].append(value)
    run_files.write_table(folder, "residual", columns)


def _write_samples(folder: Path, items: list[dict], results: dict, hostile: str) -> None:
    chosen = [i for i, item in enumerate(items) if item["split"] == "heldout_words"][:5]
    samples = []
    for stage, given in results.items():
        for i in chosen:
            item, q = items[i], given[i]
            top = [{"text": f" {w}", "p": float(x)} for w, x in zip(item["words"], q)]
            top += [{"text": f'"\n{hostile}', "p": 0.004}, {"text": "I'm sorry", "p": 0.002}]
            samples.append(
                {
                    "stage": stage,
                    "item": item["item"],
                    "prompt": item["prompt"] + hostile,
                    "words": list(item["words"]),
                    "targets": item["target"].tolist(),
                    "q": q.tolist(),
                    "top": sorted(top, key=lambda word: -word["p"]),
                }
            )
    run_files.write_samples(folder, samples)
