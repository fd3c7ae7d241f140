"""The control suite: every item's exact word probabilities, and the figures they amount to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from antiimit_jax.evaluation.config import ControlConfig
from antiimit_jax.evaluation.progress import Progress
from antiimit_jax.evaluation.runner import Runner, Variant, WordProbs
from antiimit_jax.evaluation.stage import StageResult
from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.intervals import Estimate
from antiimit_jax.metrics.rows import baseline_rows, control_rows, make_row, standard_slices
from antiimit_jax.models.weights import cast_matrices
from antiimit_jax.scoring.trie import WordQuery, word_query
from antiimit_jax.tasks.output_control import Item, evaluation_items
from antiimit_jax.tasks.templates import HELDOUT_TEMPLATES, plain_requests
from antiimit_jax.text.formats import Message

Prior = Mapping[str, np.ndarray]  # item -> the base's q [words] without percentages

_BASELINES_IN_FULL = ("all", "k=2")
_BASELINES_IN_SHORT = ("tvd_res", "mass", "corr", "corr_within", "skill_over_rank")
# Other ways to score the same items: (forms, terminators, tokenisations of a form).
VARIANTS = {
    "standard": ("", "standard", 1),
    "terminators_narrow": ("", "narrow", 1),
    "terminators_wide": ("", "wide", 1),
    "forms_lenient": ("lenient", "standard", 1),
    "tokenisations_8": ("", "standard", 8),
}


def control(
    runner: Runner,
    variant: Variant,
    stage: str,
    cfg: ControlConfig,
    *,
    forms: str,
    terminators: str,
    seed: int,
    prior: Prior | None,
    progress: Progress,
) -> tuple[StageResult, Prior]:
    """Scores all splits; measures the base's prior where it is not given, and returns it.

    Raises:
      UserError: an item longer than the model's window.
    """
    result = StageResult()
    items = {split: evaluation_items(cfg.mixture, split, cfg.n_items, seed) for split in cfg.splits}
    everything = [item for split in cfg.splits for item in items[split]]
    if prior is None:
        bar = progress(f"{stage}: without percentages", len(everything))
        prior = measure_prior(runner, everything, forms, terminators, bar)
    queries = [query(runner, item.messages, item.words, forms) for item in everything]
    bar = progress(f"{stage}: control", len(everything))
    answers = runner.word_probs(variant, queries, terminators=terminators, progress=bar)
    result.tables["items"] = item_columns(runner, stage, everything, queries, answers, prior)
    start = 0
    for split in cfg.splits:
        part = slice(start, start + len(items[split]))
        start = part.stop
        results = control_results(items[split], queries[part], answers[part], prior)
        chosen = dict(slices=item_slices(results), split=split, seed=seed, n_boot=cfg.n_boot)
        result.rows += control_rows(results, stage=stage, **chosen)
        if stage == "base":
            made = baseline_rows(results, interval_slices=_BASELINES_IN_FULL, **chosen)
            result.rows += [
                row
                for row in made
                if row["slice"] in _BASELINES_IN_FULL or row["metric"] in _BASELINES_IN_SHORT
            ]
    return result, prior


def item_slices(results: ControlResults) -> dict[str, np.ndarray]:
    """The standard slices over plain requests; other phrasings and few-shot turns by themselves.

    A split is about words and percentages, so its figures do not mix in what a held-out phrasing or
    a few examples change: that stands in "templates=heldout", "shots=N" and each template's slice.
    """
    standard = standard_slices(results)
    trained = ~np.isin(results.template, HELDOUT_TEMPLATES)
    bare = results.n_shots == 0
    kept = {"template": bare, "shots": trained}  # where a slice is about that very thing
    plain = plain_requests(results.template, results.n_shots)
    slices = {
        name: mask & kept.get(name.partition("=")[0], plain) for name, mask in standard.items()
    }
    pairs = results.k == 2
    slices |= {
        "templates=heldout": ~trained & bare,
        "k=2,templates=heldout": ~trained & bare & pairs,
        "k=2,few-shot": trained & ~bare & pairs,
    }
    return {name: mask for name, mask in slices.items() if mask.any()}


def query(
    runner: Runner,
    messages: tuple[Message, ...],
    words: Sequence[str],
    forms: str,
    max_tokenisations: int = 1,
) -> WordQuery:
    """The question a prompt and its words put to the model."""
    lm = runner.lm
    return word_query(
        lm.tokenizer, lm.prompt(messages), words, forms=forms, max_tokenisations=max_tokenisations
    )


def measure_prior(
    runner: Runner, items: Sequence[Item], forms: str, terminators: str, bar
) -> Prior:
    """The base's q of every item's words when asked without percentages; equal prompts once."""
    asked: dict[tuple, list[str]] = {}
    for item in items:
        asked.setdefault((item.prior_messages, item.words), []).append(item.item)
    queries = [query(runner, messages, words, forms) for messages, words in asked]
    answers = runner.word_probs(
        runner.base,
        queries,
        terminators=terminators,
        progress=lambda done: bar(done * len(items) // len(queries)),
    )
    return {name: a.q for names, a in zip(asked.values(), answers) for name in names}


def control_results(
    items: Sequence[Item], queries: Sequence[WordQuery], answers: Sequence[WordProbs], prior: Prior
) -> ControlResults:
    """Arrays [n, W] of items of one split, words in the order named."""
    width = max(len(item.words) for item in items)

    def padded(values: Sequence[float] | None) -> np.ndarray:
        row = np.zeros(width)
        row[: len(values) if values is not None else width] = np.nan if values is None else values
        return row

    return ControlResults(
        target=np.stack([padded(item.targets) for item in items]),
        q=np.stack([padded(answer.q) for answer in answers]),
        k=np.array([len(item.words) for item in items]),
        cluster=np.array([item.cluster for item in items]),
        shot_set=np.array([item.shot_set for item in items]),
        n_shots=np.array([item.n_shots for item in items]),
        template=np.array([item.template for item in items]),
        token_count=np.array([max(token_counts(query)) for query in queries]),
        last_shot=np.stack([padded(item.last_shot) for item in items]),
        prior=np.stack([padded(prior.get(item.item)) for item in items]),
    )


def token_counts(query: WordQuery) -> list[int]:
    """Tokens of each word's shortest form."""
    counts = [0] * query.n_words
    for path in query.paths:
        known = counts[path.word]
        counts[path.word] = min(known, len(path.tokens)) if known else len(path.tokens)
    return counts


def item_columns(
    runner: Runner,
    stage: str,
    items: Sequence[Item],
    queries: Sequence[WordQuery],
    answers: Sequence[WordProbs],
    prior: Prior,
) -> dict[str, list]:
    """Columns of items.parquet: one row an item and word."""
    records = []
    for item, asked, answer in zip(items, queries, answers):
        tokens = token_counts(asked)
        of_item = {
            "stage": stage,
            "suite": item.suite,
            "split": item.split,
            "item": item.item,
            "cluster": item.cluster,
            "k": len(item.words),
            "template": item.template,
            "n_shots": item.n_shots,
            "shot_set": item.shot_set,
            "order": item.order,
            "prompt": runner.lm.tokenizer.decode(asked.prompt_ids),
            "prompt_ids": list(asked.prompt_ids),
            "residual": answer.residual,
        }
        for j, word in enumerate(item.words):
            records.append(
                of_item
                | {
                    "word": word,
                    "word_index": j,
                    "form_count": sum(path.word == j for path in asked.paths),
                    "token_count": tokens[j],
                    "target": item.targets[j],
                    "q": float(answer.q[j]),
                    "prior": float(prior[item.item][j]) if item.item in prior else None,
                    "last_shot": item.last_shot[j] if item.last_shot else None,
                }
            )
    return {name: [record[name] for record in records] for name in records[0]}


def two_word_items(cfg: ControlConfig, seed: int, count: int) -> list[Item]:
    """The first two-word items without shots of the first split."""
    split = "heldout_words" if "heldout_words" in cfg.splits else cfg.splits[0]
    items = evaluation_items(cfg.mixture, split, cfg.n_items, seed)
    pairs = [
        item for item in items if len(item.words) == 2 and item.template not in HELDOUT_TEMPLATES
    ]
    by_order = sorted(
        pairs, key=lambda item: (item.n_shots, item.order)
    )  # one of each word set first
    return by_order[:count]


def scoring_variants(
    runner: Runner,
    variant: Variant,
    stage: str,
    cfg: ControlConfig,
    *,
    forms: str,
    seed: int,
    progress: Progress,
) -> StageResult:
    """How the figures move with what counts as a word: rows of slices "scoring=NAME"."""
    items = two_word_items(cfg, seed, cfg.n_variants)
    if not items:
        return StageResult()
    bar = progress(f"{stage}: other scoring rules", len(items) * len(VARIANTS))
    rows = []
    for name, (other_forms, terminators, tokenisations) in VARIANTS.items():
        queries = [
            query(runner, item.messages, item.words, other_forms or forms, tokenisations)
            for item in items
        ]
        answers = runner.word_probs(variant, queries, terminators=terminators, progress=bar)
        results = control_results(items, queries, answers, {})
        made = control_rows(
            results,
            stage=stage,
            split=items[0].split,
            slices={f"scoring={name}": np.ones(len(items), bool)},
            seed=seed,
            n_boot=cfg.n_boot,
        )
        rows += [row for row in made if row["metric"] in ("tvd_res", "mass", "mae_share")]
    return StageResult(rows=rows)


def precision_error(
    runner: Runner,
    variant: Variant,
    stage: str,
    cfg: ControlConfig,
    *,
    forms: str,
    seed: int,
    progress: Progress,
) -> StageResult:
    """The largest change of a share between float32 and bfloat16 weights: slice "dtype=bfloat16".

    Sources: MEASURES 3. Shares are read on all items, since a shift of mass is not one of share.
    """
    items = two_word_items(cfg, seed, cfg.n_variants)
    if not items:
        return StageResult()
    bar = progress(f"{stage}: precision", 2 * len(items))
    queries = [query(runner, item.messages, item.words, forms) for item in items]
    shares = []
    for dtype in ("float32", "bfloat16"):
        cast = dataclasses.replace(variant, params=cast_matrices(variant.params, dtype))
        answers = runner.word_probs(cast, queries, progress=bar)
        shares.append(np.stack([answer.q / max(answer.q.sum(), 1e-30) for answer in answers]))
    place = {
        "stage": stage,
        "suite": "control",
        "split": items[0].split,
        "slice": "dtype=bfloat16",
        "metric": "precision_error",
    }
    largest = Estimate(
        value=float(np.abs(shares[0] - shares[1]).max()), note="a maximum has no interval"
    )
    clusters = len({item.cluster for item in items})
    return StageResult(rows=[make_row(place, largest, len(items), clusters)])
