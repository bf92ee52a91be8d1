"""Whether k-means finds tissue or what confounds it (the clustering score of PathoROB)."""

from __future__ import annotations

import warnings
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from exaone_train.collapse.interval import Floats64
from exaone_train.collapse.measured import AbsentError, Measured
from exaone_train.collapse.scene import Confounder, Options, Scene
from exaone_train.collapse.slide import silhouettes

Ints = NDArray[np.int64]

SELECTION_STARTS = 5
TRIAL_STARTS = 5


def clustering_score(scene: Scene, by: Confounder) -> Measured:
    """PathoROB's clustering score (Kömen et al., arXiv 2507.17845): 1, k-means finds tissue; −1, the confounder.

    For each pair of classes and pair of centres of which all four combinations occur: k-means on features of length
    1, its number of clusters (2 … 30) that of the largest mean silhouette by cosine; the adjusted Rand index of the
    clusters with the classes minus that with the centres; mean over pairs and trials with other random starts.

    Unlike the released code (20 starts for each number of clusters, 50 trials, and the number of clusters that the
    first pair selects for all), each pair selects its own with 5 starts, and there are 10 trials; of many pairs and
    patches a seeded selection is clustered. Intervals draw slides and keep the clusters.
    """
    label, group = scene.need("label"), scene.need(by)
    pairs = _pairs(label, group)
    if not pairs:
        raise AbsentError(f"no two classes occur in two values of `{by}` each")
    random = np.random.default_rng(scene.options.seed)
    if len(pairs) > scene.options.clustering_pairs:
        chosen = np.sort(random.choice(len(pairs), scene.options.clustering_pairs, replace=False))
        pairs = [pairs[one] for one in chosen]
    values, drawn, counts = [], [], []
    for classes, centres in pairs:
        rows = np.flatnonzero(np.isin(label, classes) & np.isin(group, centres))
        if len(rows) > scene.options.clustering_patches:
            rows = np.sort(random.choice(rows, scene.options.clustering_patches, replace=False))
        clusters = cluster(scene.features[rows], scene.options)
        counts.append(int(clusters[0].max()) + 1)
        ones = np.ones((1, scene.slides))
        for trial in clusters:
            tissue = _tables(trial, label[rows] == classes[1], scene.slide[rows], scene.slides)
            place = _tables(trial, group[rows] == centres[1], scene.slide[rows], scene.slides)
            values.append(float(_adjusted_rand(tissue, ones)[0] - _adjusted_rand(place, ones)[0]))
            drawn.append(_adjusted_rand(tissue, scene.weights) - _adjusted_rand(place, scene.weights))
    return Measured(
        value=float(np.mean(values)),
        drawn=np.mean(drawn, axis=0),
        chance=0.0,
        details={"pairs": len(pairs), "trials": scene.options.clustering_trials, "clusters": float(np.mean(counts))},
    )


def cluster(features: NDArray[np.float32], options: Options) -> list[Ints]:
    """Clusters of rows of length 1, by trial; their number is that of the largest silhouette.

    Args:
        features: n×d.
        options: Seed, most clusters and trials.
    """
    different = len(np.unique(features, axis=0))
    best, most = 2, -np.inf
    for clusters in range(2, min(options.clustering_most + 1, different)):
        found = _k_means(features, clusters, options.seed, SELECTION_STARTS)
        silhouette = float(silhouettes(features, np.unique(found, return_inverse=True)[1]).mean())
        if silhouette > most:
            best, most = clusters, silhouette
    trials = range(options.clustering_trials)
    return [_k_means(features, best, options.seed + 1 + trial, TRIAL_STARTS) for trial in trials]


def _k_means(features: NDArray[np.float32], clusters: int, seed: int, starts: int) -> Ints:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than clusters
        found = KMeans(clusters, init="random", n_init=starts, random_state=seed).fit_predict(features)
    return np.asarray(found, dtype=np.int64)


def _pairs(label: Ints, group: Ints) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs of classes and pairs of centres of which all four combinations occur."""
    there = np.zeros((int(label.max()) + 1, int(group.max()) + 1), dtype=bool)
    there[label, group] = True
    return [
        (classes, centres)
        for classes, centres in product(combinations(range(there.shape[0]), 2), combinations(range(there.shape[1]), 2))
        if there[np.ix_(classes, centres)].all()
    ]


def _tables(cluster_of: Ints, other: NDArray[np.bool_], slide: Ints, slides: int) -> Floats64:
    """Per slide, how many patches are in each cluster and of either kind: slides×clusters×2."""
    tables = np.zeros((slides, int(cluster_of.max()) + 1, 2))
    np.add.at(tables, (slide, cluster_of, other.astype(np.int64)), 1)
    return tables


def _adjusted_rand(tables: Floats64, weights: Floats64) -> Floats64:
    """Adjusted Rand index (Hubert and Arabie 1985) of clusters and kinds for each row of weights of slides."""
    joint = np.tensordot(weights, tables, axes=1)
    total = joint.sum(axis=(1, 2))
    together = _twos(joint).sum(axis=(1, 2))
    rows, columns = _twos(joint.sum(axis=2)).sum(axis=1), _twos(joint.sum(axis=1)).sum(axis=1)
    expected = rows * columns / np.maximum(_twos(total), 1)
    span = (rows + columns) / 2 - expected
    index: Floats64 = np.ones_like(span)
    np.divide(together - expected, span, out=index, where=np.abs(span) > 1e-9)
    return index


def _twos(count: Floats64) -> Floats64:
    pairs: Floats64 = count * (count - 1) / 2
    return pairs
