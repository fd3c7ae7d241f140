"""The residual broken down: what a model says where it does not say one of the asked words.

    python -m launch.evaluate --suites=residual --workdir=runs/residual

Two-word items of the control suite are asked under strict and lenient forms, exactly. All that is
left is partitioned by how the answer begins: the exact distribution of its first token, less what
the asked words hold of it. So nothing is left unexplored, and the shares of one policy sum to 1.
A first token is not yet an answer: "I" may begin a refusal or a story. The most probable words, by
a search over the open vocabulary, stand beside as examples. Rows are `share`, sliced by forms and
category.

Where known models have their share (tests; all other shares are 0):
  as asked                               target_words 1
  in capitals, or on a new line          other_case 1; with lenient forms target_words 1
  half refuses; half goes on with "ish"  target_words .5, refusal .5; target_words .5, begun .5
  "I cannot"; in quotes; a number        refusal 1; quotes_markup 1; digits 1
  another word; a face; blank line; ""   other_words 1; other_signs 1; white_space 1; end_of_turn 1
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from antiimit_jax.metrics.rows import row_of
from antiimit_jax.reporting.rows import number, page_text, plain_text, visible
from antiimit_jax.scoring.terminators import CJK, EMPHASIS, QUOTES, SENTENCE
from antiimit_jax.suites import control, suite
from antiimit_jax.tasks.items import Item

NEEDS = ("words", "first_tokens", "top_words")
# name -> (in words, colour: Okabe-Ito and tints, with the share that was wanted darkest)
CATEGORIES = {
    "target_words": ("the asked words", "#00598c"),
    "other_case": ("asked words, other case or line", "#56b4e9"),
    "begun": ("an asked word's first token, then something else", "#b5dff6"),
    "refusal": ("as refusals begin", "#b23b00"),
    "quotes_markup": ("quotes and markup", "#009e73"),
    "digits": ("digits", "#f0e442"),
    "other_words": ("other words", "#e69f00"),
    "white_space": ("white space first", "#d4d4d4"),
    "other_signs": ("other signs", "#8a8a8a"),
    "end_of_turn": ("end of turn", "#cc79a7"),
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
# How refusals begin, where that is one token: the first token of the answer is all that is read.
REFUSALS = frozenset("i i'm i'd i've sorry unfortunately apologies cannot can't as".split())
_MARKUP = frozenset(QUOTES + EMPHASIS + SENTENCE + CJK + "([{<#`|/\\-=+:&$@")
_POLICIES = ("strict", "lenient")
_SAMPLES = 8  # prompts shown
_TOP = 8  # words shown with each
_FOLD_CHARS, _FOLD_LINES = 700, 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """How much of the control suite's items is explored."""

    n_items: int = suite.count(0, 32, "plain requests for two words")
    control: "control.Config" = suite.shared("control")


def programs(cfg: Config, seed: int, scoring: suite.Scoring) -> list[suite.Program]:
    """Words under either policy, the first token, and the search on the sampled items."""
    items = control.plain_pairs(cfg.control, seed, cfg.n_items)
    if not items:
        return []
    asks, some = (tuple(suite.asks_of(part)) for part in (items, _sampled(items)))
    return [
        suite.Program(name="residual", kind="words", asks=asks, scorings=_rules(scoring)),
        suite.Program(name="residual, first token", kind="first_tokens", asks=asks),
        suite.Program(name="residual, examples", kind="top_words", asks=some),
    ]


def _rules(own: suite.Scoring) -> tuple[suite.Scoring, ...]:
    return tuple(dataclasses.replace(own, forms=forms) for forms in _POLICIES)


def _sampled(items: Sequence[Item]) -> Sequence[Item]:
    return items[:: max(1, len(items) // _SAMPLES)][:_SAMPLES]


def measure(asker: suite.Asker, cfg: Config) -> suite.Tables:
    """The shares of every item by category and forms policy, and some items as samples."""
    items = control.plain_pairs(cfg.control, asker.eval_seed, cfg.n_items)
    if not items:
        return {}
    stage, asks = asker.stage.name, suite.asks_of(items)
    begun = asker.first_tokens(asks, what="first tokens", scorings=_rules(asker.scoring))
    kinds = np.array([category(text) for text in begun[0].texts])
    shares = []
    for item, first in zip(items, begun):
        place = (stage, item.split, item.item, item.cluster)
        for forms, of_item in zip(_POLICIES, partition(first, kinds)):
            shares += [(*place, forms, name, share) for name, share in of_item.items()]
    found = {"residual": shares, "residual_samples": _examined(asker, _sampled(items))}
    return {name: dict(zip(TABLES[name].names, zip(*rows))) for name, rows in found.items()}


def partition(
    first: suite.FirstToken, kinds: np.ndarray
) -> tuple[dict[str, float], dict[str, float]]:
    """The probability of every category under strict and under lenient forms; each sums to 1.

    Args:
      first: the answer to one ask under the two policies.
      kinds: [V] the category of each token as text.
    """
    kinds, (strict, lenient) = kinds.copy(), first.said
    begun = [token for token in strict if kinds[token] != "white_space"]
    kinds[begun] = "begun"
    rest = first.p.copy()
    rest[list(lenient)] -= list(lenient.values())
    shares = {name: float(rest[kinds == name].sum()) for name in CATEGORIES}
    as_given, any_case = (math.fsum(said.values()) for said in (strict, lenient))
    return (
        shares | {"target_words": as_given, "other_case": any_case - as_given},
        shares | {"target_words": any_case},
    )


def category(text: str) -> str:
    """The category of an answer that begins with a token, by the text of that token."""
    if not text:
        return "end_of_turn"
    word = text.strip()
    if not word:
        return "white_space"
    if word[0] in _MARKUP:
        return "quotes_markup"
    if re.fullmatch(r"[\d.,%]+", word):
        return "digits"
    if word.casefold().replace("’", "'") in REFUSALS:
        return "refusal"
    return "other_words" if word[0].isalpha() else "other_signs"


def _examined(asker: suite.Asker, items: Sequence[Item]) -> list[tuple]:
    """Rows of `residual_samples`: items with their words and the most probable words."""
    answers = asker.words(suite.asks_of(items), what="examples")
    searches = asker.top_words([item.messages for item in items], what="most probable words")
    rows = []
    for item, answer, search in zip(items, answers, searches):
        asked = (item.item, answer.prompt, item.words, item.targets, answer.q.tolist())
        top = search.words[:_TOP]
        rows.append((asker.stage.name, *asked, [w.text for w in top], [w.p for w in top]))
    return rows


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
        f"All of each stage's probability on {some['n']} prompts of {split}, exactly: the asked "
        "words, and by its first token every other answer. A first token is not yet an answer: “I” "
        "may begin a refusal or a story, a blank a number. Strict forms count the words as given; "
        "lenient forms count other cases and a newline before the word too."
    )
    lead = [_most_of_the_rest(s, functools.partial(share, s, "strict")) for s in stages]
    return suite.Section(
        "Where the probability goes",
        [" ".join(lead), text],
        drawn,
        [suite.Table(head=["", *(f"{s}, {f}" for f in _POLICIES for s in stages)], body=body)],
        legend=[("■", colour, words) for words, colour in CATEGORIES.values()],
        link="Residual",
        parts=[_examples(tables, stages)],
    )


def _most_of_the_rest(stage: str, share: Callable[[str], float]) -> str:
    """What a stage says where it does not say the asked words, in a sentence."""
    rest = {name: share(name) for name in CATEGORIES if name != "target_words"}
    parts = [
        f"{CATEGORIES[name][0]} ({number(rest[name])})"
        for name in sorted(rest, key=rest.get, reverse=True)[:3]
    ]
    return (
        f"Stage “{stage}” leaves {number(sum(rest.values()))} to anything but the asked words as "
        f"given: most of it to {', '.join(parts)}; answers that begin like a refusal hold "
        f"{number(rest['refusal'])}."
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
