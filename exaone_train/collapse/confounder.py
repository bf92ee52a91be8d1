"""Whether neighbourhoods follow the tissue or what confounds it: the centre, or the scanner."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exaone_train.collapse.folds import whole_groups
from exaone_train.collapse.interval import Share, mean_over_patches, sums
from exaone_train.collapse.measured import AbsentError, Measured, measured
from exaone_train.collapse.scene import INDEX_K, Confounder, Scene
from exaone_train.collapse.slide import silhouettes
from exaone_train.logistic import fit
from exaone_train.neighbours import Neighbours, vote

Ints = NDArray[np.int64]

PROBE_FOLDS = 5


def same_group_knn(scene: Scene, by: Confounder) -> Measured:
    """Share of a patch's k nearest neighbours on other slides that come from its own centre (or scanner).

    Its chance level is the share of such patches among all patches of other slides, mean over patches.
    """
    group = scene.need(by)
    near = scene.neighbours(min(scene.options.k, len(scene.table) - 1), other_slides=True)
    same = np.where(near.found, group[near.index] == group[:, None], np.nan)
    others = len(scene.table) - scene.per_slide[scene.slide]
    pairs = np.zeros((scene.slides, int(group.max()) + 1))
    np.add.at(pairs, (scene.slide, group), 1)
    alike = pairs.sum(axis=0)[group] - pairs[scene.slide, group]
    return measured(
        mean_over_patches(_mean(same), scene.slide, scene.slides),
        scene.weights,
        chance=float((alike / np.maximum(1, others)).mean()),
        k=near.index.shape[1],
    )


def silhouette_group(scene: Scene, by: Confounder) -> Measured:
    """Mean silhouette of patches by centre (or scanner), as `silhouette_slide`."""
    group = scene.need(by)
    return measured(mean_over_patches(silhouettes(scene.features, group), scene.slide, scene.slides), scene.weights)


def group_probe(scene: Scene, by: Confounder) -> Measured:
    """Accuracy of a linear classifier that is to name the centre (or scanner) of slides it has not seen.

    Five folds of whole patients, or of whole slides where patients are not known; fewer where a centre has fewer.
    Logistic regression on standardised features with a weight decay of 10⁻³. Chance is the share of the largest centre.
    """
    group = scene.need(by)
    patient = scene.codes("patient_id")
    unit = scene.slide if patient is None else patient
    per_group = [len(np.unique(unit[group == one])) for one in range(int(group.max()) + 1)]
    folds = min(PROBE_FOLDS, *per_group)
    if folds < 2:
        raise AbsentError(f"a {by} has one {'slide' if patient is None else 'patient'} only")
    random = np.random.default_rng(scene.options.seed)
    limit = scene.options.probe_patches
    rows = np.sort(random.permutation(len(scene.table))[:limit])
    fold = whole_groups(unit, group, folds, scene.options.seed)[rows]
    correct = np.full(len(scene.table), np.nan)
    for held_out in range(folds):
        train, test = rows[fold != held_out], rows[fold == held_out]
        if len(np.unique(group[train])) < 2 or not len(test):
            continue
        model = fit(scene.features[train], group[train], int(group.max()) + 1)
        correct[test] = model.probabilities(scene.features[test]).argmax(axis=1) == group[test]
    return measured(
        mean_over_patches(correct, scene.slide, scene.slides),
        scene.weights,
        chance=float(np.bincount(group[rows]).max() / len(rows)),
        folds=f"{folds} of {'slides' if patient is None else 'patients'}",
        patches=len(rows),
    )


def robustness_index(scene: Scene, by: Confounder) -> Measured:
    """PathoROB's robustness index (Kömen et al., arXiv 2507.17845): 1, only tissue matters; 0, only the confounder.

    SO / (SO + OS): among the k nearest neighbours on other slides, SO have the same class and another centre, OS
    another class and the same centre; both pooled over all patches. Neighbours alike in both or in neither tell nothing
    and do not count; `support` is the share of patches that have neighbours which do. k is the candidate at which the
    same neighbours tell the class best (balanced accuracy of their vote), as in the released code, unless `index_k`
    gives it. All patches are one scope, which `croma` calls `all`; PathoROB takes pairs of two classes and two centres
    for its TCGA set. Intervals are over slides, PathoROB's over patches.
    Chance is 0.5 where classes and centres are balanced and independent.
    """
    label, group = scene.need("label"), scene.need(by)
    near, k = _index_neighbours(scene, label)
    same_label = near.found & (label[near.index] == label[:, None])
    same_group = near.found & (group[near.index] == group[:, None])
    favourable = (same_label & ~same_group).sum(axis=1)
    unfavourable = (near.found & ~same_label & same_group).sum(axis=1)
    share = Share(
        above=sums(favourable, scene.slide, scene.slides),
        below=sums(favourable + unfavourable, scene.slide, scene.slides),
    )
    support = float((favourable + unfavourable > 0).mean())
    return measured(share, scene.weights, k=k, support=support)


def neighbour_ratio(scene: Scene, by: Confounder) -> Measured:
    """Robustness index of de Jong, Marcus and Teuwen (arXiv 2501.18055): above 1, tissue dominates the centre.

    The number of neighbours of a patch's own class over the number of neighbours of its own centre, summed over
    patches and the k nearest. The paper gives the ratio; whether it takes the query's own slide among the neighbours,
    and its k for every figure, could not be established here: this takes neighbours on other slides only, as
    PathoROB does, and k = 50 unless told otherwise.
    """
    label, group = scene.need("label"), scene.need(by)
    near = scene.neighbours(min(scene.options.ratio_k, len(scene.table) - 1), other_slides=True)
    alike = (near.found & (label[near.index] == label[:, None])).sum(axis=1)
    together = (near.found & (group[near.index] == group[:, None])).sum(axis=1)
    share = Share(above=sums(alike, scene.slide, scene.slides), below=sums(together, scene.slide, scene.slides))
    return measured(share, scene.weights, k=near.index.shape[1])


def balanced_accuracy(predicted: Ints, label: Ints) -> float:
    """Mean over the classes that occur of the share of their rows that are predicted right."""
    return float(np.mean([(predicted[label == one] == one).mean() for one in np.unique(label)]))


def _index_neighbours(scene: Scene, label: Ints) -> tuple[Neighbours, int]:
    """Neighbours on other slides, and how many of them."""
    reachable = len(scene.table) - int(scene.per_slide.min())
    if scene.options.index_k is not None:
        k = min(scene.options.index_k, reachable)
        return scene.neighbours(k, other_slides=True), k
    candidates = [k for k in INDEX_K if k <= reachable] or [1]
    near = scene.neighbours(candidates[-1], other_slides=True)
    score = []
    for k in candidates:
        first = Neighbours(index=near.index[:, :k], similarity=near.similarity[:, :k])
        score.append(balanced_accuracy(vote(first, label, int(label.max()) + 1), label))
    k = candidates[int(np.argmax(score))]
    return Neighbours(index=near.index[:, :k], similarity=near.similarity[:, :k]), k


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each row's numbers; nan for none."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=1)
    mean = np.full(len(values), np.nan)
    np.divide(total, known.sum(axis=1), out=mean, where=known.any(axis=1))
    return mean
