"""The ladder: does control carry over to requests unlike those of training, rung by rung?

    python -m launch.evaluate --suites=ladder --workdir=runs/ladder

A rung changes one thing of a plain request (`tasks.rungs`), so `split` is the rung. Figures are
those of the control suite; `gamma_ratio` is γ of a rung by γ of L0, with Fieller's interval. In a
second ask the model is to tell which percentage was requested, out of four; `stated` is the share
of the right one among the four. A rung with low γ and high `stated` was understood and not
controlled. Slices "kind=NAME" are the kinds of request of a rung. On L3 γ is one slope of all, as
`metrics.graded` tells for different numbers of words. It is nearly all of three to five: ten
percentages in steps of 5 tie so often that their ranks tell the rest.

What known askers score (`tests/suites/test_ladder.py`):

    asker                              tvd_res   gamma   request_gain   stated
    answers as requested               0         1       above 0        1
    ignores the request, no mass lost  above 0   0       0              .25
    larger chance always 3/4           above 0   0       above 0
    follows what a request names, not
      the fact that it hangs on (L11)  above 0   0       0
    copies the first percentage                                         near .5

Composed requests (L10, L11) ask a word set at the distances that its numbers come to: on L11 one.

Five rungs have figures of their own, on slice "all" (tests/suites/test_ladder_*.py):

    L9, a long answer: at places 1 to 16, after words drawn from the target (kinds are the places)
      drift_slope  by how much tvd_res grows a word: as asked 0
      gambler      by how much a word's share rises for each time it came too seldom: as asked 0,
                   making up above 0, repeating what was said below 0
      own_tvd      tvd_res after the model's own words, a description
      γ            grows with what is copied from the words before, which come from the target; row
                   "baseline:copies", which reads no request, has .57: 0 at place 1, 1.0 at 16
    L13, thinking first: control figures of the mean over `n_thoughts` drawn thoughts
      thought_tvd  tvd_res after one thought: far above tvd_res where thoughts settle the word
    L7, quantifiers (`quantifiers`)            tau    agreement
      shares rise with the quantifier          1      1
      ignores it (row "baseline:uniform")      0      0
      in one wording up, in the other down     0      -1
    L12, a forbidden word (`forbidden`)        suppression   others_tvd   forbidden
      never says it, the others as before      1             0            0
      never says it, then always one other     1             above 0      0
      ignores the prohibition (row
        "baseline:heedless")                   0             0            above 0
      says it all the more                     below 0       0            above 0

SmolLM2-135M-Instruct with the quickstart's adapter (8 word sets): L7 tau -.01 [-.10, .07]; L9 γ
1.60 [1.35, 1.85], at the first word 1.51, at the 16th 3.01 (the base -.03 and 2.07), gambler -.13;
L11 γ -.02 [-.03, .00]; L12 suppression -.49 [-.85, -.13]; L13 γ .60 [.18, 1.02]. On L0 it has 1.09.

L7 and L12 have no right shares, so no γ. Choosing words from a seed (L14) is another suite's.
"""

import dataclasses
import itertools

import pyarrow as pa

from antiimit_jax.suites import suite
from antiimit_jax.suites.ladder import forbidden, quantifiers, sequence, shares, thinking
from antiimit_jax.suites.ladder.page import FIGURES, SPLITS, questions, section
from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.rungs import RUNGS, UNNUMBERED, rung_items, second_asks, two_of_set
from antiimit_jax.tasks.sequences import at_places
from antiimit_jax.tasks.unnumbered import forbidding, quantified

__all__ = ["FIGURES", "SPLITS", "questions", "section"]
NEEDS = ("words", "generate")
TABLES: dict[str, pa.Schema] = {
    "ladder": shares.SCHEMA,  # answers to requests
    "ladder_stated": shares.SCHEMA,  # to the second ask
    **sequence.TABLES,
    **thinking.TABLES,
    **quantifiers.TABLES,
    **forbidden.TABLES,
}
_ROWS = {  # table -> rows of its part of one stage and rung
    "ladder": shares.rung_rows,
    "ladder_stated": shares.stated_rows,
    sequence.OWN: sequence.own_rows,
    thinking.THOUGHTS: thinking.thinking_rows,
    quantifiers.QUANTIFIED: quantifiers.quantifier_rows,
    forbidden.FORBIDDEN: forbidden.forbidden_rows,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Which rungs are asked, and how much of each."""

    rungs: tuple[str, ...] = suite.one_of(
        RUNGS, ("L1", "L2", "L3", "L4", "L5", "L6", "L8", "L10"), "besides L0, which always is"
    )
    n_sets: int = suite.count(
        1, 20, "word sets of a rung, each asked 8 times; on L7 28, on L9 40 times"
    )
    n_thoughts: int = suite.count(1, 4, "drawn for each request of L13")
    thought_tokens: int = suite.count(1, 40, "of a thought on L13, at most")


def requests_of(cfg: Config, seed: int) -> dict[str, list[Item]]:
    """Rung -> its requests, of L0 and of all rungs asked that name chances."""
    rungs = (rung for rung in ("L0", *cfg.rungs) if rung not in UNNUMBERED)
    return {rung: rung_items(rung, cfg.n_sets, seed) for rung in dict.fromkeys(rungs)}


def items_of(cfg: Config, seed: int) -> list[Item]:
    """What is asked of them at once: of L9 the word at every place, of L13 nothing."""
    requests = requests_of(cfg, seed)
    requests.pop("L13", None)
    if "L9" in requests:
        requests["L9"] = [placed for item in requests["L9"] for placed in at_places(item, seed)]
    return list(itertools.chain.from_iterable(requests.values()))


def stated_of(cfg: Config, seed: int) -> list[Item]:
    """The second ask of all rungs that name chances."""
    return second_asks(list(itertools.chain.from_iterable(requests_of(cfg, seed).values())))


def programs(cfg: Config, seed: int, scoring: suite.Scoring) -> list[suite.Program]:
    """Words after the requests, percentages after the questions about them; what is generated.

    A thought is taken to be as long as it may be; words after the model's own are not planned.
    """
    requests = requests_of(cfg, seed)
    asked = {"ladder": items_of(cfg, seed), "ladder, stated": stated_of(cfg, seed)}
    if "L7" in cfg.rungs:
        asked["ladder, quantifiers"] = quantified(cfg.n_sets, seed)
    if "L12" in cfg.rungs:
        asked["ladder, a word forbidden"] = forbidding(cfg.n_sets, seed)
    if "L13" in cfg.rungs:
        long = " so" * cfg.thought_tokens
        asked["ladder, after thoughts"] = [thinking.decided(item, long) for item in requests["L13"]]
    found = [
        suite.Program(name=name, kind="words", asks=tuple(suite.asks_of(of)), scorings=(scoring,))
        for name, of in asked.items()
    ]
    if "L9" in cfg.rungs:
        said = tuple(suite.asks_of(two_of_set(requests["L9"])))
        how = dict(kind="generate", asks=said, max_tokens=sequence.MOST_TOKENS)
        found.append(suite.Program(name="ladder, long answers", **how))
    if "L13" in cfg.rungs:
        how = dict(kind="generate", n=cfg.n_thoughts, max_tokens=cfg.thought_tokens)
        thought = tuple(suite.asks_of(requests["L13"]))
        found.append(suite.Program(name="ladder, thoughts", asks=thought, **how))
    return found


def measure(asker: suite.Asker, cfg: Config) -> suite.Tables:
    """The answers to all requests, and to the questions which percentage was requested.

    Raises:
      UserError: an item longer than the model's window, or a word that no tokens spell.
    """
    seed = asker.eval_seed
    requests = requests_of(cfg, seed)
    tables = {
        "ladder": shares.answered(asker, items_of(cfg, seed), "ladder"),
        "ladder_stated": shares.answered(asker, stated_of(cfg, seed), "ladder, percentages stated"),
    }
    if "L7" in cfg.rungs:
        asked = quantified(cfg.n_sets, seed)
        tables[quantifiers.QUANTIFIED] = quantifiers.quantified_answers(asker, asked)
    if "L9" in cfg.rungs:
        tables[sequence.OWN] = sequence.own_answers(asker, two_of_set(requests["L9"]))
    if "L12" in cfg.rungs:
        asked = forbidding(cfg.n_sets, seed)
        tables[forbidden.FORBIDDEN] = forbidden.forbidden_answers(asker, asked)
    if "L13" in cfg.rungs:
        how = cfg.n_thoughts, cfg.thought_tokens
        tables[thinking.THOUGHTS] = thinking.thinking_answers(asker, requests["L13"], *how)
    return {name: table for name, table in tables.items() if table}


def score(tables: suite.Tables, cfg: Config, boot: suite.Bootstrap) -> list[suite.Row]:
    """The figures of every stage and rung, and of equal shares on the base's items; γ by L0's."""
    rows = []
    for name in filter(tables.__contains__, _ROWS):
        for stage, rung, part in suite.parts(tables[name], "stage", "split"):
            rows += _ROWS[name](part, stage, boot)
            if (name, rung) == ("ladder", "L9"):
                rows += sequence.sequence_rows(part, stage, boot)
    return rows + shares.ratios(rows)
