"""L13: the model thinks before it says the word.

Thoughts are drawn from the model; after each of them the words' probabilities are read exactly.
Their mean over the thoughts is an unbiased estimate of the chances that thinking leads to, and the
control figures of the rung are computed on it: with few thoughts that each settle on a word, its
distance from the target is too large. `thought_tvd` is the mean distance after one thought: where
it is far above `tvd_res`, the draw takes place in the thought.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from antiimit_jax.metrics.control import tvd_res
from antiimit_jax.suites import control, suite
from antiimit_jax.suites.ladder import shares
from antiimit_jax.tasks.items import Item

THOUGHTS = "ladder_thoughts"
TABLES = {THOUGHTS: pa.schema([*shares.SCHEMA, pa.field("thought", pa.int32())])}
_WORD = "Word:"  # before which a thought ends


def decided(item: Item, thought: str) -> Item:
    """The same request, the thought said, and the word still open."""
    request, opened = item.messages
    before = thought.partition(_WORD)[0].rstrip()
    said = f"{opened.content}{before}\n{_WORD}"
    return dataclasses.replace(item, messages=(request, suite.Message("assistant", said)))


def thinking_answers(
    asker: suite.Asker, items: Sequence[Item], n_thoughts: int, max_tokens: int
) -> dict[str, list]:
    """The words' probabilities after each of so many thoughts, thought by thought."""
    prompts = [item.messages for item in items]
    told = asker.generate(prompts, what="thoughts", max_tokens=max_tokens, n=n_thoughts)
    asked = [
        decided(item, of_item[number].text)
        for number in range(n_thoughts)
        for item, of_item in zip(items, told)
    ]
    table = shares.answered(asker, asked, "ladder, after thoughts")
    rows = len(table["item"]) // n_thoughts
    return table | {"thought": [n for n in range(n_thoughts) for _ in range(rows)]}


def thinking_rows(table: suite.Columns, stage: str, boot: suite.Bootstrap) -> list[suite.Row]:
    """Control figures of the mean over thoughts, and the distance after one; of one stage."""
    shape = len(np.unique(table["thought"])), -1
    mixed = dict(suite.taken(table, table["thought"] == table["thought"][0]))
    for name in ("q", "residual"):
        mixed[name] = table[name].reshape(shape).mean(axis=0)
    items = control.results_of(table)
    where = dict(stage=stage, suite="ladder", split="L13", slice="all")
    distance = {"distance": tvd_res(items.target, items.q)}
    statistics = [suite.mean("thought_tvd", "distance")]
    rows = suite.rows_at(where, statistics, distance, items.cluster, boot)
    return shares.rung_rows(mixed, stage, boot) + rows
