"""The residual taken apart: what a model says where it does not say one of the asked words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from antiimit_jax.evaluation.config import ControlConfig
from antiimit_jax.evaluation.control import query, two_word_items
from antiimit_jax.evaluation.progress import Progress
from antiimit_jax.evaluation.runner import Runner, Variant
from antiimit_jax.evaluation.stage import StageResult
from antiimit_jax.parallel import place
from antiimit_jax.scoring.batching import pack_batches
from antiimit_jax.scoring.terminators import CJK, EMPHASIS, QUOTES, SENTENCE
from antiimit_jax.scoring.top_words import Search, TopWord, continuations

CATEGORIES = (
    "target_words",
    "other_case",
    "quotes_markup",
    "refusal",
    "digits",
    "other_words",
    "end_of_turn",
    "unexplored",
)
# How refusals begin; the first word of the answer is all that is read.
REFUSALS = frozenset("i i'm i'd i've sorry unfortunately apologies cannot can't as".split())
_MARKUP = frozenset(QUOTES + EMPHASIS + SENTENCE + CJK + "([{<#`|/\\-=+:&$@")
_ROUNDS = 5
_SAMPLES = 8  # prompts shown in samples.json
_TOP = 8  # words shown with each


def take_apart(
    runner: Runner,
    variant: Variant,
    stage: str,
    cfg: ControlConfig,
    *,
    terminators: str,
    seed: int,
    progress: Progress,
) -> StageResult:
    """Mean shares of what stands in the asked words' place, under strict and lenient forms.

    The asked words' shares are exact under both policies; the others come from the most probable
    words over the open vocabulary, and what the search did not reach is a share of its own.
    """
    items = two_word_items(cfg, seed, cfg.n_explored)
    if not items:
        return StageResult()
    bar = progress(f"{stage}: most probable words", len(items))
    asked = {
        forms: [query(runner, item.messages, item.words, forms) for item in items]
        for forms in ("strict", "lenient")
    }
    exact = {
        forms: runner.word_probs(variant, queries, terminators=terminators)
        for forms, queries in asked.items()
    }
    searches = explore(
        runner, variant, [item.messages for item in items], terminators=terminators, bar=bar
    )
    totals = {forms: dict.fromkeys(CATEGORIES, 0.0) for forms in exact}
    samples = []
    for i, (item, search) in enumerate(zip(items, searches)):
        strict, lenient = exact["strict"][i], exact["lenient"][i]
        shares = categorise(search.words, item.words)
        of_strict = shares | {
            "target_words": float(strict.q.sum()),
            "other_case": max(0.0, float(lenient.q.sum() - strict.q.sum())),
        }
        of_lenient = shares | {"target_words": float(lenient.q.sum())}
        for forms, found in (("strict", of_strict), ("lenient", of_lenient)):
            for name, share in found.items():
                totals[forms][name] += share / len(items)
        if i % max(1, len(items) // _SAMPLES) == 0 and len(samples) < _SAMPLES:
            samples.append(
                {
                    "stage": stage,
                    "item": item.item,
                    "prompt": runner.lm.tokenizer.decode(asked["strict"][i].prompt_ids),
                    "words": list(item.words),
                    "targets": list(item.targets),
                    "q": strict.q.tolist(),
                    "top": [{"text": w.text, "p": w.p} for w in search.words[:_TOP]],
                }
            )
    columns: dict[str, list] = {
        name: [] for name in ("stage", "split", "forms", "category", "share", "n")
    }
    for forms, shares in totals.items():
        shares["unexplored"] = max(0.0, 1.0 - sum(shares.values()))
        for category, share in shares.items():
            row = (stage, items[0].split, forms, category, share, len(items))
            for name, value in zip(columns, row):
                columns[name].append(value)
    return StageResult(tables={"residual": columns}, samples=samples)


def explore(
    runner: Runner,
    variant: Variant,
    prompts: Sequence[tuple],
    *,
    terminators: str,
    bar=lambda done: None,
    rounds: int = _ROUNDS,
) -> list[Search]:
    """Best-first search behind every prompt (messages), all prompts round by round together."""
    lm = runner.lm
    stops = lm.terminators.mask(terminators)
    arguments = (variant.variables, place(stops, runner.devices))
    searches = [Search(lm.prompt(messages), lm.tokenizer) for messages in prompts]
    for number in range(rounds):
        queries = [search.query() for search in searches]
        for work in pack_batches(queries, stops, devices=len(runner.devices)):
            results = runner.map(
                "continuations", continuations, variant, arguments, work.batches, work.empty
            )
            for rows, result in zip(work.queries, results):
                for b, members in enumerate(rows):
                    at = 0
                    for i in members:
                        part = slice(at, at + queries[i].n_words)
                        searches[i].learn(*(array[b, part] for array in result))
                        at = part.stop
        bar(len(searches) * (number + 1) // rounds - len(searches) * number // rounds)
    return searches


def categorise(words: Sequence[TopWord], asked: Sequence[str]) -> dict[str, float]:
    """Probability by category of everything found but the asked words, in any case."""
    shares = dict.fromkeys(CATEGORIES, 0.0)
    own = {word.casefold() for word in asked}
    for word in words:
        if word.text.strip().casefold() not in own:
            shares[category(word.text)] += word.p
    return shares


def category(text: str) -> str:
    """The category of one found word that was not asked for."""
    word = text.strip()
    if not word:
        return "end_of_turn"
    if word[0] in _MARKUP:
        return "quotes_markup"
    if re.fullmatch(r"[\d.,%]+", word):
        return "digits"
    if word.casefold().replace("’", "'") in REFUSALS:
        return "refusal"
    return "other_words"
