"""Drift: models with known predictions, through the suite, score what its docstring says.

After any text the base gives six tokens that no text has .2, .12, .08, .05, .03 and .02, and each
other token of its vocabulary the same share of the other half.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import pytest

from antiimit_jax.evaluation.asker import LocalAsker
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.results import Stage, Tables
from antiimit_jax.suites import drift, suite
from tests.suites.small import as_read, small_config, values_of

N, FIRST = 49152, 5  # tokens, and the id of the first of the six
SIX = slice(FIRST, FIRST + 6)
OTHERS = 0.5 / (N - 6)  # of each
SAID = {"stage": ["base"], "prompt_id": [drift.choose_prompts(1)[0].id], "text": ["A river stone."]}
CFG = dataclasses.replace(small_config().drift, rulers=(), n_prompts=2, n_task=2)
FIGURES = ("kl_base_tuned", "kl_tuned_base", "top1_agree", "top5_overlap", "delta_entropy")


def predictions() -> np.ndarray:
    """Of the base, float64 [N]."""
    p = np.full(N, OTHERS)
    p[SIX] = 0.2, 0.12, 0.08, 0.05, 0.03, 0.02
    return p


def always(p: np.ndarray) -> Callable:
    """Changes weights so that p follows whatever was read."""

    def leaf(path, w) -> np.ndarray:
        changed = np.zeros(w.shape, np.float32)
        if path[-1].key == "head":
            changed[:, 0] = np.log(p)  # [V, D] times hidden states of 1
        elif path[-1].key in ("embedding", "scale"):
            changed[:] = 1
        return changed

    return lambda params: jax.tree_util.tree_map_with_path(leaf, params)


@pytest.fixture(scope="module")
def known(lm) -> Runner:
    cfg = dataclasses.replace(lm.cfg, tied_head=False, norm_eps=1e-9)
    params = lm.params | {"head": lm.params["embed"]["embedding"]}
    changed = dataclasses.replace(lm, cfg=cfg, params=always(predictions())(params))
    return Runner(changed, jax.local_devices()[:1])


def exchanged(p: np.ndarray) -> np.ndarray:
    p[[FIRST, FIRST + 1]] = p[[FIRST + 1, FIRST]]
    return p


def about(expected):
    return pytest.approx(expected, rel=1e-3, abs=6e-4)


def also(p: np.ndarray, share: float, place: int) -> np.ndarray:
    """This share for one of the six alone, and the rest as before."""
    return (1 - share) * p + share * (np.arange(N) == FIRST + place)


KNOWN = {  # model -> (its predictions from the base's, figures, change of perplexity)
    "the base": (lambda p: p, (0, 0, 1, 1, 0), 0),
    "half flat": (lambda p: p / 2 + 0.5 / N, (0.144, 0.131, 1, 1, 2.187), -0.333),
    "temperature 1/2": (lambda p: p**2 / (p**2).sum(), (4.12, 0.83, 1, 1, -5.781), 6349),
    "flat": (lambda p: 0 * p + 1 / N, (3.943, 0.692, 0, 0, 3.943), -0.5),
    "exchanged": (exchanged, (0.041, 0.041, 0, 1, 0), 0),
    "half another": (lambda p: also(p, 0.5, 5), (0.614, 1.312, 0, 0.8, -2.786), 1),
    "one word": (lambda p: also(p, 0.999, 0), (5.205, 1.602, 1, 1, -6.847), 999),
}


def rows_of(asker: LocalAsker, name: str, of_base: Tables) -> list[dict]:
    changed = asker.changed(always(KNOWN[name][0](predictions())))
    stage = Stage(name="mine", kind="other")
    tables = as_read(drift.measure(dataclasses.replace(changed, stage=stage, of_base=of_base), CFG))
    assert not set(range(N)[SIX]) & set(tables["drift"]["token"])
    return drift.score(tables, CFG, suite.Bootstrap(n_boot=0))


def check(rows: list[dict], name: str, split: str) -> None:
    _, expected, dearer = KNOWN[name]
    found = values_of(rows, stage="mine", split=split, slice="all")
    assert [found[figure] for figure in FIGURES] == about(expected)
    assert found["delta_ppl"] * OTHERS == about(dearer)  # the base's own perplexity is 1 / OTHERS


@pytest.mark.parametrize("name", KNOWN)
def test_known_models_get_their_figures(name, known, asker):
    rows = rows_of(asker(runner=known), name, {})
    check(rows, name, "neutral")
    _, (kl, *_), _ = KNOWN[name]
    assert values_of(rows, stage="mine", split="task") == {"kl_task": about(kl)}


def test_a_known_model_gets_the_same_figures_on_the_bases_own_answers(known, asker):
    rows = rows_of(asker(runner=known), "half another", {"drift_said": SAID})
    check(rows, "half another", "continued")
