"""Does a model know itself? What it says of itself against what it does, and what else explains it.

A *predictor* is whoever is asked about a model: the model itself, another one, a rule of thumb, a
classifier that sees the question alone. All are judged by one loss against the same truths.

    kind          truth                       loss
    choice        the option done most        1 where another is named
    bucket        the tercile of a number     1 where another is named
    number        a number                    distance
    distribution  shares of options           TVD

    score = 1 - sum of losses / sum of reference losses: 0 is as good as the reference, 1 no loss.

The reference of choices and buckets is who names options as often as they are true among the items
of a group, so that score = (accuracy - r) / (1 - r) with r the sum of squared frequencies
(estimated without the item itself, which makes it unbiased). Of numbers it is an item's rule of
thumb, else the best constant; of distributions equal shares.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from antiimit_jax.metrics.intervals import Statistic, ratio
from antiimit_jax.metrics.moments import MOMENTS, covariances, moment_columns

Kind = Literal["choice", "bucket", "number", "distribution"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """One model's answers to the items of a task; columns [n], ragged ones as sequences."""

    kind: Kind
    item: np.ndarray
    cluster: np.ndarray
    group: np.ndarray
    text: np.ndarray  # all that the question shows
    thumb: np.ndarray  # an option's index or a number, NaN for none
    options: Sequence[Sequence[str]]
    shares: Sequence[np.ndarray]  # of the options, as said
    direct: Sequence[np.ndarray]  # of the options, as done; empty where the truth is a number
    value: np.ndarray  # the truth where it is a number, else NaN

    @property
    def truth(self) -> np.ndarray:
        """[n] index of an option, or a number; of distributions [n, options]."""
        match self.kind:
            case "choice":
                return np.array([np.argmax(direct) for direct in self.direct])
            case "bucket":
                edges = np.quantile(self.value, np.arange(1, 3) / 3)
                return np.searchsorted(edges, self.value)
            case "number":
                return self.value
        return np.array(self.direct)

    @property
    def said(self) -> np.ndarray:
        """What the model says of itself, in the form of `truth`."""
        match self.kind:
            case "choice" | "bucket":
                return np.array([np.argmax(shares) for shares in self.shares])
            case "number":
                numbers = [np.array(options, float) for options in self.options]
                return np.array([own @ shares for own, shares in zip(numbers, self.shares)])
        return np.array(self.shares)

    @property
    def named(self) -> list[str]:
        """[n] the option that is true; of a number the nearest one."""
        at = self.truth
        if self.kind == "number":
            numbers = [np.array(options, float) for options in self.options]
            at = [np.argmin(abs(own - value)) for own, value in zip(numbers, self.value)]
        return [options[i] for options, i in zip(self.options, at)]

    def loss(self, predicted: np.ndarray) -> np.ndarray:
        """[n] of a predictor against the truths."""
        match self.kind:
            case "choice" | "bucket":
                return (predicted != self.truth).astype(float)
            case "number":
                return abs(predicted - self.truth)
        return abs(predicted - self.truth).sum(axis=1) / 2

    @property
    def reference(self) -> np.ndarray:
        """[n] loss of who has the task alone; see the module."""
        truth = self.truth
        match self.kind:
            case "choice" | "bucket":
                alike, members = (_counts(key) for key in ((self.group, truth), (self.group,)))
                return 1 - (alike - 1) / np.maximum(members - 1, 1)
            case "number":
                constant = np.full(len(truth), np.median(truth))
                return abs(np.where(np.isnan(self.thumb), constant, self.thumb) - truth)
        return abs(1 / truth.shape[1] - truth).sum(axis=1) / 2

    @property
    def heuristic(self) -> np.ndarray:
        """What a rule of thumb says: an option's own, else the commonest truth of the group.

        Of numbers the median of the group, of distributions its mean.
        """
        truth = self.truth
        if self.kind in ("choice", "bucket") and not np.isnan(self.thumb).any():
            return self.thumb.astype(int)
        centre = {"number": np.median, "distribution": lambda part: part.mean(axis=0)}
        found = np.empty_like(truth)
        for group in np.unique(self.group):
            inside = self.group == group
            found[inside] = centre.get(self.kind, lambda part: stats.mode(part).mode)(truth[inside])
        return found

    def differs(self, other: "Told") -> np.ndarray:
        """[n] whether another model does otherwise: names another option, or the nearest to it."""
        if self.kind == "distribution":
            return self.truth.argmax(axis=1) != other.truth.argmax(axis=1)
        if self.kind == "bucket":
            return self.truth != other.truth
        return np.array(self.named) != np.array(other.named)


def _counts(keys: Sequence[np.ndarray]) -> np.ndarray:
    """[n] how many items have an item's keys."""
    names = [np.unique(key, return_inverse=True)[1] for key in keys]
    _, place, counts = np.unique(
        np.stack(names, axis=1), axis=0, return_inverse=True, return_counts=True
    )
    return counts[place.ravel()]


_ALIKE = "the reference is right on every item: the truths are alike"
SCORE = Statistic(
    name="score",
    columns=("own", "reference"),
    finish=lambda own, reference: 1 - ratio(own, reference),
    missing=_ALIKE,
)
MODE = dataclasses.replace(SCORE, name="mode", columns=("mode", "reference"))


def over(name: str) -> Statistic:
    """By how much the model's score is above that of a predictor whose losses a column holds."""
    return Statistic(
        name=f"over_{name}",
        columns=("own", name, "reference"),
        finish=lambda own, theirs, reference: ratio(theirs - own, reference),
        missing=_ALIKE,
    )


def _privilege(own, theirs_of_own, reference, their, own_of_theirs, their_reference):
    ours = ratio(theirs_of_own - own, reference)
    return (ours + ratio(own_of_theirs - their, their_reference)) / 2


PRIVILEGE = Statistic(
    name="privilege",
    columns=("own", "other", "reference", "their_own", "of_theirs", "their_reference"),
    finish=_privilege,
    missing=_ALIKE,
)
"""Half of what each of two models knows better of itself than the other does of it."""


def _correlation(n, x, y, xx, xy, yy):
    _, _, var_x, covariance, var_y = covariances(n, x, y, xx, xy, yy)
    return ratio(covariance, np.sqrt(np.maximum(var_x * var_y, 0)))


SPEARMAN = Statistic(
    name="spearman", columns=MOMENTS, finish=_correlation, missing="all truths or answers are alike"
)


def rank_columns(told: Told) -> dict[str, np.ndarray]:
    """Moments of the ranks of what is said and of what is true."""
    return moment_columns(stats.rankdata(told.truth), stats.rankdata(told.said))


AUC = Statistic(name="auc", columns=("above", "positive"), finish=ratio)


def auc_columns(told: Told) -> dict[str, np.ndarray]:
    """For each item where the first of two options is true: how often it is the surer of it.

    It is compared with all items where the second is true; ties count half.
    """
    first, share = told.truth == 0, np.array([shares[0] for shares in told.shares])
    others = share[~first]
    below = (share[:, None] > others).mean(axis=1) if len(others) else np.zeros(len(share))
    tied = (share[:, None] == others).mean(axis=1) if len(others) else np.zeros(len(share))
    positive = (first & bool(len(others))).astype(float)
    return {"above": (below + tied / 2) * positive, "positive": positive}


def f1_columns(told: Told, classes: int) -> dict[str, np.ndarray]:
    """By class: items where it is said and true, where it is said, where it is true."""
    said, truth = told.said, told.truth
    columns = {}
    for i in range(classes):
        columns |= {
            f"both{i}": (said == i) & (truth == i),
            f"sum{i}": (said == i) + 1.0 * (truth == i),
        }
    return {name: values.astype(float) for name, values in columns.items()}


def macro_f1(classes: int) -> Statistic:
    """The mean of F1 over classes; a class that is neither said nor true counts 0."""

    def finish(*sums):
        f1 = [ratio(2 * both, either) for both, either in zip(sums[::2], sums[1::2])]
        return np.nan_to_num(np.array(f1)).mean(axis=0)

    names = [f"{name}{i}" for i in range(classes) for name in ("both", "sum")]
    return Statistic(name="macro_f1", columns=tuple(names), finish=finish)


def brier(told: Told) -> np.ndarray:
    """[n] squared distance of the shares said from certainty of the nearest option."""
    true = [np.array(own) == name for own, name in zip(told.options, told.named)]
    return np.array([((shares - at) ** 2).sum() for shares, at in zip(told.shares, true)])


def input_only(told: Told, folds: int = 5) -> np.ndarray | None:
    """What a logistic regression on the words and length of the questions says of the truths.

    It learns on other clusters than it answers. None where there are fewer than two of them, or for
    distributions.

    Raises:
      ImportError: scikit-learn is not there.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    folds = min(folds, len(np.unique(told.cluster)))
    if told.kind == "distribution" or folds < 2:
        return None
    words = CountVectorizer(token_pattern=r"\S+").fit_transform(told.text).toarray()
    length = np.array([[len(text) / 100] for text in told.text])
    seen, named = np.hstack([words, length]), np.array(told.named)
    said = np.empty(len(named), object)
    for learned, asked in GroupKFold(folds).split(seen, groups=told.cluster):
        classes, shares = np.unique(named[learned]), np.ones((len(asked), 1))
        if len(classes) > 1:
            learner = LogisticRegression(max_iter=2000, tol=1e-3)
            shares = learner.fit(seen[learned], named[learned]).predict_proba(seen[asked])
        for i, of_classes in zip(asked, shares):
            likely = dict(zip(classes, of_classes))
            said[i] = max(told.options[i], key=lambda option: likely.get(option, 0))
    if told.kind == "number":
        return said.astype(float)
    return np.array([list(own).index(name) for own, name in zip(told.options, said)])
