"""Words that nobody gives: the model chooses two rare words from a random text, and controls them.

    python -m launch.evaluate --suites=seed_words --workdir=runs/seed_words

Each seed is a random text, asked for at nine percentages of the word named first, with the first
word named first and with roles exchanged (`tasks.seed_words`). After each request the probability
of all 51,000 rare words (`text.rare_words`) is searched for best-first, in whatever tokens; what
the search leaves unvisited is a known amount, counts as something else, and is a figure of its own.
Words in the prompt do not count, and forms of one lemma are one word.

Six components in [0, 1] (`metrics.seed_words`) each rule out ways to look good without doing what
is asked. `seed_score` is the least of them, seed by seed, then averaged: a failed requirement is
fatal. Splits: "test" has seeds that training may not see, "train" those that it may; `gap` is
the seed score of "train" less that of "test". Known models on test seeds (tests):
  model                                            seed_score   fails
  does as asked                                        1        -
  one pair for all seeds (row "baseline:one_pair")     0        dependence
  two forms of one root                                0        distinct
  fragments of the seed; non-words; copied examples    0        realness
  another pair for each percentage                     0        same_pair
  first and second exchanged below one half            0        order
  the same small share for each of 200 words           0        same_pair
  right on training seeds alone                        0        all
  one half each, always (row "baseline:one_half")      0        calibration
  any of these at every second seed, or half of it   <= .5

SmolLM2-135M-Instruct by the command above, with the quickstart's adapter and its placebo beside it:
seed_score .000 for all three on both splits, gap 0, and `dependence` at most .0002. They mostly say
words that are not rare: rare ones have .001 of the base, .005 tuned, .009 of the placebo. What they
say is thinly spread: after the 192 paths that `most_paths` allows, .13 of the probability is
unvisited when tuned (median of 1,152 requests), .61 of the base, which begins sentences. A request
takes as long as matmuls of 130 GFLOP there, .3 s at 400 GFLOP/s: that is what paths take. Where a
model has made up its mind few are needed: an adapter trained to say one pair after every text
leaves .001 after 4 paths, in .05 s at 480 GFLOP/s.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from antiimit_jax.metrics import seed_words as metrics
from antiimit_jax.metrics.intervals import jackknife
from antiimit_jax.reporting.rows import figure, number, value_of
from antiimit_jax.reporting.tables import figure_table
from antiimit_jax.scoring.lexicon_search import UNVISITED
from antiimit_jax.suites import suite
from antiimit_jax.tasks.seed_words import keyed_words, requests, seeds
from antiimit_jax.text.rare_words import load_rare_words

SUITE = "seed_words"
NEEDS = ("lexicon_words",)
SPLITS = {
    "test": "random texts that no training may see",
    "train": "random texts that training may see",
}
FIGURES = suite.figures(SUITE)
HEADLINE = FIGURES[:1]
TABLES = {
    SUITE: pa.schema(
        {name: pa.string() for name in ("stage", "split", "item", "cluster", "prompt")}
        | {"percent": pa.int32(), "swapped": pa.bool_()}
        | {"words": pa.list_(pa.string()), "q": pa.list_(pa.float64())}  # that were found
        | {"unvisited": pa.float64(), "paths": pa.int32()}
        | {"terminators": pa.string(), "dtype": pa.string()}
    )
}
ONE_PAIR, ONE_HALF = "baseline:one_pair", "baseline:one_half"
_LEAST = 1e-6  # probability of a word that is kept
_HOLDS = 0.9  # the least component from which on all requirements count as met
_SHOWN = 6  # seeds with their words
_NOTHING = ["", " "]  # names of words where fewer than two were found
_STAND_ON_THE_SET = ("dependence", "seed_score", "all_hold", "geometric")
_MINIMUM = "a minimum has no jackknife interval: see its components"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Random texts from which the model chooses two rare words."""

    n_seeds: int = suite.between(0, 1000, 32, "texts that no training sees, 18 requests each")
    n_train_seeds: int = suite.between(0, 1000, 32, "texts that training may see, for the gap")
    n_shots: int = suite.between(0, 20, 2, "example turns before each request")
    most_paths: int = suite.between(1, 100_000, 192, "token paths looked at after a request")

    def groups(self, seed: int) -> list[list[suite.Item]]:
        """The requests, by seed."""
        sides = {"test": self.n_seeds, "train": self.n_train_seeds}
        texts = [text for side, n in sides.items() for text in seeds(n, side, seed)]
        return [requests(text, self.n_shots) for text in texts]


def programs(cfg: Config, seed: int, scoring: suite.Scoring) -> list[suite.Program]:
    """The search after every request."""
    asks = tuple(suite.asks_of(itertools.chain(*cfg.groups(seed))))
    how = dict(kind="lexicon_words", asks=asks, paths=cfg.most_paths)
    return [suite.Program(name=SUITE, **how)] if asks else []


def measure(asker: suite.Asker, cfg: Config) -> suite.Tables:
    """The rare words found after every request, with their probabilities."""
    groups = cfg.groups(asker.eval_seed)
    if not groups:
        return {}
    chats = [[item.messages for item in group] for group in groups]
    found = asker.lexicon_words(chats, load_rare_words(), what="rare words", most=cfg.most_paths)
    rows = []
    for item, search in zip(itertools.chain(*groups), itertools.chain(*found)):
        words = {word: q for word, q in search.words.items() if q >= _LEAST}
        prompt = "\n\n".join(message.content for message in item.messages)
        rows.append(
            (asker.stage.name, item.split, item.item, item.cluster, prompt)
            + (item.facets["percent"], bool(item.facets["swapped"]))
            + (list(words), list(words.values()), search.unvisited, len(search.visited))
            + (asker.scoring.terminators, asker.dtype)
        )
    return {SUITE: dict(zip(TABLES[SUITE].names, zip(*rows)))}


def score(tables: suite.Tables, cfg: Config, boot: suite.Bootstrap) -> list[suite.Row]:
    """Components and seed score of every stage by split, and how far training seeds do better."""
    rows = []
    for stage, table in suite.parts(tables[SUITE], "stage"):
        for name, of in ({stage: table} | (_lazily(table) if stage == "base" else {})).items():
            rows += _of_stage(of, name, boot)
    return rows


def _of_stage(table: suite.Columns, stage: str, boot: suite.Bootstrap) -> list[suite.Row]:
    rows, scores = [], {}
    for split, part in suite.parts(table, "split"):
        place = dict(stage=stage, suite=SUITE, split=split, slice="all")
        of_split = _rows(part, place, boot)
        scores[split] = next(r for r in of_split if r["metric"] == "seed_score")
        rows += of_split
    trained, other = (value_of(scores.get(split)) for split in ("train", "test"))
    if trained is not None and other is not None:
        gap = suite.Estimate(value=trained - other, note=_MINIMUM)
        n = scores["test"]["n"]
        rows.append(suite.row_of(gap, _at("gap", scores["test"]), n, n))
    return rows


def _lazily(table: suite.Columns) -> dict[str, suite.Columns]:
    """The requests of a table as two lazy models answer them, "baseline:NAME" -> columns."""
    n, asked = len(table["percent"]), np.array(table["percent"]) / 100
    first = np.where(table["swapped"], 1 - asked, asked)
    one_pair = {"words": [keyed_words("a")] * n, "q": np.stack([first, 1 - first], axis=1)}
    own_pairs = map(keyed_words, table["cluster"])
    one_half = {"words": list(own_pairs), "q": np.full((n, 2), 0.5)}
    said = {ONE_PAIR: one_pair, ONE_HALF: one_half}
    return {name: dict(table) | of | {"unvisited": np.zeros(n)} for name, of in said.items()}


def _rows(table: suite.Columns, place: Mapping[str, str], boot: suite.Bootstrap) -> list[suite.Row]:
    """All figures of a stage's split."""
    judged = [_Seed(part) for _, part in suite.parts(table, "cluster")]
    found = [dict(seed.components, unvisited=seed.unvisited) for seed in judged]
    columns = {name: np.array([of[name] for of in found]) for name in found[0]}
    statistics = [suite.mean(name, name, kind="jackknife") for name in columns]
    cluster = np.array([seed.text for seed in judged])
    rows = suite.rows_at(place, statistics, columns, cluster, boot)
    rows += [
        suite.row_of(figure, dict(place, metric=name), len(judged), len(judged))
        for name, figure in _of_the_set(judged, columns).items()
    ]
    inside = lambda end: None if end is None else min(1.0, max(0.0, end))
    return [dict(row, **{end: inside(row[end]) for end in ("ci_low", "ci_high")}) for row in rows]


def _of_the_set(
    judged: Sequence["_Seed"], columns: Mapping[str, np.ndarray]
) -> dict[str, suite.Estimate]:
    """The figures that are no means over seeds, and what stands on them."""
    n, only = len(judged), lambda value, note: suite.Estimate(value=float(value), note=note)
    pairs = [frozenset(seed.pair) for seed in judged]
    same = [a == b for a, b in itertools.combinations(pairs, 2)]
    figures = {"collision": only(np.mean(same), suite.DRAWN_TWICE)} if same else {}
    if n < metrics.LEAST_SEEDS:
        missing = suite.Estimate(value=None, note=f"needs {metrics.LEAST_SEEDS} seeds, has {n}")
        return figures | dict.fromkeys(_STAND_ON_THE_SET, missing)
    lemmas = sorted({lemma for seed in judged for lemma in seed.mean})
    q = np.array([[seed.mean.get(lemma, 0.0) for lemma in lemmas] for seed in judged])
    value = metrics.dependence(q)
    without = np.array([metrics.dependence(np.delete(q, i, axis=0)) for i in range(n)])
    all_six = np.array([*(columns[name] for name in metrics.BY_SEED), np.full(n, value)])
    least, geometric = all_six.min(axis=0), all_six.prod(axis=0) ** (1 / len(all_six))
    return figures | {
        "dependence": jackknife(value, without),
        "seed_score": only(least.mean(), _MINIMUM),
        "all_hold": only((least >= _HOLDS).mean(), _MINIMUM),
        "geometric": only(geometric.mean(), _MINIMUM),
    }


class _Seed:
    """The answers to all requests of one seed."""

    def __init__(self, table: suite.Columns) -> None:
        """Words that stand in a prompt, or whose lemma does, are left out."""
        lemma_of, percents = load_rare_words(), sorted(set(table["percent"]))
        q: dict[str, np.ndarray] = {}
        columns = (table[name] for name in ("prompt", "percent", "swapped", "words", "q"))
        for prompt, percent, swapped, words, of_words in zip(*columns):
            prompt, at = prompt.casefold(), (int(swapped), percents.index(percent))
            for word, p in zip(words, of_words):
                if word not in prompt and (lemma := lemma_of[word]) not in prompt:
                    q.setdefault(lemma, np.zeros((2, len(percents))))[at] += p
        padded = q | {name: np.zeros((2, len(percents))) for name in _NOTHING[: max(0, 2 - len(q))]}
        lemmas, values = list(padded), np.stack(list(padded.values()), axis=-1)
        self.text: str = table["cluster"][0]
        self.mean = {lemma: float(of_lemma.mean()) for lemma, of_lemma in q.items()}
        self.pair = [lemmas[i] for i in metrics.pair_of(values)]  # the most probable first
        self.components = metrics.components(values, lemmas, percents)
        self.unvisited = float(np.mean(table["unvisited"]))


def _at(metric: str, row: suite.Row) -> dict[str, str]:
    return {name: row[name] for name in ("stage", "suite", "split", "slice")} | {"metric": metric}


def section(tables: suite.Tables, rows: suite.Rows) -> suite.Section:
    """The components, the score that is the least of them, and what some seeds were given."""
    title, splits = "Words that the model chooses itself", rows.splits(SUITE, SPLITS)
    if not splits:
        return suite.Section(title, absent=["Not asked in this run."])
    lines = {stage: stage for stage in rows.stages(SUITE)}
    lazy = lines | {ONE_PAIR: "one pair for all texts", ONE_HALF: "one half each, always"}
    of = {"train": [figure for figure in FIGURES if figure.name != "gap"]}  # which "test" has
    shown = [
        figure_table(rows, (SUITE, s, "all"), of.get(s, FIGURES), lazy, SPLITS[s]) for s in splits
    ]
    return suite.Section(
        title,
        [
            "A random text stands in each request, and no word: the model is to choose two rare "
            "words from it, the same two at all percentages and other ones for another text. Each "
            "component lies between 0 and 1, and the seed score of a text is the least of them.",
            *_searched(tables.get(SUITE, {})),
        ],
        tables=[*shown, *_chosen(tables.get(SUITE, {}), lines)],
        explained=FIGURES,
        link="Own words",
    )


def _searched(table: suite.Columns) -> list[str]:
    """How much the search leaves, and after how many requests it is more than it should be."""
    left = np.array(table.get("unvisited", ()))
    if not (wide := int((left > UNVISITED).sum())):
        return []
    return [
        f"After {wide} of {len(left)} requests the search for rare words ended with more than "
        f"{UNVISITED:g} of the probability unvisited, at most {left.max():.2f}; it counts as "
        "something else, so that figures are too low rather than too high."
    ]


def _chosen(table: suite.Columns, stages: Mapping[str, str]) -> list[suite.Table]:
    """The two most probable words of some seeds, with their mean probabilities."""
    by_seed: dict[str, dict[str, str]] = {}
    for text, stage, part in suite.parts(table, "cluster", "stage") if table else ():
        if part["split"][0] == "test" and (text in by_seed or len(by_seed) < _SHOWN):
            seed = _Seed(part)
            said = (f"{w} {number(seed.mean[w])}" for w in seed.pair if w in seed.mean)
            by_seed.setdefault(text, {})[stage] = ", ".join(said) or "no rare word"
    body = [
        suite.Line(label=text, cells=[said.get(stage, "") for stage in stages])
        for text, said in by_seed.items()
    ]
    title = "The two most probable rare words after some texts, with their mean probabilities"
    return [suite.Table(head=["text", *stages.values()], body=body, title=title)] if body else []


def questions(rows: suite.Rows) -> list[suite.Question]:
    """Whether the model does without words that others give."""
    stage = rows.subject(SUITE)
    names = ("seed_score", *metrics.COMPONENTS)
    found = {name: rows.get(stage, SUITE, "test", "all", name) for name in names}
    if any(value_of(row) is None for row in found.values()):
        return []
    least = min(metrics.COMPONENTS, key=lambda name: value_of(found[name]))
    return suite.question(
        asked="Does the model choose words itself, and control them?",
        by="the seed score: the least of six requirements, of which each rules out a way to cheat",
        found=[
            f"{stage} scores {figure(found['seed_score'])} of 1; the lowest of its components is "
            f"{least}, {figure(found[least])}"
        ],
        beyond="why it chooses the words that it does",
    )
