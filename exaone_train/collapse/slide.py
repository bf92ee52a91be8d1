"""How far features cluster by slide."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exaone_train.collapse.folds import strips
from exaone_train.collapse.interval import Share, mean_over_patches
from exaone_train.collapse.measured import AbsentError, Measured, measured
from exaone_train.collapse.scene import Scene
from exaone_train.logistic import fit
from exaone_train.neighbours import nearest, vote

Ints = NDArray[np.int64]

PROBE_FOLDS = 5


def same_slide_knn(scene: Scene) -> Measured:
    """Share of a patch's k nearest neighbours (cosine) that lie on its own slide, over all patches.

    Its chance level is the share of ordered pairs of different patches that share a slide, Σ n_s(n_s − 1) / n(n − 1):
    what neighbours drawn without looking have. A slide of fewer than k + 1 patches cannot fill its neighbourhoods;
    `ceiling` is the share if every neighbourhood held all of its slide that fits.
    """
    _need_slides(scene)
    k, count = min(scene.options.k, len(scene.table) - 1), scene.per_slide
    near = scene.neighbours(k, other_slides=False)
    same = (scene.slide[near.index] == scene.slide[:, None]).mean(axis=1)
    return measured(
        mean_over_patches(same, scene.slide, scene.slides),
        scene.weights,
        chance=float((count * (count - 1)).sum() / (len(scene.table) * (len(scene.table) - 1))),
        k=k,
        ceiling=float((np.minimum(k, count - 1) * count).sum() / (k * len(scene.table))),
    )


def silhouettes(features: NDArray[np.float32], group: Ints) -> NDArray[np.float64]:
    """Silhouette of each row by cosine distance (Rousseeuw 1987), without the n×n distances.

    For rows of length 1 the mean distance to a group is 1 minus the product with the group's mean, so that it takes
    n·groups·d operations; equal to scikit-learn's `silhouette_samples(metric="cosine")`.

    Args:
        features: n×d, of length 1.
        group: n; 0 … groups−1, each of which occurs.

    Returns:
        n; 0 for the only row of a group.
    """
    count = np.bincount(group)
    sums = np.zeros((len(count), features.shape[1]))
    np.add.at(sums, group, features.astype(np.float64))
    result = np.zeros(len(features))
    rows_at_once = max(1, 2**22 // len(count))
    for start in range(0, len(features), rows_at_once):
        here = slice(start, start + rows_at_once)
        own = group[here]
        rows = np.arange(len(own))
        together = features[here].astype(np.float64) @ sums.T
        distance = 1 - together / count
        inside = np.where(count[own] > 1, (count[own] - together[rows, own]) / np.maximum(1, count[own] - 1), 0)
        distance[rows, own] = np.inf
        outside = distance.min(axis=1)
        largest = np.maximum(inside, outside)
        known = (count[own] > 1) & (largest > 0)
        result[here] = np.divide(outside - inside, largest, out=np.zeros(len(own)), where=known)
    return result


def silhouette_slide(scene: Scene) -> Measured:
    """Mean silhouette of patches by slide, −1 … 1, by cosine distance (Rousseeuw 1987); 0 or less: no clusters."""
    _need_slides(scene)
    return measured(
        mean_over_patches(silhouettes(scene.features, scene.slide), scene.slide, scene.slides), scene.weights
    )


def slide_probe(scene: Scene) -> Measured:
    """Accuracy of a linear classifier that is to name the slide of a patch.

    Five folds, each of them a part of every slide: a strip of it where `x` and `y` are known, so that a patch is not
    recognised by the one beside it; otherwise patches by chance. Logistic regression on standardised features with a
    weight decay of 10⁻³. Chance is the share of the largest slide.
    """
    _need_slides(scene)
    rows = _evenly(scene.slide, scene.options.probe_patches, scene.options.seed)
    place = None if scene.table.place is None else scene.table.place[rows]
    slide = scene.slide[rows]
    fold = strips(slide, place, PROBE_FOLDS, scene.options.seed)
    rows, slide, fold = rows[fold >= 0], slide[fold >= 0], fold[fold >= 0]
    if len(np.unique(slide)) < 2:
        raise AbsentError(f"fewer than two slides have {PROBE_FOLDS} patches")
    correct = np.full(len(scene.table), np.nan)
    for held_out in range(PROBE_FOLDS):
        train, test = rows[fold != held_out], rows[fold == held_out]
        model = fit(scene.features[train], scene.slide[train], scene.slides)
        correct[test] = model.probabilities(scene.features[test]).argmax(axis=1) == scene.slide[test]
    return measured(
        mean_over_patches(correct, scene.slide, scene.slides),
        scene.weights,
        chance=float(np.bincount(slide).max() / len(slide)),
        folds="strips" if place is not None else "chance",
        patches=len(rows),
    )


def knn_gap(scene: Scene) -> Measured:
    """How much better a patch's class is told from its own slide than from others (PANDA-PLUS-Bench, 2512.14922).

    Ebbert and Della Corte: accuracy of a 5-NN classifier within a slide minus that with the slide left out, each the
    mean over slides. They hold out a fifth of a slide by chance and measure Euclidean distance; here every patch is
    held out alone (no chance), and distance is the angle. Slides of a single class are left out of both terms: within
    them nothing can be wrong. Slides of fewer than k + 1 patches are left out too.
    """
    label = scene.need("label")
    _need_slides(scene)
    k, classes = scene.options.gap_k, int(label.max()) + 1
    across = vote(scene.neighbours(k, other_slides=True), label, classes) == label
    within_by, across_by, counted = np.zeros(scene.slides), np.zeros(scene.slides), np.zeros(scene.slides)
    for slide in range(scene.slides):
        rows = np.flatnonzero(scene.slide == slide)
        if len(rows) <= k or len(np.unique(label[rows])) < 2:
            continue
        own = scene.features[rows]
        within_by[slide] = (vote(nearest(own, own, k, themselves=True), label[rows], classes) == label[rows]).mean()
        across_by[slide] = across[rows].mean()
        counted[slide] = 1
    if not counted.any():
        raise AbsentError(f"no slide has two classes and more than {k} patches")
    return measured(
        Share(above=within_by - across_by, below=counted),
        scene.weights,
        chance=0.0,
        within=float(within_by.sum() / counted.sum()),
        across=float(across_by.sum() / counted.sum()),
        k=k,
    )


def _need_slides(scene: Scene) -> None:
    if scene.slides < 2:
        raise AbsentError("there is one slide only")


def _evenly(group: Ints, limit: int, seed: int) -> Ints:
    """At most `limit` rows, about equally many of each group, in their order."""
    if len(group) <= limit:
        return np.arange(len(group))
    random = np.random.default_rng(seed)
    each = max(1, limit // len(np.unique(group)))
    chosen = [random.permutation(np.flatnonzero(group == one))[:each] for one in np.unique(group)]
    return np.sort(np.concatenate(chosen))
