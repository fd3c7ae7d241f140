"""antiimit_jax: can a language model control its own output distribution, and what does it cost?

import antiimit_jax as aj
lm = aj.load("smollm2-135m-instruct")
lm.word_probs("Say one word: river 70%, apple 30%.", ["river", "apple"])
aj.evaluate(lm, suites=["control"], n_items=40).table
"""

import importlib
from typing import Any

_FROM_PYTHON = ("Evaluation", "Model", "Probabilities", "evaluate", "load")
__all__ = list(_FROM_PYTHON)


def __getattr__(name: str) -> Any:
    """Names for Python users come when they are asked for: JAX is not imported before."""
    if name in _FROM_PYTHON:
        return getattr(importlib.import_module("antiimit_jax.from_python"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_FROM_PYTHON])
