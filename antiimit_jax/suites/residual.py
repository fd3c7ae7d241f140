"""The residual broken down: what a model says where it does not say one of the asked words.

    python -m launch.evaluate --suites=residual --workdir=runs/residual

Two-word items of the control suite are asked under strict and lenient forms, exactly; what stands
in the words' place is found by a best-first search over the open vocabulary. What the search did
not reach is a share of its own. Rows are `share`, sliced by forms and category; the shares of one
policy sum to 1.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from antiimit_jax.metrics.rows import row_of
from antiimit_jax.reporting.rows import number, page_text, plain_text, visible
from antiimit_jax.scoring.terminators import CJK, EMPHASIS, QUOTES, SENTENCE
from antiimit_jax.scoring.top_words import TopWord
from antiimit_jax.suites import control, suite

NEEDS = ("words", "top_words")
CATEGORIES = {  # name -> (in words, colour: Okabe-Ito, with the share that was wanted darkest)
    "target_words": ("the asked words", "#00598c"),
    "other_case": ("asked words, other case", "#56b4e9"),
    "quotes_markup": ("quotes and markup", "#009e73"),
    "refusal": ("refusal", "#b23b00"),
    "digits": ("digits", "#f0e442"),
    "other_words": ("other words", "#e69f00"),
    "end_of_turn": ("end of turn", "#cc79a7"),
    "unexplored": ("not explored", "#d4d4d4"),
}
FIGURES = suite.figures("residual")
TABLES = {
    "residual": pa.schema(
        {name: pa.string() for name in ("stage", "split", "item", "cluster", "forms", "category")}
        | {"share": pa.float64()}
    ),
    "residual_samples": pa.schema(
        {name: pa.string() for name in ("stage", "item", "prompt")}
        | {"words": pa.list_(pa.string())}
        | {name: pa.list_(pa.float64()) for name in ("targets", "q")}
        | {"top_text": pa.list_(pa.string()), "top_p": pa.list_(pa.float64())}
    ),
}
# How refusals begin; the first word of the answer is all that is read.
REFUSALS = frozenset("i i'm i'd i've sorry unfortunately apologies cannot can't as".split())
_MARKUP = frozenset(QUOTES + EMPHASIS + SENTENCE + CJK + "([{<#`|/\\-=+:&$@")
_POLICIES = ("strict", "lenient")
_SAMPLES = 8  # prompts shown
_TOP = 8  # words shown with each
_FOLD_CHARS, _FOLD_LINES = 700, 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """How much of the control suite's items is explored."""

    n_items: int = suite.at_least(0, 32)  # plain requests for two words
    control: "control.Config" = suite.shared("control")


def programs(cfg: Config, seed: int, scoring: suite.Scoring) -> list[suite.Program]:
    """The search; words under either policy are asked as the suite `scoring` asks them."""
    items = control.plain_pairs(cfg.control, seed, cfg.n_items)
    asks = tuple(control.asks_of(items))
    return [suite.Program(name="residual", kind="top_words", asks=asks)] if asks else []


def measure(asker: suite.Asker, cfg: Config) -> suite.Tables:
    """The shares of every item by category and forms policy, and some items as samples."""
    items = control.plain_pairs(cfg.control, asker.eval_seed, cfg.n_items)
    if not items:
        return {}
    stage, asks = asker.stage.name, control.asks_of(items)
    exact, shares, samples = {}, [], []
    for forms in _POLICIES:
        rule = dataclasses.replace(asker.scoring, forms=forms)
        exact[forms] = asker.words(asks, what=f"{forms} forms", scoring=rule)
    searches = asker.top_words([item.messages for item in items], what="most probable words")
    for i, (item, search) in enumerate(zip(items, searches)):
        strict, lenient = exact["strict"][i], exact["lenient"][i]
        found = categorise(search.words, item.words)
        other_case = max(0.0, float(lenient.q.sum() - strict.q.sum()))
        by_policy = {
            "strict": found | {"target_words": float(strict.q.sum()), "other_case": other_case},
            "lenient": found | {"target_words": float(lenient.q.sum())},
        }
        for forms, of_item in by_policy.items():
            of_item["unexplored"] = 1.0 - sum(of_item.values())
            place = (stage, item.split, item.item, item.cluster, forms)
            shares += [(*place, category, share) for category, share in of_item.items()]
        if i % max(1, len(items) // _SAMPLES) == 0 and len(samples) < _SAMPLES:
            top = search.words[:_TOP]
            asked = (stage, item.item, strict.prompt, item.words, item.targets, strict.q.tolist())
            samples.append((*asked, [w.text for w in top], [w.p for w in top]))
    found = {"residual": shares, "residual_samples": samples}
    return {name: dict(zip(TABLES[name].names, zip(*rows))) for name, rows in found.items()}


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


def score(tables: suite.Tables, cfg: Config, boot: suite.Bootstrap) -> list[suite.Row]:
    """The mean share of every category: slices "forms=strict,category=refusal"."""
    rows = []
    for stage, split, table in suite.parts(tables["residual"], "stage", "split"):
        boot_of_stage = boot.draw(table["cluster"][_is(table, "strict", "refusal")])
        for forms in _POLICIES:
            for name in CATEGORIES:
                part = suite.taken(table, _is(table, forms, name))
                n = len(part["share"])
                sums = suite.column_sums({"share": part["share"], "n": np.ones(n)}, boot_of_stage)
                found = suite.estimate(suite.mean("share", "share"), sums, boot_of_stage)
                place = dict(stage=stage, suite="residual", split=split, metric="share")
                place["slice"] = f"forms={forms},category={name}"
                rows.append(row_of(found, place, n, len(np.unique(part["cluster"]))))
    return rows


def _is(table: dict, forms: str, name: str) -> np.ndarray:
    return (table["forms"] == forms) & (table["category"] == name)


def section(tables: suite.Tables, rows: suite.Rows) -> suite.Section:
    """Stacked bars a forms policy, the numbers, and sampled prompts."""
    from antiimit_jax.reporting import plots  # matplotlib, when it is drawn

    stages, splits = rows.stages("residual"), rows.splits("residual", control.SPLITS)
    if not splits:
        return suite.Section("Where the probability goes", absent=["Not measured in this run."])
    split = splits[0]

    def share(stage: str, forms: str, name: str) -> float:
        found = rows.get(stage, "residual", split, f"forms={forms},category={name}", "share")
        return found["value"] if found else 0.0

    drawn = []
    for forms in _POLICIES:
        values = {
            name: (colour, [share(s, forms, name) for s in stages])
            for name, (_, colour) in CATEGORIES.items()
        }
        drawing = plots.stacked_figure(f"{forms} forms", stages, values)
        name, label = f"residual-{forms}", f"residual, {forms} forms"
        drawn.append(suite.Picture(drawing=drawing, name=name, label=label))
    body = [
        suite.Line(
            label=words,
            colour=colour,
            cells=[number(share(s, f, name)) for f in _POLICIES for s in stages],
        )
        for name, (words, colour) in CATEGORIES.items()
    ]
    some = next(row for row in rows.all if row["suite"] == "residual" and row["split"] == split)
    text = (
        f"The answers of each stage broken down, from its most probable words on {some['n']} "
        f"prompts of {split}. Strict forms count the words as given; lenient forms count other "
        "cases and a newline before the word too."
    )
    if base := rows.first("residual", "base"):
        parts = [
            f"{number(share(base, forms, 'refusal'))} under {forms} forms" for forms in _POLICIES
        ]
        text += f" Of the base model's probability, refusals hold {' and '.join(parts)}."
    return suite.Section(
        "Where the probability goes",
        [text],
        drawn,
        [suite.Table(head=["", *(f"{s}, {f}" for f in _POLICIES for s in stages)], body=body)],
        legend=[("■", colour, words) for words, colour in CATEGORIES.values()],
        link="Residual",
        parts=[_examples(tables, stages)],
    )


def samples(tables: suite.Tables) -> list[dict]:
    """Sampled prompts: {stage, item, prompt, words, targets, q, top_text, top_p}."""
    table = tables.get("residual_samples", {"stage": ()})
    return [{name: table[name][i] for name in table} for i in range(len(table["stage"]))]


def _examples(tables: suite.Tables, stages: Sequence[str]) -> suite.Section:
    """Prompts with the words' probabilities and each stage's most probable words, by item."""
    grouped: dict[str, dict[str, dict]] = {}
    for sample in samples(tables):
        grouped.setdefault(sample["item"], {})[sample["stage"]] = sample
    return suite.Section(
        "Examples",
        [
            f"{len(grouped)} sampled prompts, with the probability of each asked word and the most "
            "probable words of each stage. A dot stands for a blank, ⏎ for a new line."
        ],
        parts=[
            _example(item, {s: by_stage[s] for s in stages if s in by_stage})
            for item, by_stage in grouped.items()
        ],
        absent=[] if grouped else ["This run holds no sampled prompt."],
        link="Examples",
    )


def _example(item: str, by_stage: dict[str, dict]) -> suite.Section:
    first = next(iter(by_stage.values()))
    prompt = page_text(first["prompt"])
    body = [
        suite.Line(
            label=plain_text(word),
            cells=[number(target), *(number(s["q"][i]) for s in by_stage.values())],
        )
        for i, (word, target) in enumerate(zip(first["words"], first["targets"]))
    ]
    rest = [number(max(0.0, 1 - sum(s["q"]))) for s in by_stage.values()]
    body.append(suite.Line(label="anything else", cells=["0.000", *rest]))
    top = [
        (name, [(visible(t), number(p)) for t, p in zip(s["top_text"], s["top_p"])])
        for name, s in by_stage.items()
    ]
    long = len(prompt) > _FOLD_CHARS or prompt.count("\n") >= _FOLD_LINES
    return suite.Section(
        item,
        tables=[suite.Table(head=["word", "asked", *by_stage], body=body)],
        beside=top,
        quote=prompt,
        fold=f"prompt of {len(prompt):,} characters" if long else "",
    )
