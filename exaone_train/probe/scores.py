"""How well a task is solved, and how sure that is: top-1, balanced accuracy, AUROC, with a bootstrap.

Where it is known whose pictures they are, patients or slides are drawn, and pictures with them; otherwise pictures. One
patient or slide alone has no interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Names = NDArray[np.str_]

SCORES = ("top1", "balanced_accuracy", "auroc")
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Score:
    """A figure with its 95 % interval.

    Attributes:
        value: On all pictures.
        low: Of the interval; nan if there is none.
        high: Of the interval.
    """

    value: float
    low: float
    high: float


def scores(
    labels: Ints, probabilities: Floats64, groups: Names | None, *, resamples: int, seed: int
) -> dict[str, Score]:
    """All three.

    Args:
        labels: n.
        probabilities: n×classes; the largest one is the prediction.
        groups: n; what is drawn together, or None to draw pictures.
        resamples: How often.
        seed: Of the draws.
    """
    number = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    drawn = int(number.max()) + 1
    random = np.random.default_rng(seed)
    judge = _Judge(labels, probabilities)
    whole = judge(np.ones(len(labels)))
    again = np.array([judge(np.bincount(random.integers(0, drawn, drawn), minlength=drawn)[number].astype(np.float64))
                      for _ in range(resamples)])  # fmt: skip
    result = {}
    for column, name in enumerate(SCORES):
        numbers = again[:, column][np.isfinite(again[:, column])]
        known = drawn > 1 and len(numbers) > 0
        low, high = np.quantile(numbers, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if known else (np.nan, np.nan)
        result[name] = Score(value=float(whole[column]), low=float(low), high=float(high))
    return result


class _Judge:
    """Scores for any weights of pictures; what does not depend on weights is done once."""

    def __init__(self, labels: Ints, probabilities: Floats64) -> None:
        self.right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
        self.of_class = [labels == one for one in range(probabilities.shape[1])]
        two = probabilities.shape[1] == 2
        self.ranked = [
            _Ranked(probabilities[:, one], labels == one) for one in ([1] if two else range(len(self.of_class)))
        ]

    def __call__(self, weights: Floats64) -> tuple[float, float, float]:
        recalls = [
            float((weights * self.right)[own].sum() / weights[own].sum()) for own in self.of_class if weights[own].sum()
        ]
        areas = [ranked(weights) for ranked in self.ranked]
        return float((weights * self.right).sum() / weights.sum()), float(np.mean(recalls)), float(np.mean(areas))


class _Ranked:
    """Area under the ROC curve of one class against the rest: the share of pairs in the right order, ties as halves."""

    def __init__(self, score: Floats64, positive: NDArray[np.bool_]) -> None:
        self.order = np.argsort(score, kind="stable")
        self.positive = positive[self.order]
        self.first = np.flatnonzero(np.concatenate([[True], np.diff(score[self.order]) > 0]))

    def __call__(self, weights: Floats64) -> float:
        ordered = weights[self.order]
        positive = np.add.reduceat(np.where(self.positive, ordered, 0), self.first)
        negative = np.add.reduceat(np.where(self.positive, 0, ordered), self.first)
        pairs = positive.sum() * negative.sum()
        below = np.cumsum(negative) - negative / 2
        return float((positive * below).sum() / pairs) if pairs else float("nan")
