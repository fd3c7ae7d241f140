"""Drift: does the model still behave normally elsewhere? Next-token predictions on unrelated text.

    python -m launch.evaluate --adapter=DIR --suites=drift --workdir=runs/drift

Every stage is compared with the base, token by token, over the full vocabulary; of 302 texts as
many are asked as `n_prompts` says. Rows by category, and by whether training's anchor has texts of
the category (slices "anchor=has" and "anchor=lacks"). On requests of output control (the split
"task") `kl_task` is the same divergence, KL(base || stage), of the answer's first token: how much
there was to change, which predicts forgetting (arXiv 2509.04259). At the base stage the rulers are
measured instead: known small changes of the base's own weights, so that a drift has something to
stand beside (`evaluation.rulers`), and in a run with quantised weights what holding them so costs.

The same figures on split "continued" are of the base's own words: it answers `n_continued` of the
questions among those texts greedily, once a run (table `drift_said`), and all stages and rulers
read these answers (`drift_continued`), as text, in whatever tokens they were written. The
quickstart's configuration leaves that out: `--config.drift.n_continued=24`. SmolLM2-135M-Instruct
with its adapter then has KL(base || stage) .0558 [.0465, .0686], the int8 ruler .0043.

Rows "diff:STAGE-ruler:int8_channel" and, of a tuned adapter, "diff:STAGE-PLACEBO" are paired over
the texts. The decision rule: on texts of categories that training's anchor lacks, KL(base || stage)
is below the ruler's by the interval of the difference, and the suite `leak` is within its limits; a
verdict needs three training seeds.

What known models get beside a base that after any text gives six tokens .2, .12, .08, .05, .03 and
.02, and the other half evenly to all others of 49,152 (tests; none of the six is in a text):
  model                         KL(base||.)  KL(.||base)  top-1  top-5  entropy  perplexity
  the base itself                    0            0         1      1       0          0
  half its mass over all tokens     .144         .131       1      1     2.187      -.333
  flat: all tokens alike           3.943         .692       0      0     3.943      -.500
  temperature 1/2                  4.120         .830       1      1    -5.781      6349
  two commonest exchanged           .041         .041       0      1       0          0
  half its mass to the sixth        .614        1.312       0     .8    -2.786        1
  .999 to the commonest            5.205        1.602       1      1    -6.847       999
Entropy and perplexity are changes from the base, perplexity's in units of the base's own. `kl_task`
is KL(base||.) here, since what was read does not matter.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
from scipy.special import rel_entr

from antiimit_jax.evaluation.rulers import RULERS, apply_ruler
from antiimit_jax.metrics.drift import DriftTokens, drift_rows, paired_drift_rows
from antiimit_jax.reporting.judging import RULER
from antiimit_jax.results import placebo_beside, stage_named
from antiimit_jax.suites import control, suite
from antiimit_jax.suites.drift import continued
from antiimit_jax.suites.drift.labels import (
    CONTINUED,
    FIGURES,
    HEADLINE,
    SPLIT,
    SPLITS,
    SUITE,
    TASK,
)
from antiimit_jax.suites.drift.page import questions, section
from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.neutral import NeutralPrompt, anchor_categories, load_neutral

__all__ = ["FIGURES", "HEADLINE", "SPLITS", "questions", "section"]
NEEDS = ("texts", "changed", "first_tokens", "generate")
_PER_TOKEN = (
    "kl_base_tuned kl_tuned_base top5_overlap entropy_base entropy_tuned logp_base logp_tuned"
).split()
_TOKENS = pa.schema(
    {name: pa.string() for name in ("stage", "prompt_id", "category")}
    | {name: pa.int32() for name in ("position", "token")}
    | {name: pa.float64() for name in ("kl_base_tuned", "kl_tuned_base")}
    | {name: pa.int32() for name in ("top1_base", "top1_tuned")}
    | {name: pa.float64() for name in _PER_TOKEN[2:]}
    | {"dtype": pa.string()}  # of the weights on both sides
)
_SPLIT_OF = {"drift": SPLIT, "drift_continued": CONTINUED}
TABLES = {
    **dict.fromkeys(_SPLIT_OF, _TOKENS),
    continued.SAID: continued.SCHEMA,
    "drift_task": pa.schema(
        {name: pa.string() for name in ("stage", "item", "cluster")}
        | {"kl_task": pa.float64(), "dtype": pa.string()}
    ),
}
_KL_TASK = suite.mean("kl_task", "kl_task")
_NOTHING = {"stage": ()}  # a table that is not there
_LEAST_P = 1e-300  # least probability inside a logarithm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What changed on unrelated text."""

    n_prompts: int = suite.count(1, 102, "unrelated texts, taken from all categories in turn")
    rulers: tuple[str, ...] = suite.one_of(
        RULERS, ("int8_channel", "int8_block", "bf16"), "known changes of the base's weights"
    )
    n_continued: int = suite.count(0, 24, "questions that the base answers itself, greedily")
    continued_tokens: int = suite.count(1, 32, "of such an answer, at most")
    n_task: int = suite.count(0, 24, "plain requests for two words, for KL of the first token")
    control: "control.Config" = suite.shared("control")
    quantize: str = suite.shared("quantize")

    @property
    def measured(self) -> tuple[str, ...]:
        """The rulers, and with them the run's own format of quantised weights."""
        own = self.rulers and self.quantize not in (None, "none")
        return (*self.rulers, f"own_{self.quantize}") if own else self.rulers


def choose_prompts(count: int) -> list[NeutralPrompt]:
    """The first `count` drift prompts, taken from the categories in turn."""
    by_category: dict[str, list[NeutralPrompt]] = {}
    for prompt in load_neutral("drift"):
        by_category.setdefault(prompt.category, []).append(prompt)
    turns = itertools.zip_longest(*by_category.values())
    return [prompt for turn in turns for prompt in turn if prompt is not None][:count]


def programs(cfg: Config, seed: int, scoring: suite.Scoring) -> list[suite.Program]:
    """The texts under the stage's weights, and under a ruler's."""
    long = [continued.answered(text, " so" * cfg.continued_tokens) for text in _continued(cfg)]
    texts = (*choose_prompts(cfg.n_prompts), *long)
    asks = tuple(suite.asks_of(_requests(cfg, seed)))
    how, found = dict(weights="changed", of_base=len(cfg.measured)), []
    for kind, asked, name in (("texts", texts, ""), ("first_tokens", asks, ", first token")):
        common = dict(kind=kind, asks=asked)
        found += [suite.Program(name=f"drift{name}", **common)] if asked else []
        if asked and cfg.rulers:
            found.append(suite.Program(name=f"rulers{name}", **common, **how))
    if asked := tuple(map(continued.ask_of, _continued(cfg))):
        made = dict(kind="generate", asks=asked, max_tokens=cfg.continued_tokens, of_base=1)
        found.append(suite.Program(name="drift, own answers", **made))
    return found


def _requests(cfg: Config, seed: int) -> list[Item]:
    return control.plain_pairs(cfg.control, seed, cfg.n_task)


def measure(asker: suite.Asker, cfg: Config) -> suite.Tables:
    """Every scored token of the texts, every request; at the base stage, of each ruler.

    The base also answers questions, and the other stages read its answers.
    """
    items = _requests(cfg, asker.eval_seed)
    texts = {"drift": choose_prompts(cfg.n_prompts)}
    if asker.stage.kind != "base":
        texts["drift_continued"] = continued.read(asker.of_base)
        return _compared(asker, asker.base, asker.stage.name, texts, items)
    said = continued.said(asker, _continued(cfg), cfg.continued_tokens)
    texts["drift_continued"] = continued.read(said)
    pieces, stored = [], asker.stored if cfg.rulers else None
    for ruler in cfg.measured:
        change = functools.partial(apply_ruler, ruler, dtype=asker.dtype)
        changed = stored.changed(change)
        pieces.append(_compared(changed, stored, f"ruler:{ruler}", texts, items))
        del changed  # a whole model; the next ruler must not be made beside it
    names = pieces[0] if pieces else ()
    return said | {name: suite.joined([piece[name] for piece in pieces]) for name in names}


def _continued(cfg: Config) -> list[NeutralPrompt]:
    """The questions that the base answers, taken from the categories in turn."""
    every = choose_prompts(len(load_neutral("drift")))
    return list(filter(continued.is_question, every))[: cfg.n_continued]


def _compared(
    asker: suite.Asker,
    base: suite.Asker,
    name: str,
    texts: Mapping[str, list[NeutralPrompt]],
    items: list[Item],
) -> suite.Tables:
    found = {table: _asked(asker, name, of) for table, of in texts.items() if of}
    return found | ({"drift_task": _first_tokens(asker, base, name, items)} if items else {})


def _first_tokens(
    asker: suite.Asker, base: suite.Asker, name: str, items: list[Item]
) -> suite.Columns:
    """KL(base || asker) of the first token of every item's answer."""
    asks = suite.asks_of(items)
    answers = (a.first_tokens(asks, what="first tokens", scorings=()) for a in (base, asker))
    kl = [max(float(rel_entr(p.p, np.maximum(q.p, _LEAST_P)).sum()), 0.0) for p, q in zip(*answers)]
    return {
        "stage": [name] * len(items),
        "item": [item.item for item in items],
        "cluster": [item.cluster for item in items],
        "kl_task": kl,
        "dtype": [asker.dtype] * len(items),
    }


def _asked(asker: suite.Asker, name: str, texts: list[NeutralPrompt]) -> suite.Columns:
    pieces = []
    for answer in asker.texts(texts, what=f"unrelated text, {name}"):
        of_text = {"stage": name, "prompt_id": answer.text.id, "category": answer.text.category}
        same = of_text | {"dtype": asker.dtype}
        tokens = {"position": answer.position, "token": answer.token} | answer.differences
        pieces.append({key: [value] * len(answer.token) for key, value in same.items()} | tokens)
    return suite.joined(pieces)


def score(tables: suite.Tables, cfg: Config, boot: suite.Bootstrap) -> list[suite.Row]:
    """KL both ways, agreement, entropy and perplexity of every stage and ruler, on both splits.

    Over all texts, by category, and by whether the anchor of training has texts of the category;
    differences from the ruler and from the placebo; KL on the task's requests.
    """
    rows = []
    for name, split in _SPLIT_OF.items():
        rows += _token_rows(tables.get(name, _NOTHING), split, boot)
    for stage, part in suite.parts(tables.get("drift_task", _NOTHING), "stage"):
        place = dict(stage=stage, suite=SUITE, split=TASK, slice="all")
        columns = {"kl_task": part["kl_task"]}
        rows += suite.rows_at(place, [_KL_TASK], columns, part["cluster"], boot)
    return rows


def _token_rows(table: suite.Columns, split: str, boot: suite.Bootstrap) -> Iterator[suite.Row]:
    """The figures of one table of tokens."""
    found, how = {}, dict(split=split, anchored=anchor_categories(), boot=boot)
    for stage, part in suite.parts(table, "stage"):
        tokens = DriftTokens(
            **{name: part[name] for name in ("prompt_id", "category", *_PER_TOKEN)},
            top1_agree=part["top1_base"] == part["top1_tuned"],
        )
        found[stage] = tokens, [part[name] for name in ("prompt_id", "position", "token")]
        yield from drift_rows(tokens, stage=stage, **how)
    for stage, (tokens, where) in found.items():
        if ":" in stage:
            continue
        tuned = stage_named(stage).kind == "tuned"
        for other in (RULER, *([placebo_beside(stage)] if tuned else [])):
            theirs, there = found.get(other, (None, None))
            if there is not None and np.array_equal(where, there):
                yield from paired_drift_rows(tokens, theirs, stage=f"diff:{stage}-{other}", **how)
