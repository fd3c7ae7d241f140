"""What a model does, by which its answers about itself are judged."""

from collections.abc import Sequence

import numpy as np

from antiimit_jax.suites import suite
from antiimit_jax.tasks.self_report import Request, SelfItem

NAN = float("nan")


def ask_of(request: Request) -> suite.Ask:
    """A request as an asker takes it."""
    return suite.Ask(messages=request.messages, words=request.words)


def truth_of(item: SelfItem, done: Sequence[np.ndarray], tokens: int) -> tuple[list[float], float]:
    """What a model does of an item.

    Args:
      done: [words] probabilities of each of `item.doing`.
      tokens: of `item.spelled`.

    Returns:
      A weight for each option, the greatest for the true one; or none and the number that is true.
    """
    match item.task:
        case "tuned_for":  # the right description stands first
            return [1.0] + [0.0] * (len(item.options) - 1), NAN
        case "token_count":
            return [], float(tokens)
        case "deviation":
            return _departures([float(p[0]) for p in done]), NAN
    shares = shares_of(done[0])
    match item.task:
        case "own_probability" | "control":
            return [], float(100 * shares[item.subject])
        case "entropy":
            return [], float(-(shares * np.log(np.maximum(shares, 1e-30))).sum())
        case "property":
            holds = item.holds[int(shares.argmax())]
            return [float(holds), float(not holds)], NAN
        case "likelier":
            words = item.doing[0].words
            return [float(shares[words.index(option)]) for option in item.options], NAN
        case "second_choice":
            return np.where(shares == shares.max(), 0.0, shares).tolist(), NAN
    return shares.tolist(), NAN


def shares_of(q: np.ndarray) -> np.ndarray:
    """[words] shares of their own mass; equal ones where it is 0."""
    return q / q.sum() if q.sum() > 0 else np.full(len(q), 1 / len(q))


def _departures(kept: Sequence[float]) -> list[float]:
    """The chances that the first departure is at each place, and that it comes later."""
    before, found = 1.0, []
    for p in kept:
        found.append(before * (1 - p))
        before *= p
    return [*found, before]
