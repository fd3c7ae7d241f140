"""The drift suite: next-token distributions on unrelated text, compared with the base's."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.config import DriftConfig
from antiimit_jax.evaluation.progress import Progress
from antiimit_jax.evaluation.runner import Runner, Variant
from antiimit_jax.evaluation.stage import StageResult
from antiimit_jax.metrics.drift import DriftTokens, drift_rows
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.scoring.texts import PackedTexts, expected, pack_texts, text_logits
from antiimit_jax.tasks.neutral import NeutralPrompt, load_neutral
from antiimit_jax.text.formats import neutral_tokens

Tree = Any
Array = jax.Array
_ROW_TOKENS = 512


class Differences(NamedTuple):
    """Per token of a row, [1, T] each; natural logarithms."""

    kl_base_tuned: Array
    kl_tuned_base: Array
    top1_base: Array  # int32
    top1_tuned: Array
    top5_overlap: Array
    entropy_base: Array
    entropy_tuned: Array
    logp_base: Array  # of the token that follows in the text
    logp_tuned: Array


def differences(decoder: Decoder, base: Tree, variables: Tree, row: PackedTexts) -> Differences:
    """Compares two models' next-token distributions over the full vocabulary, in float32.

    The first of `five` would be the argmax, but using top_k's result twice makes XLA's CPU backend
    sort the vocabulary: two hundred times slower.
    """
    x, y = text_logits(decoder, base, row), text_logits(decoder, variables, row)  # [1, T, V]
    all_x, all_y = jax.nn.logsumexp(x, axis=-1), jax.nn.logsumexp(y, axis=-1)  # [1, T]
    p, t, apart = jnp.exp(x - all_x[..., None]), jnp.exp(y - all_y[..., None]), x - y
    five = lambda logits: jax.lax.top_k(logits, 5)[1]
    following = jnp.roll(row.forest.tokens, -1, axis=-1)[..., None]
    of_next = lambda logits: jnp.take_along_axis(logits, following, axis=-1)[..., 0]
    return Differences(
        kl_base_tuned=expected(p, apart) - all_x + all_y,
        kl_tuned_base=all_x - all_y - expected(t, apart),
        top1_base=x.argmax(-1),
        top1_tuned=y.argmax(-1),
        top5_overlap=(five(x)[..., :, None] == five(y)[..., None, :]).any(-1).mean(-1),
        entropy_base=all_x - expected(p, x),
        entropy_tuned=all_y - expected(t, y),
        logp_base=of_next(x) - all_x,
        logp_tuned=of_next(y) - all_y,
    )


def drift(
    runner: Runner,
    variant: Variant,
    stage: str,
    cfg: DriftConfig,
    *,
    seed: int,
    n_boot: int,
    progress: Progress,
) -> StageResult:
    """Rows and tokens of one model against the base.

    Raises:
      UserError: a text longer than the model's window.
    """
    prompts = choose_prompts(cfg.n_prompts)
    lm = runner.lm
    texts = [neutral_tokens(lm.tokenizer, p.messages, p.text, lm.prompt_format) for p in prompts]
    size = row_tokens(texts)
    longest = max(len(ids) for ids, _ in texts)
    if longest > lm.cfg.max_positions:
        raise UserError(
            f"the longest unrelated text has {longest} tokens, the model's window is "
            f"{lm.cfg.max_positions}: lower drift.n_prompts or leave out the suite drift"
        )
    rows = first_fit([len(ids) for ids, _ in texts], size)
    batches = [pack_texts([texts[i] for i in row], size) for row in rows]
    arguments = (runner.base.variables, variant.variables)
    bar = progress(f"{stage}: unrelated text", len(prompts))
    columns: dict[str, list] = {name: [] for name in _COLUMNS}
    results = runner.map("drift", differences, variant, arguments, batches, pack_texts([], size))
    for row, result in zip(rows, results):
        at = 0
        for i in row:
            ids, first = texts[i]
            where = slice(at + first, at + len(ids) - 1)
            count = len(ids) - 1 - first
            columns["stage"] += [stage] * count
            columns["prompt_id"] += [prompts[i].id] * count
            columns["category"] += [prompts[i].category] * count
            columns["position"] += list(range(first, len(ids) - 1))
            columns["token"] += list(ids[first + 1 :])
            for name, values in result._asdict().items():
                columns[name] += values[0, where].tolist()
            at += len(ids)
        bar(len(row))
    tokens = DriftTokens(
        **{
            name: columns[name]
            for name in (
                "prompt_id",
                "category",
                "kl_base_tuned",
                "kl_tuned_base",
                "top5_overlap",
                "entropy_base",
                "entropy_tuned",
                "logp_base",
                "logp_tuned",
            )
        },
        top1_agree=np.equal(columns["top1_base"], columns["top1_tuned"]),
    )
    return StageResult(
        rows=drift_rows(tokens, stage=stage, seed=seed, n_boot=n_boot), tables={"drift": columns}
    )


_COLUMNS = ("stage", "prompt_id", "category", "position", "token", *Differences._fields)


def row_tokens(texts: Sequence[tuple[Sequence[int], int]]) -> int:
    """Tokens of a row of texts: the usual length, or the longest text."""
    return max(_ROW_TOKENS, *(len(ids) for ids, _ in texts))


def choose_prompts(count: int) -> list[NeutralPrompt]:
    """The first `count` drift prompts, taken from the categories in turn."""
    by_category: dict[str, list[NeutralPrompt]] = {}
    for prompt in load_neutral("drift"):
        by_category.setdefault(prompt.category, []).append(prompt)
    turns = itertools.zip_longest(*by_category.values())
    return [prompt for turn in turns for prompt in turn if prompt is not None][:count]


def first_fit(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices of texts into rows of `size` tokens, longest first."""
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, left in enumerate(room) if left >= lengths[i]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(size)
        rows[row].append(i)
        room[row] -= lengths[i]
    return rows
