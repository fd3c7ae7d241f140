"""Going on with a pattern for a required length, then departing from it.

    python -m launch.evaluate --suites=deviate --workdir=runs/deviate

A request shows a pattern made by rule and asks for exactly L more elements and then a break. The
elements are put one by one into the open turn, and the exact probability of each is read, in up to
eight tokenisations. The first departure is at the required place with probability

    departs = product over i <= L of P(element i) * (1 - P(element L + 1))

Ending the answer departs too. An element counts as said where it ends, also without a space before
it. That it ends is counted again in the first token of the next one, so the product is low by the
share of elements that run on. The same prompt without the request gives `unasked`; what the request
changes is `gain`. Simple behaviours:
                                     departs   unasked   gain   early
  does as asked                         1         0        1      0
  never departs                         0         0        0      0
  departs at once                       0         0        0      1
  one constant hazard, fitted           .083      .083     0      .63
The last stands beside as "baseline:constant_hazard", the best of its kind over a run's items; rows
"diff:STAGE-baseline:constant_hazard" are paired with it.
SmolLM2-135M-Instruct by the command above: departs .002 [.001, .004], unasked .003, early .995;
with the quickstart's adapter .003 [.001, .009], .017 and .981.
`surprisal` is how unlikely the base finds a departure at that place, unasked, whatever it is.

How a stage departs is seen from `n_drawn` continuations drawn after the L elements, with the
request (table `deviate_drawn`; `drawn`). Of those that do not go on with element L + 1, `ends` is
the share that is no text but the end of the answer, and `departure_surprisal` how unexpected the
text is to the base where nobody asked, in nats a token. `damage` is the share of those of two
tokens at least that are gibberish by the base's own measure: after its first token, which may be
anything, each is on average 3 nats less probable to the base than what it would say there itself
(its entropy). Drawn by                             ends   damage
  the base                                        any      0, nearly
  who writes random tokens                         0       1
  who ends the answer                              1       null: no departure of two tokens
  who never departs                              null      null
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from antiimit_jax.reporting.rows import figure
from antiimit_jax.reporting.tables import figure_table, slice_table
from antiimit_jax.suites import suite
from antiimit_jax.suites.deviate import drawn
from antiimit_jax.tasks.patterns import PATTERNS, STARTS

NEEDS = ("words", "generate", "texts")
_HAZARD = "baseline:constant_hazard"
LENGTHS = (2, 3, 5, 8)  # elements before the break
SPLIT = "patterns"
SPLITS = {SPLIT: "patterns made by rule"}
FIGURES = suite.figures("deviate")
_N_EXACT = len(FIGURES) - len(drawn.STATISTICS)  # the others are of what was drawn
TABLES = {
    "deviate": pa.schema(
        {name: pa.string() for name in ("stage", "split", "item", "cluster", "pattern")}
        | {"length": pa.int32(), "asked": pa.bool_(), "position": pa.int32()}  # from 1 to L + 1
        | {"prompt": pa.string(), "element": pa.string(), "p": pa.float64()}
    ),
    drawn.DRAWN: drawn.SCHEMA,
}
_SHOWN, _TOKENISATIONS, _STREAM = 4, 8, 7
_PREFILL = "Next:"
_PLAIN = "Go on with this pattern, a space between its elements: {shown}"
_ASKED = (
    "{plain}. Give exactly {length} more elements that follow it. Then break the pattern: go on "
    "with something that does not belong, or end your answer."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Patterns that are to be broken at a required place."""

    n_starts: int = suite.between(0, STARTS, 4, "of each pattern, asked at four lengths each")
    n_drawn: int = suite.count(0, 2, "continuations drawn where a break is due")
    drawn_tokens: int = suite.count(1, 12, "of such a continuation, at most")


class Item(NamedTuple):
    """One pattern with a required length."""

    pattern: str
    start: int
    length: int

    @property
    def elements(self) -> list[str]:
        """Those shown, those asked for, and the one that is not to come."""
        return [PATTERNS[self.pattern](self.start, i) for i in range(_SHOWN + self.length + 1)]

    def ask(self, position: int, asked: bool) -> suite.Ask:
        """The element at a position from 1 on, after those before it."""
        *shown, element = self.elements[: _SHOWN + position]
        plain = _PLAIN.format(shown=" ".join(shown[:_SHOWN]))
        request = _ASKED.format(plain=plain, length=self.length) if asked else plain
        said = " ".join([_PREFILL, *shown[_SHOWN:]])
        messages = (suite.Message("user", request), suite.Message("assistant", said))
        return suite.Ask(messages=messages, words=(element,))

    @property
    def cluster(self) -> str:
        """The pattern from its start, whatever the length."""
        return f"{self.pattern}/{self.start}"

    @property
    def place(self) -> drawn.Place:
        """Where the break is due, after all elements asked for."""
        last, name = self.length + 1, f"{self.cluster}/{self.length}"
        asks = self.ask(last, True), self.ask(last, False)
        return drawn.Place(name, self.cluster, self.pattern, self.length, *asks)

    @property
    def steps(self) -> list[tuple[bool, int]]:
        """(with the request, position) of all that is asked."""
        return list(itertools.product((True, False), range(1, self.length + 2)))


def items_of(cfg: Config, seed: int) -> list[Item]:
    """Each pattern from some of its starts, at every length."""
    rng = np.random.default_rng([seed, _STREAM])
    return [
        Item(pattern, int(start), length)
        for pattern in PATTERNS
        for start in np.sort(rng.permutation(STARTS)[: cfg.n_starts])
        for length in LENGTHS
    ]


def _asks(items: Sequence[Item]) -> tuple[suite.Ask, ...]:
    """All that is asked, once: without the request lengths do not differ."""
    asks = (item.ask(position, asked) for item in items for asked, position in item.steps)
    return tuple(dict.fromkeys(asks))


def _rule(own: suite.Scoring) -> suite.Scoring:
    return dataclasses.replace(own, tokenisations=_TOKENISATIONS)


def programs(cfg: Config, seed: int, scoring: suite.Scoring) -> list[suite.Program]:
    """The elements' probabilities; departures, taken to be as long as they may be."""
    items = items_of(cfg, seed)
    if not items:
        return []
    how = dict(kind="words", asks=_asks(items), scorings=(_rule(scoring),))
    found = [suite.Program(name="deviate", **how)]
    if cfg.n_drawn:
        long = " so" * cfg.drawn_tokens
        texts = tuple(drawn.goes_on(item.place.plain, long) for item in items) * cfg.n_drawn
        found.append(suite.Program(name="deviate, departures", kind="texts", asks=texts))
        asks = tuple(item.place.asked for item in items)
        how = dict(kind="generate", asks=asks, n=cfg.n_drawn, max_tokens=cfg.drawn_tokens)
        found.append(suite.Program(name="deviate, drawing", **how))
    return found


def measure(asker: suite.Asker, cfg: Config) -> suite.Tables:
    """The probability of every element, with the request and without; departures drawn.

    Raises:
      UserError: a request longer than the model's window.
    """
    items = items_of(cfg, asker.eval_seed)
    if not items:
        return {}
    asks = _asks(items)
    answers = asker.words(asks, what="elements", scoring=_rule(asker.scoring))
    found, rows = dict(zip(asks, answers)), []
    for item in items:
        place = (asker.stage.name, SPLIT, f"{item.cluster}/{item.length}", item.cluster)
        for asked, position in item.steps:
            ask = item.ask(position, asked)
            what = (item.pattern, item.length, asked, position, found[ask].prompt, *ask.words)
            rows.append((*place, *what, float(found[ask].q[0])))
    tables = {"deviate": dict(zip(TABLES["deviate"].names, zip(*rows)))}
    if cfg.n_drawn:
        places = [item.place for item in items]
        how = dict(n=cfg.n_drawn, most=cfg.drawn_tokens)
        tables[drawn.DRAWN] = drawn.drawn(asker, places, SPLIT, **how)
    return tables


def score(tables: suite.Tables, cfg: Config, boot: suite.Bootstrap) -> list[suite.Row]:
    """All figures of every stage, by length and pattern; the fitted hazard beside the base."""
    rows, table = [], tables["deviate"]
    unasked = _places(table, "base")
    for stage in dict.fromkeys(table["stage"]):
        items = _places(table, stage)
        figures = _figures(items)
        if unasked["item"] == items["item"]:
            figures["surprisal"] = -np.log(np.maximum(1 - unasked["last", False], 1e-30))
        rows += _rows(figures, items, stage, boot)
        lazy = hazard(np.array(items["length"]))
        if stage == "base":
            rows += _rows({"departs": lazy}, items, _HAZARD, boot)
        more = {"departs": figures["departs"] - lazy}
        rows += _rows(more, items, f"diff:{stage}-{_HAZARD}", boot)
    for stage, part in suite.parts(tables.get(drawn.DRAWN, {"stage": ()}), "stage"):
        place = dict(stage=stage, suite="deviate", split=SPLIT, slice="all")
        columns = drawn.columns_of_draws(part)
        rows += suite.rows_at(place, drawn.STATISTICS, columns, part["cluster"], boot)
    return rows


def _places(table: suite.Columns, stage: str) -> dict:
    """A stage's items: their columns, and ("kept" or "last", asked) -> [n] probabilities.

    "kept" is that of all elements asked for, "last" that of the one after them.
    """
    table = suite.taken(table, table["stage"] == stage)
    found = {name: [] for name in ("item", "cluster", "pattern", "length")}
    found |= {(name, asked): [] for name in ("kept", "last") for asked in (True, False)}
    for _, part in suite.parts(table, "item"):
        for name in ("item", "cluster", "pattern", "length"):
            found[name].append(part[name][0])
        for asked in (True, False):
            *kept, last = part["p"][part["asked"] == asked]
            found["kept", asked].append(np.prod(kept))
            found["last", asked].append(last)
    return {k: np.array(v) if isinstance(k, tuple) else v for k, v in found.items()}


def _figures(items: Mapping) -> dict[str, np.ndarray]:
    departs, unasked = (
        items["kept", asked] * (1 - items["last", asked]) for asked in (True, False)
    )
    early, late = 1 - items["kept", True], items["kept", True] * items["last", True]
    return dict(departs=departs, unasked=unasked, gain=departs - unasked, early=early, late=late)


def hazard(lengths: np.ndarray) -> np.ndarray:
    """[n] departs of the one chance of departing at each element that is best over all items."""
    h = np.linspace(0, 1, 1001)[:, None]
    departs = h * (1 - h) ** lengths  # [chances, n]
    return departs[departs.mean(axis=1).argmax()]


def _rows(
    figures: Mapping[str, np.ndarray], items: Mapping, stage: str, boot: suite.Bootstrap
) -> list[suite.Row]:
    cluster, rows = np.array(items["cluster"]), []
    slices = {"all": np.ones(len(cluster), bool)}
    for name in ("length", "pattern"):
        column = np.array(items[name])
        slices |= {f"{name}={value}": column == value for value in dict.fromkeys(items[name])}
    for where, mask in slices.items():
        place = dict(stage=stage, suite="deviate", split=SPLIT, slice=where)
        statistics = [suite.mean(metric, metric) for metric in figures]
        columns = {metric: values[mask] for metric, values in figures.items()}
        rows += suite.rows_at(place, statistics, columns, cluster[mask], boot)
    return rows


def section(tables: suite.Tables, rows: suite.Rows) -> suite.Section:
    """The figures, and the headline by length."""
    title = "Going on with a pattern, then breaking it"
    if not rows.splits("deviate"):
        return suite.Section(title, absent=["Not asked in this run."])
    stages = {stage: stage for stage in rows.stages("deviate")}
    lines = stages | {_HAZARD: "constant hazard"}
    slices = {f"length={n}": f"{n} elements, then a break" for n in LENGTHS}
    title_drawn, here = "Departures drawn where they are due", ("deviate", SPLIT, "all")
    departures = figure_table(rows, here, FIGURES[_N_EXACT:], stages, title_drawn)
    return suite.Section(
        title,
        [
            "Each request shows a pattern and asks for a number of further elements and then a "
            "break. The first departure must come exactly there; an answer that ends departs too. "
            "The constant hazard departs at each element with one chance, the best over all items."
        ],
        tables=[
            figure_table(rows, here, FIGURES[:_N_EXACT], lines),
            *([departures] if departures.body else []),
            slice_table(rows, ("deviate", SPLIT), FIGURES[0], slices, lines),
        ],
        explained=FIGURES,
        link="Break a pattern",
    )


def questions(rows: suite.Rows) -> list[suite.Question]:
    """Whether it departs where it is asked to, beside one chance of departing at every element."""
    stage = rows.subject("deviate")
    asked = (stage, "departs"), (stage, "gain"), (_HAZARD, "departs")
    found = [rows.get(name, "deviate", SPLIT, "all", metric) for name, metric in asked]
    if not all(found):
        return []
    departs, gain, lazy = map(figure, found)
    return suite.question(
        asked="Can the model go on with a pattern and break it where it is asked to?",
        by="the exact probability that the first departure is at the required place",
        found=[f"{stage} has {departs}, {gain} of it by the request; a constant hazard {lazy}"],
        beyond="patterns of other kinds, and what is said after the break",
    )
