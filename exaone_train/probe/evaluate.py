"""One task with one encoder: features once, a linear probe, and k-NN as a second opinion."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exaone_train.logistic import fit_by_validation
from exaone_train.neighbours import nearest, unit
from exaone_train.probe.encoder import Encoder
from exaone_train.probe.features import features_of
from exaone_train.probe.leak import leak
from exaone_train.probe.scores import Score, scores
from exaone_train.probe.task import Task

KNN = 20


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What came of a task.

    Attributes:
        key: Of the task.
        title: As in the published table.
        linear: Scores of the linear probe.
        knn: Scores of the k-NN vote.
        decay: Of the linear probe's weights, chosen on validation data.
        pictures: Of each split.
        unit: What was drawn for intervals.
        units: How many of them the test has.
        warnings: Sentences: other counts than the release, patients the encoder may know.
        notes: Sentences on the release itself.
        comparable: Whether the figure stands beside published ones: nothing to warn of.
    """

    key: str
    title: str
    linear: dict[str, Score]
    knn: dict[str, Score]
    decay: float
    pictures: dict[str, int]
    unit: str
    units: int
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def comparable(self) -> bool:  # noqa: D102
        return not self.warnings

    def to_json(self) -> dict[str, Any]:
        """Of plain values; figures that are no numbers are null."""
        written = asdict(self)
        for part in ("linear", "knn"):
            for score in written[part].values():
                score.update({name: None for name, value in score.items() if not np.isfinite(value)})
        return {**written, "comparable": self.comparable}


def evaluate(
    task: Task,
    encoder: Encoder,
    *,
    provenance: Collection[str] | None = None,
    batch_size: int = 64,
    resamples: int = 1_000,
    seed: int = 0,
    on_batch: Callable[[str, int], None] | None = None,
) -> TaskResult:
    """Evaluate an encoder on a task.

    Args:
        task: With its splits.
        encoder: Frozen.
        provenance: Whom it was trained on, beside what it says itself.
        batch_size: Pictures at once.
        resamples: For intervals.
        seed: Of them.
        on_batch: Told of each split how many pictures are done.
    """
    known = None if provenance is None and encoder.provenance is None else {
        *(provenance or ()), *(encoder.provenance or ())
    }  # fmt: skip
    found = leak(task, known)
    splits = {"train": task.train, "validation": task.validation, "test": task.test}
    features = {
        name: features_of(split, encoder, batch_size, None if on_batch is None else partial(on_batch, name))
        for name, split in splits.items()
    }
    classes = len(task.classes)
    linear = fit_by_validation(
        (features["train"], task.train.labels), (features["validation"], task.validation.labels), classes
    )
    groups = task.test.groups
    judged = [
        scores(task.test.labels, probabilities, groups, resamples=resamples, seed=seed)
        for probabilities in (
            linear.probabilities(features["test"]),
            knn_probabilities(features["train"], task.train.labels, features["test"], classes),
        )
    ]
    return TaskResult(
        key=task.key,
        title=task.title,
        linear=judged[0],
        knn=judged[1],
        decay=linear.decay,
        pictures={name: len(split) for name, split in splits.items()},
        unit="image" if groups is None else task.unit,
        units=len(task.test) if groups is None else len(np.unique(groups)),
        warnings=(*task.remarks, *(() if found is None else (found,))),
        notes=task.notes,
    )


def knn_probabilities(
    train: NDArray[np.float32], labels: NDArray[np.int64], test: NDArray[np.float32], classes: int, k: int = KNN
) -> NDArray[np.float64]:
    """Shares of the classes among the k nearest training patches by cosine similarity, n×classes."""
    found = nearest(unit(test), unit(train), k)
    shares = np.zeros((len(test), classes))
    for one in range(classes):
        shares[:, one] = (labels[found.index] == one).mean(axis=1)
    return shares
