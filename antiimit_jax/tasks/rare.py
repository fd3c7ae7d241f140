"""Requests for rare events: one word nearly always, another at a rate from 1 in 10,000 to 1 in 100.

Items are functions of the seed alone. Each word set is asked at every rate, with either word as the
rare one, in one wording; wordings take turns.
"""

import itertools

import numpy as np

from antiimit_jax.tasks.items import Item
from antiimit_jax.text.formats import Message
from antiimit_jax.text.lexicon import words_of

RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
WORDINGS = {  # {a} is the common word, {b} the rare one
    "percent": "Answer with one word, drawn at random: {b} with a probability of {percent}%, "
    "{a} with the remaining {rest}%.",
    "one in": "Answer with one word. Out of {n} replies to this request, exactly one in the long "
    "run should be {b}, all others {a}.",
}
_STREAM = 13  # keeps random streams apart


def rare_items(n_sets: int, seed: int) -> list[Item]:
    """All requests of so many sets of two words that no training sees; the rare word first."""
    rng = np.random.default_rng([seed, _STREAM])
    pool, found = words_of("test"), []
    for number, drawn in enumerate(rng.choice(len(pool), size=(n_sets, 2), replace=False)):
        words = pool[drawn[0]], pool[drawn[1]]
        wording = list(WORDINGS)[number % len(WORDINGS)]
        for rate, (rare, common) in itertools.product(RATES, (words, words[::-1])):
            text = WORDINGS[wording].format(
                a=common,
                b=rare,
                percent=f"{100 * rate:g}",
                rest=f"{100 - 100 * rate:g}",
                n=f"{round(1 / rate):,}",
            )
            found.append(
                Item(
                    item=f"{number}/{rare}/{rate:g}",
                    split="rare",
                    cluster=" ".join(sorted(words)),
                    messages=(Message("user", text), Message("assistant", "Word:")),
                    words=(rare, common),
                    targets=(rate, 1 - rate),
                    facets={"wording": wording},
                )
            )
    return found
