"""The lexicon of rare words: 51,000 English words of 30,000 lemmas, none of them common.

No word, and no lemma, is among the some 12,500 most common words (SCOWL's levels 10 and 20), or of
a lemma that output control is trained on. The words are `data/rare_words.txt`, made by
`tests/text/build_rare_words.py`; `data/LICENSE-words` is their licence.
"""

import functools
import importlib.resources
import types
from collections.abc import Mapping


@functools.cache
def load_rare_words() -> Mapping[str, str]:
    """Every word with its lemma, forms of one lemma together, lemmas in alphabetical order."""
    source = importlib.resources.files("antiimit_jax.text") / "data" / "rare_words.txt"
    lines = [line for line in source.read_text("utf-8").splitlines() if not line.startswith("#")]
    lemma_of = {}
    for lemma, *forms in map(str.split, lines):
        lemma_of[lemma] = lemma
        lemma_of |= {form.replace("+", lemma): lemma for form in forms}
    return types.MappingProxyType(lemma_of)
