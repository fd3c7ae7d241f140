"""Departures as a model writes them: drawn after the elements asked for, and read by the base."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from antiimit_jax.metrics.intervals import ratio
from antiimit_jax.suites import suite
from antiimit_jax.tasks.neutral import NeutralPrompt

DRAWN = "deviate_drawn"
SCHEMA = pa.schema(
    {name: pa.string() for name in ("stage", "split", "item", "cluster", "pattern")}
    | {"length": pa.int32(), "sample": pa.int32(), "text": pa.string()}
    | {"departed": pa.bool_()}  # or else the pattern goes on
    # Of the text's tokens by the base, nobody having asked: log-probability, and entropy there.
    | {name: pa.list_(pa.float64()) for name in ("logp", "entropy")}
)
GIBBERISH = 3.0  # nats a token: e ** 3 = 20 times less probable than what the base itself would say
_MISSING = "no departure was drawn"
_DAMAGED = "no departure of two tokens was drawn"


class Place(NamedTuple):
    """Where a departure is due."""

    item: str
    cluster: str
    pattern: str
    length: int
    asked: suite.Ask  # with the request; its word is the element that is not to come
    plain: suite.Ask  # without


def drawn(
    asker: suite.Asker, places: Sequence[Place], split: str, n: int, most: int
) -> suite.Columns:
    """n continuations of every place, of at most so many tokens, and how the base finds them.

    Raises:
      UserError: a request that with its continuation is longer than the model's window.
    """
    how = dict(what="departures", max_tokens=most, n=n)
    found = asker.generate([place.asked.messages for place in places], **how)
    said = [(place, i, one) for place, of in zip(places, found) for i, one in enumerate(of)]
    texts = {
        str(number): goes_on(place.plain, one.text, str(number))
        for number, (place, _, one) in enumerate(said)
        if one.text
    }
    answers = asker.texts(list(texts.values()), what="departures, by the base") if texts else ()
    read = {answer.text.id: answer.differences for answer in answers}
    rows = []
    for number, (place, i, one) in enumerate(said):
        tokens = read.get(str(number), {"logp_base": [], "entropy_base": []})
        what = (place.item, place.cluster, place.pattern, place.length, i, one.text)
        departed = not stays(one.text, place.asked.words[0])
        by_base = tokens["logp_base"], tokens["entropy_base"]
        rows.append((asker.stage.name, split, *what, departed, *by_base))
    return dict(zip(SCHEMA.names, zip(*rows)))


def goes_on(ask: suite.Ask, text: str, name: str = "") -> NeutralPrompt:
    """A text of which all but what follows the ask's open turn is context."""
    messages = (*ask.messages, suite.Message("assistant", text))
    return NeutralPrompt(id=name, category="departure", messages=messages)


def stays(text: str, element: str) -> bool:
    """Whether a continuation begins with the element that the pattern has next."""
    return bool(re.match(rf"\s*{re.escape(element)}(?!\w)", text))


def columns_of_draws(table: suite.Columns) -> dict[str, np.ndarray]:
    """[n] values that `STATISTICS` sum, one a draw."""
    departed = np.array(table["departed"], bool)
    surprisal, excess = [], []  # nats a token; above the base's own, after the first token
    for logp, entropy in zip(table["logp"], table["entropy"]):
        logp, entropy = np.array(logp), np.array(entropy)
        surprisal.append(-logp.mean() if len(logp) else np.nan)
        excess.append(-(logp + entropy)[1:].mean() if len(logp) > 1 else np.nan)
    spelled, judged = (departed & np.isfinite(values) for values in (surprisal, excess))
    return {
        "departed": departed.astype(float),
        "silent": (departed & ~spelled).astype(float),
        "spelled": spelled.astype(float),
        "surprisal": np.where(spelled, surprisal, 0.0),
        "judged": judged.astype(float),
        "damaged": (judged & (np.array(excess) > GIBBERISH)).astype(float),
    }


def _of(name: str, column: str, among: str, missing: str) -> suite.Statistic:
    return suite.Statistic(name=name, columns=(column, among), finish=ratio, missing=missing)


STATISTICS = (
    _of("ends", "silent", "departed", _MISSING),
    _of("departure_surprisal", "surprisal", "spelled", _MISSING),
    _of("damage", "damaged", "judged", _DAMAGED),
)
