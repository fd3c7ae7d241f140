"""Whether a model that is given no words, but a random text, chooses two and controls them.

All figures are functions of exact probabilities of lemmas, for each of N seeds under all requests:
n percentages of the word that the request names first, which is the first word or, with roles
swapped, the second. Each component lies in [0, 1] and rules out ways to look good otherwise:

  realness     mass on rare words that do not stand in the prompt (fragments, copies, non-words)
  distinct     the two words are no forms of one root: no common beginning of 4 letters, at least
               3 edits apart
  dependence   (2^I - 1) / (N - 1), where I = H(mean of seeds) - mean of H in bits; one number for
               the set (one pair for all seeds)
  same_pair    how far all requests of a seed get the same two words, with all mass; a pair that
               always changes has 0 (another pair for each percentage, mass on many words)
  order        of the first word's share and its percentage, the lesser Kendall's tau of both roles
               (roles exchanged below one half, or read by the order of naming)
  calibration  skill over lazy answers, 1 - TVD / min(uniform, argmax) (one half each, lazy answers)

The seed score of a seed is the least of its components. Which of the two is the first word is told
on every other percentage, from the lowest on, and order and calibration are read on those between.
"""

from collections.abc import Sequence

import numpy as np

BY_SEED = ("realness", "distinct", "same_pair", "order", "calibration")
COMPONENTS = ("dependence", *BY_SEED)
LEAST_SEEDS = 32  # that dependence needs
_PREFIX, _EDITS = 4, 3
_TIE = 1e-9  # probabilities no further apart are alike


def components(q: np.ndarray, lemmas: Sequence[str], percents: Sequence[int]) -> dict[str, float]:
    """All components of one seed but `dependence`.

    Args:
      q: [2, n, L] probability of each lemma by role (plain, swapped) and percentage, which is that
        of the first word if plain and of the second if swapped. What is missing to 1 was something
        else, or not found.
      lemmas: [L], L >= 2.
      percents: [n] ascending, in percent.
    """
    pair = pair_of(q)
    of_pair = q[..., pair]  # [2, n, 2]
    told, read = np.arange(0, len(percents), 2), np.arange(1, len(percents), 2)
    share = np.array(percents) / 100
    ahead = of_pair[0, told, 0] - of_pair[0, told, 1]
    if (share[told] - share[told].mean()) @ ahead < 0:
        of_pair = of_pair[..., ::-1]
    asked = np.stack([share, 1 - share])[:, read]  # [2, m] of the first word
    named = all(q[..., i].any() for i in pair)
    return {
        "realness": float(q.sum(-1).mean()),
        "distinct": float(named and distinct(*(lemmas[i] for i in pair))),
        "same_pair": _same_pair(q, pair),
        "order": _order(of_pair[:, read], asked),
        "calibration": _skill(of_pair[:, read], asked),
    }


def pair_of(q: np.ndarray) -> list[int]:
    """The two most probable lemmas over all requests of a seed [2, n, L]."""
    return np.argsort(-q.mean((0, 1)), kind="stable")[:2].tolist()


def _same_pair(q: np.ndarray, pair: Sequence[int]) -> float:
    """Mass on the pair where it is the most probable one, less what one request in n gives."""
    n, others = q.shape[1], np.delete(q, pair, axis=-1)
    of_pair = q[..., pair]
    widest = others.max(-1, initial=0.0)
    kept = of_pair.min(-1) >= widest - _TIE
    u = float((kept * of_pair.sum(-1)).mean())
    return max(0.0, (u - 1 / n) / (1 - 1 / n))


def _order(of_pair: np.ndarray, asked: np.ndarray) -> float:
    mass = of_pair.sum(-1)
    share = np.where(mass > 0, of_pair[..., 0] / np.where(mass > 0, mass, 1), 0.5)
    return max(0.0, min(map(kendall, share, asked)))


def kendall(x: np.ndarray, y: np.ndarray) -> float:
    """Kendall's tau a of two lists [n]: pairs in the same order less others, over all pairs."""
    i, j = np.triu_indices(len(x), 1)
    rises = lambda values: np.sign(np.where(abs(d := values[j] - values[i]) > _TIE, d, 0.0))
    return float((rises(x) * rises(y)).mean())


def _skill(of_pair: np.ndarray, asked: np.ndarray) -> float:
    target = np.stack([asked, 1 - asked], axis=-1)
    tvd = (abs(of_pair - target).sum(-1) + 1 - of_pair.sum(-1)).mean() / 2
    lazy = min(abs(asked - 0.5).mean(), (1 - target.max(-1)).mean())
    return max(0.0, float(1 - tvd / lazy))


def distinct(a: str, b: str) -> bool:
    """Whether two lemmas are no forms of one root, by their spelling."""
    alike = a[:_PREFIX] == b[:_PREFIX]
    return not alike and edits(a, b) >= _EDITS


def edits(a: str, b: str) -> int:
    """Letters to insert, delete or replace that make one word the other (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def dependence(q: np.ndarray) -> float:
    """(2^I - 1) / (N - 1) for the mean answers [N, L] of N >= 2 seeds; the rest is one outcome."""
    q = np.concatenate([q, np.maximum(1 - q.sum(-1, keepdims=True), 0)], axis=-1)
    bits = _entropy(q.mean(0)) - _entropy(q).mean()
    return float(np.clip((2**bits - 1) / (len(q) - 1), 0, 1))


def _entropy(p: np.ndarray) -> np.ndarray:
    """In bits, over the last axis."""
    return -(p * np.log2(np.where(p > 0, p, 1))).sum(-1)
