"""Training on a limited number of word sets, as learning curves need it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.output_control import Mixture
from antiimit_jax.text.lexicon import words_of


def trained(word_sets: int, seed: int = 0, k: int = 2) -> list[Item]:
    mixture = Mixture(ks=(k,), word_sets=word_sets, percents_per_set=2)
    stream = mixture.training(np.random.default_rng(seed))
    return list(itertools.islice(stream, 4 * 200))


def sets_of(items: list[Item]) -> set[tuple[str, ...]]:
    return {item.words for item in items}


@pytest.mark.parametrize("k", [2, 5])
def test_so_many_sets_and_no_more_the_same_in_every_run(k):
    few, many, other = trained(3, k=k), trained(12, k=k), trained(12, seed=1, k=k)
    assert len(sets_of(few)) == 3 and len(sets_of(many)) == 12
    assert sets_of(few) < sets_of(many) == sets_of(other)
    assert {word for item in many for word in item.words} <= set(words_of("train"))


def test_limited_sets_are_asked_for_as_many_percentages_as_others():
    limited, free = trained(3), trained(0)
    assert len(sets_of(free)) == 200
    asked = [len({item.targets for item in items}) for items in (limited, free)]
    assert asked[0] == asked[1] > 10
    each = [[i.targets for i in limited if i.words == words] for words in sets_of(limited)]
    assert all(len(set(targets)) > 10 for targets in each)
