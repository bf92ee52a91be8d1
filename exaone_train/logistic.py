"""A linear classifier on frozen features: multinomial logistic regression by L-BFGS, its regularisation by validation.

What is minimised is the mean cross-entropy plus ½·decay·‖W‖², on features that are centred and scaled by the training
data's mean and standard deviation; so that a decay means the same for data sets of any size.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

DECAYS: tuple[float, ...] = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Tried from the strongest regularisation to the weakest."""

ITERATIONS = 1_000
"""Of L-BFGS at most, for each decay."""

SMALL = 2**22
"""Numbers in the features up to which BLAS gets one thread: with two, 15 probes of 2,000 patches took 16 s, not 1.9."""


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A fitted classifier.

    Attributes:
        mean: d; of the training features.
        scale: d; their standard deviation, 1 where it is 0.
        model: Of scikit-learn.
        classes: How many there are; a class without training data is never predicted.
        decay: Of its weights.
    """

    mean: Floats
    scale: Floats
    model: Any
    classes: int
    decay: float

    def probabilities(self, features: Floats) -> NDArray[np.float64]:
        """n×classes."""
        known = self.model.predict_proba((features - self.mean) / self.scale)
        probabilities = np.zeros((len(features), self.classes))
        probabilities[:, self.model.classes_] = known
        return probabilities


def fit(features: Floats, labels: Ints, classes: int, decay: float = 1e-3, iterations: int = 200) -> Linear:
    """Fit the classifier.

    Args:
        features: n×d.
        labels: n, 0 … classes−1; at least two occur.
        classes: How many there are.
        decay: Of the weights.
        iterations: Of L-BFGS, at most.
    """
    mean, scale = _moments(features)
    model = _model(iterations)
    _refit(model, (features - mean) / scale, labels, decay)
    return Linear(mean=mean, scale=scale, model=model, classes=classes, decay=decay)


def fit_by_validation(
    train: tuple[Floats, Ints], validation: tuple[Floats, Ints], classes: int, decays: Sequence[float] = DECAYS
) -> Linear:
    """The classifier of the best top-1 accuracy on validation data; of equal ones the most regularised.

    Args:
        train: Features n×d and labels n, which alone are fitted.
        validation: The same, to choose the decay on.
        classes: How many there are.
        decays: Falling; each fit starts from the one before.
    """
    features, labels = train
    mean, scale = _moments(features)
    scaled, judged = (features - mean) / scale, (validation[0] - mean) / scale
    model = _model(ITERATIONS)
    best, chosen, most = None, decays[0], -1.0
    for decay in decays:
        _refit(model, scaled, labels, decay)
        correct = float((model.predict(judged) == validation[1]).mean())
        if correct > most:
            best, chosen, most = deepcopy(model), decay, correct
    return Linear(mean=mean, scale=scale, model=best, classes=classes, decay=chosen)


def _moments(features: Floats) -> tuple[Floats, Floats]:
    scale = features.std(axis=0, dtype=np.float64).astype(np.float32)
    return features.mean(axis=0, dtype=np.float64).astype(np.float32), np.where(scale > 0, scale, np.float32(1))


def _model(iterations: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=iterations, warm_start=True)


def _refit(model: Any, scaled: Floats, labels: Ints, decay: float) -> None:
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    model.C = 1 / (decay * len(labels))  # scikit-learn weighs the sum of losses
    threads = 1 if scaled.size <= SMALL else None
    with warnings.catch_warnings(), threadpool_limits(threads):
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly unregularised fits of separable data never end
        model.fit(scaled, labels)
