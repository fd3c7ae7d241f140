"""Output control: words and percentages are given; the exact probability of every word is read.

    python -m launch.evaluate --suites=control --workdir=runs/control

Every stage is asked the same items. The base is also asked without percentages (its prior). Figures
stand beside ten behaviours that ignore the request or know only part of it, answered on the very
same items and scored by the same functions (`metrics.baselines`).

What known models get on the default's plain requests for two held-out words (tests; gamma and step
are the same with three to five words):
  model                        tvd_res  mass  tvd_cond  gamma   step    gain  preference    first
  as asked                        0      1       0        1       0     .229       0          0
  as asked in half of answers   .500   .500      0        1       0     .051       0          0
  log-odds twice those asked    .095     1     .095       2       0     .134       0          0
  larger word always 80%        .112     1     .112       0    2.773    .117       0          0
  all on the larger word        .234     1     .234       0  138.155   -.005       0          0
  one half for each word        .229     1     .229       0       0       0        0          0
  90% for a set's favourite     .406     1     .406       0       0       0      2.214        0
  90% for the word named first  .406     1     .406       0       0       0        0        .400
  the two shares exchanged      .459     1     .459      -1       0    -.229       0          0
Columns: tvd_res, mass, tvd_cond, gamma, gamma_step, request_gain, preference_sd and
first_position_bias.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from antiimit_jax.files import json_text
from antiimit_jax.metrics.baselines import baseline
from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.rows import baseline_rows, control_rows, paired_rows, standard_slices
from antiimit_jax.results import placebo_beside, stage_named
from antiimit_jax.suites import suite
from antiimit_jax.suites.control.arrays import results_of
from antiimit_jax.suites.control.labels import BASELINES, FIGURES, HEADLINE, SPLITS
from antiimit_jax.suites.control.lead import places
from antiimit_jax.suites.control.own_items import lacking_rows, own_slices
from antiimit_jax.suites.control.page import headline, section
from antiimit_jax.suites.control.pictures import images
from antiimit_jax.suites.control.questions import questions
from antiimit_jax.tasks import output_control
from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.output_control import Mixture, last_shot, without_percents
from antiimit_jax.tasks.templates import TEMPLATES, plain_requests
from antiimit_jax.tasks.user_items import SPLIT as OWN_SPLIT
from antiimit_jax.tasks.user_items import load_items

__all__ = ["BASELINES", "FIGURES", "HEADLINE", "SPLITS", "headline", "images", "places"]
__all__ += ["questions", "results_of", "section"]
_IN_FULL = ("all", "k=2")  # slices where baselines have intervals and all figures
_IN_SHORT = ("tvd_res", "mass", "gamma", "corr", "corr_within", "skill_over_rank")
_PAIRED = (*_IN_FULL, *(f"k={k}" for k in range(3, 11)), "k=2,templates=heldout", "k=2,few-shot")
_COMPARED = ("uniform", "two_level")  # behaviours that a stage is paired with
_PLAIN = {"template": -1, "n_shots": 0, "shot_set": -1, "order": 0, "template_heldout": False}

ITEMS = pa.schema(
    {name: pa.string() for name in ("stage", "suite", "split", "item", "cluster")}
    | {name: pa.int32() for name in ("k", "template", "n_shots", "shot_set", "order")}
    | {"template_heldout": pa.bool_(), "prompt": pa.string(), "prompt_ids": pa.list_(pa.int32())}
    | {"word": pa.string()}
    | {name: pa.int32() for name in ("word_index", "form_count", "token_count")}
    | {name: pa.float64() for name in ("target", "q", "residual", "prior", "last_shot")}
    | {"scoring": pa.string(), "dtype": pa.string()}  # the rule, the weights it came from
    | {"facets": pa.string()}  # of a user's items, a JSON object
)
TABLES = {"items": ITEMS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Words given, percentages asked."""

    mixture: Mixture = Mixture(
        templates=tuple(range(len(TEMPLATES))),
        ks=(2, 3, 4, 5),
        k_weights=(0.565, 0.145, 0.145, 0.145),
        shots=(0, 2),
        shot_weights=(0.855, 0.145),
        heldout_weight=0.145,
    )  # of n_items: 38 sets of plain pairs, 20 of every other kind
    splits: tuple[str, ...] = suite.one_of(
        output_control.SPLITS, output_control.REPORTED, "whose items are asked", filled=True
    )
    n_items: int = suite.count(4, 912, "of heldout_words, rounded up to whole word sets")
    n_other: int = suite.count(
        4, 208, "of each other split, plain requests in whole word sets; at most n_items"
    )
    items_file: str = suite.own_file(
        load_items, "your own items, in place of all splits", skip="skip_bad_items"
    )
    skip_bad_items: bool = suite.free(False, "leave out lines of items_file that are no items")
    limit: int = suite.count(0, 0, "of items in all, shared by the splits; 0: none")


def items_of(cfg: Config, seed: int) -> list[Item]:
    """All items of a run: the user's own, or the mixture's split by split."""
    if cfg.items_file:
        held = load_items(cfg.items_file, cfg.skip_bad_items)
        return list(held.entries[: cfg.limit or None])
    found: list[Item] = []
    for place, split in enumerate(cfg.splits):
        most = -(-(cfg.limit - place) // len(cfg.splits)) if cfg.limit else None
        found += _items_of(cfg, split, seed)[:most]
    return found


def _items_of(cfg: Config, split: str, seed: int) -> list[Item]:
    """Of the headline's split all kinds of request, of the others the plain ones."""
    if split == "heldout_words":
        return cfg.mixture.evaluation(split, cfg.n_items, seed)
    return cfg.mixture.plain.evaluation(split, min(cfg.n_other, cfg.n_items), seed)


def plain_pairs(cfg: Config, seed: int, count: int) -> list[Item]:
    """The first two-word items of the headline's split in phrasings that training may use."""
    items = items_of(cfg, seed)
    there = [item.split for item in items]
    split = "heldout_words" if "heldout_words" in there else there[0]
    pairs = [
        item
        for item in items
        if item.split == split and len(item.words) == 2 and not _kind(item)["template_heldout"]
    ]
    # One of each word set first.
    return sorted(pairs, key=lambda i: (_kind(i)["n_shots"], _kind(i)["order"]))[:count]


def _kind(item: Item) -> Mapping[str, int]:
    """What an item is besides its words; a user's is a plain request in no phrasing of ours."""
    return _PLAIN if item.split == OWN_SPLIT else item.facets


def programs(cfg: Config, seed: int, scoring: suite.Scoring) -> list[suite.Program]:
    """Words after all items, with percentages and without."""
    items = items_of(cfg, seed)
    how = dict(kind="words", scorings=(scoring,))
    found = [suite.Program(name="control", asks=tuple(suite.asks_of(items)), **how)]
    if before := tuple(_asks_before(cfg, items)):
        found += [suite.Program(name="control, no percentages", asks=before, of_base=1, **how)]
    return found


def _asks_before(cfg: Config, items: Sequence[Item]) -> dict[suite.Ask, list[str]]:
    """Requests without percentages -> the items that they belong to; a user's have none."""
    asked: dict[suite.Ask, list[str]] = {}
    for item in items if not cfg.items_file else ():
        ask = suite.Ask(messages=without_percents(item), words=item.words)
        asked.setdefault(ask, []).append(item.item)
    return asked


def measure(asker: suite.Asker, cfg: Config) -> suite.Tables:
    """Asks all splits' items; the base also without percentages.

    Raises:
      UserError: an item longer than the model's window.
    """
    items = items_of(cfg, asker.eval_seed)
    prior: dict[str, np.ndarray] = {}
    if asker.stage.kind == "base" and (asked := _asks_before(cfg, items)):
        answers = asker.words(list(asked), what="without percentages")
        prior = {name: a.q for names, a in zip(asked.values(), answers) for name in names}
    answers = asker.words(suite.asks_of(items), what="control")
    return {"items": item_columns(asker, items, answers, prior, suite="control")}


def item_columns(
    asker: suite.Asker,
    items: Sequence[Item],
    answers: Sequence[suite.Answer],
    prior: dict[str, np.ndarray] | None = None,
    **same: str,
) -> dict[str, list]:
    """Columns of a table of items, one row an item and word.

    Args:
      prior: item -> the base's q without percentages.
      same: `suite`; `scoring` and `dtype`, where they are not the asker's own.
    """
    same = dict(stage=asker.stage.name, scoring=asker.scoring.name, dtype=asker.dtype) | same
    records, prior = [], prior or {}
    for item, answer in zip(items, answers):
        of_item = _kind(item) | same
        of_item |= {
            "facets": json_text(dict(item.facets) if item.split == OWN_SPLIT else {}),
            "split": item.split,
            "item": item.item,
            "cluster": item.cluster,
            "k": len(item.words),
            "prompt": answer.prompt,
            "prompt_ids": list(answer.prompt_ids),
            "residual": answer.residual,
        }
        before = prior.get(item.item)
        shown = last_shot(item) if of_item["n_shots"] else None
        for j, word in enumerate(item.words):
            of_word = {
                "word": word,
                "word_index": j,
                "form_count": answer.form_counts[j],
                "token_count": answer.token_counts[j],
                "target": item.targets[j],
                "q": float(answer.q[j]),
                "prior": None if before is None else float(before[j]),
                "last_shot": shown[j] if shown else None,
            }
            records.append(of_item | of_word)
    return {name: [record[name] for record in records] for name in ITEMS.names}


def score(tables: suite.Tables, cfg: Config, boot: suite.Bootstrap) -> list[suite.Row]:
    """All figures of every stage and split; baselines on the base's rows; paired differences."""
    rows, answered = [], {}
    for stage, split, table in suite.parts(tables["items"], "stage", "split"):
        results = results_of(table)
        own = split == OWN_SPLIT
        facets = table["facets"][table["word_index"] == 0]
        heldout = table["template_heldout"][table["word_index"] == 0]
        slices = own_slices(results, facets) if own else item_slices(results, heldout)
        answered[stage, split] = results, table["item"], slices
        common = dict(split=split, slices=slices, boot=boot)
        rows += control_rows(results, stage=stage, **common)
        if stage_named(stage).kind == "base":
            made = baseline_rows(results, interval_slices=_IN_FULL, **common)
            made += lacking_rows(made) if own else []
            rows += [r for r in made if r["slice"] in _IN_FULL or r["metric"] in _IN_SHORT]
    for stage, split in answered:
        rows += _differences(answered, stage, split, boot)
    return rows


def _differences(answered: dict, stage: str, split: str, boot: suite.Bootstrap) -> list[suite.Row]:
    """Rows "diff:STAGE-OTHER": less lazy answers; of an adapter also less its placebo and base."""
    mine, items, all_slices = answered[stage, split]
    stages = {"base": (), "other": ("base",), "tuned": ("base", placebo_beside(stage))}
    kind = stage_named(stage).kind
    if kind not in stages:
        return []
    others = {f"baseline:{name}": baseline(mine, name) for name in _COMPARED}
    for other in stages[kind]:
        results, asked, _ = answered.get((other, split), (None, (), {}))
        if np.array_equal(items, asked):
            others[other] = results
            if other == "base":
                sharpened = "best_temperature"
                others[f"baseline:{sharpened}"] = baseline(results, sharpened)
    slices = {name: mask for name, mask in all_slices.items() if name in _PAIRED}
    common = dict(split=split, slices=slices, boot=boot)
    return [
        row
        for other, results in others.items()
        for row in paired_rows(mine, results, stage=f"diff:{stage}-{other}", **common)
    ]


def item_slices(results: ControlResults, heldout: np.ndarray) -> dict[str, np.ndarray]:
    """The standard slices over plain requests; other phrasings and few-shot turns by themselves.

    A split is about words and percentages, so its figures do not mix in what a held-out phrasing or
    a few examples change: that stands in "templates=heldout", "shots=N" and each template's slice.

    Args:
      heldout: [n] bool, items in a phrasing that training never uses.
    """
    standard = standard_slices(results)
    trained = ~heldout
    bare = results.n_shots == 0
    kept = {"template": bare, "shots": trained}  # where a slice is about that very thing
    plain = plain_requests(heldout, results.n_shots)
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
