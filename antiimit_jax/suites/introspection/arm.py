"""Items that train a model to tell its own next word: the positive control of the suite."""

import dataclasses
from typing import Any

from antiimit_jax.suites import suite
from antiimit_jax.suites.introspection.truth import ask_of, shares_of
from antiimit_jax.tasks.self_report import text_items, texts_of


def training_items(asker: suite.Asker, n_texts: int) -> list[dict[str, Any]]:
    """Lines for a user's items file: which word would be most likely, in every order of the words.

    The targets are the model's own shares of the words as it goes on with the text. Texts and words
    are of kinds that the suite does not ask about.
    """
    texts = texts_of("trained", n_texts, asker.eval_seed)
    items = list(text_items(("next_word",), texts))
    asks = [ask_of(item.doing[0]) for item in items]
    found = []
    for item, answer in zip(items, asker.words(asks, what="its own next words")):
        shares = shares_of(answer.q).tolist()
        for how in item.readings:
            turns = [dataclasses.asdict(message) for message in how.request.messages]
            own = {"words": list(how.request.words), "targets": [shares[i] for i in how.means]}
            found.append({"messages": turns} | own | {"cluster": item.cluster})
    return found
