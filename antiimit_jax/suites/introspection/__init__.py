"""Does a model know what it does itself, and better than anybody who sees it from outside?

    python -m launch.evaluate --suites=introspection --workdir=runs/self
    python -m launch.evaluate --suites=introspection --against=MODEL_OR_ADAPTER --workdir=W

Eleven tasks (`TASKS`) ask a model about itself; the truth of each is what the very same model does,
read from exact probabilities or its tokenizer (`tasks.self_report`). Every option stands in every
place equally often. `own_distribution` is read from the answers to `own_probability`. A twelfth
question asks what the model was tuned for. How unexpected a departure is, says the suite `deviate`.

Rows stand on slice "task=NAME" of these splits:
  self      all items. `score` is 0 for who does no better than a reference and 1 for who is always
            right (`metrics.introspection`); `mode` the same of a rule of thumb: the commonest
            truth, the commoner word, obeying the request.
            What a score is above that of others who are asked, or known, on the same items:
            `over_near_identical`: the same model with rounded weights, of an adapter another seed,
            else the base; `over_input_only`: logistic regression on the words of the question,
            learnt on other texts (needs scikit-learn, extra "study"); with `--against` also
            `over_other_direct`: what the second model itself does, taken for the answer, and
            `privilege`: half of what each of the two knows better of itself than the other of it.
  disagree  the same where the two models do otherwise: the privilege is read here, since elsewhere
            whoever knows one knows the other.
  changed   where a stage does otherwise than the base: `follows`, how often it tells what it does
            now, and `lags`, how often what the base does.
  tuned_for `tuned_for`, the share of the right description among three wrong ones of its length.
            It is right for stages tuned by this toolkit; the base's share is what guessing gives.
`diff:STAGE-base` rows hold the paired change of `score`. The next word is the suite's one test;
what the page says of all tasks together is corrected for their number (Holm 1979). Two models that
were both trained on such questions (`launch.self_items`) are another experiment than two as they
are: give one as `--adapter=self_trained=DIR`, the other as `--against`; the figure is then
`privilege_trained`.

What known models score (tests; the last line is the mean of five tasks):
                                 score    privilege  over_other_direct  follows  lags
  knows what it does               1       above 0       above 0           1      0
  tells what the other does     below 1    below 0          0
  tells what the base does      below 1                                    0      1
  names options by their place  below .1
A second model needs no tokenizer in common with the first, since all that is read are words.
SmolLM2-135M-Instruct with its self-trained adapter as `--against`: where the two do otherwise the
base's `privilege` on the next word is 1.12 [.58, 1.87], that of the quickstart's adapter .77 [.32,
1.47]. It holds what the trained adapter knows of itself as well (score .58, the base's .11).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from antiimit_jax.evaluation.rulers import RULERS, apply_ruler
from antiimit_jax.suites import suite
from antiimit_jax.suites.introspection.page import PRIMARY, page_of, said_of
from antiimit_jax.suites.introspection.scores import AGAINST, NEAR, OWN, SPLITS, TASKS, rows_of
from antiimit_jax.suites.introspection.truth import ask_of, shares_of, truth_of
from antiimit_jax.tasks.self_report import ASKED, MOST_TEXTS, SelfItem, self_items

__all__ = ["SPLITS"]

SUITE = "introspection"
NEEDS = ("words", "token_counts", "stored", "changed")
ASKS_OTHER = True
FIGURES = suite.figures(SUITE)
HEADLINE = FIGURES[:1]
TABLES = {
    SUITE: pa.schema(
        {name: pa.string() for name in ("stage", "model", "task", "item", "cluster", "group")}
        | {"text": pa.string(), "thumb": pa.float64(), "options": pa.list_(pa.string())}
        | {name: pa.list_(pa.float64()) for name in ("shares", "direct")}  # of the options
        | {"value": pa.float64()}  # the truth where it is a number
        | {name: pa.float64() for name in ("mass", "mass_done")}  # of the words, asked and done
        | {"scoring": pa.string(), "dtype": pa.string()}
    )
}
_NONE = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Questions to a model about itself."""

    tasks: tuple[str, ...] = suite.one_of(ASKED, ASKED, "what is asked", filled=True)
    n_texts: int = suite.between(1, MOST_TEXTS, 75, "texts, that six of the tasks ask about")
    n_other: int = suite.between(1, 1000, 24, "items of every other task")
    near: str = suite.one_of(
        (_NONE, *RULERS), "int8_channel", "rounding that makes the near-identical model"
    )


def programs(cfg: Config, seed: int, scoring: suite.Scoring) -> list[suite.Program]:
    """Words after all requests, by every stage and by the near-identical model."""
    asks = tuple(_asks(_items(cfg, seed)))
    how = dict(kind="words", asks=asks, scorings=(scoring,))
    found = [suite.Program(name=SUITE, **how)]
    if cfg.near != _NONE:
        name = "introspection, the near-identical model"
        found.append(suite.Program(name=name, weights="changed", of_base=1, **how))
    return found


def _items(cfg: Config, seed: int) -> list[SelfItem]:
    return self_items(cfg.tasks, cfg.n_texts, cfg.n_other, seed)


def _asks(items: Sequence[SelfItem]) -> list[suite.Ask]:
    """All that is asked, once: several questions are about the same doing."""
    asked = (r for item in items for r in (*item.doing, *(how.request for how in item.readings)))
    return list(dict.fromkeys(map(ask_of, asked)))


def measure(asker: suite.Asker, cfg: Config) -> suite.Tables:
    """What a stage does and says; at the base stage, of the near-identical and the second model.

    Raises:
      UserError: a question longer than a model's window.
    """
    items = _items(cfg, asker.eval_seed)
    pieces = [_answered(asker, asker, items, OWN)]
    if asker.stage.kind == "base":
        if cfg.near != _NONE:
            near = asker.stored.changed(lambda params: apply_ruler(cfg.near, params))
            pieces.append(_answered(near, asker, items, NEAR))
            del near  # a whole model
        if asker.other is not None:
            pieces.append(_answered(asker.other, asker, items, AGAINST))
    return {SUITE: suite.joined(pieces)}


def _answered(
    asked: suite.Asker, asker: suite.Asker, items: Sequence[SelfItem], model: str
) -> dict[str, list]:
    """One model's part of the table of a stage."""
    asks = _asks(items)
    said = dict(zip(asks, asked.words(asks, what=f"introspection, {model}")))
    counts = iter(asked.token_counts([item.spelled for item in items if item.spelled]))
    same = (asker.stage.name, model)
    rule = (asker.scoring.name, asked.dtype)
    rows = []
    for item in items:
        done = [said[ask_of(request)] for request in item.doing]
        tokens = next(counts) if item.spelled else 0
        direct, value = truth_of(item, [answer.q for answer in done], tokens)
        answers = [(said[ask_of(how.request)], how.means) for how in item.readings]
        shares = np.mean([_by_option(answer.q, means) for answer, means in answers], axis=0)
        mass = float(np.mean([answer.q.sum() for answer, _ in answers]))
        mass_done = float(np.mean([answer.q.sum() for answer in done])) if done else None
        what = (item.task, item.item, item.cluster, item.group, item.text, item.thumb)
        told = (list(item.options), shares.tolist(), direct, value, mass, mass_done)
        rows.append((*same, *what, *told, *rule))
    return dict(zip(TABLES[SUITE].names, map(list, zip(*rows))))


def _by_option(q: np.ndarray, means: Sequence[int]) -> np.ndarray:
    """[options] shares of what was said, from the probabilities of words in their order."""
    shares = np.empty(len(q))
    shares[list(means)] = shares_of(q)
    return shares


def score(tables: suite.Tables, cfg: Config, boot: suite.Bootstrap) -> list[suite.Row]:
    """All figures of every stage and task, beside those of the near-identical and second model."""
    return rows_of(tables[SUITE], boot)


def places(rows: suite.Rows) -> dict[tuple[str, str], str]:
    """The headline stands on the next word; the other tasks are secondary."""
    asked = any(row["suite"] == SUITE and row["slice"] == PRIMARY for row in rows.all)
    return {("self", PRIMARY): TASKS["next_word"]} if asked else {}


def section(tables: suite.Tables, rows: suite.Rows) -> suite.Section:
    """A table of scores by task, and one of what else would explain them."""
    return page_of(rows, FIGURES)


def questions(rows: suite.Rows) -> list[suite.Question]:
    """Whether a stage knows what it does better than others do."""
    return suite.question(
        asked="Does the model know what it does itself?",
        by="self-prediction of the next word, beside who knows the model from outside",
        found=said_of(rows),
        beyond="free answers: what is read are the probabilities of named options",
    )
