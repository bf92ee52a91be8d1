"""Folds of patches that belong together, so that what is tested was not seen next door."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def strips(slide: Ints, place: NDArray[np.float64] | None, folds: int, seed: int) -> Ints:
    """Folds within each slide: as many strips of equal numbers of patches, across the longer side of its patches.

    A patch resembles the one beside it, so that with folds by chance a slide is told by its neighbourhoods. Where no
    places are known, chance has to do.

    Args:
        slide: n.
        place: n×2, x and y; or None.
        folds: How many.
        seed: Of chance, where no places are known.

    Returns:
        n; −1 for the patches of slides that have fewer than `folds`.
    """
    fold = np.full(len(slide), -1, dtype=np.int64)
    random = np.random.default_rng(seed)
    for one in np.unique(slide):
        rows = np.flatnonzero(slide == one)
        if len(rows) < folds:
            continue
        if place is None:
            order = random.permutation(len(rows))
        else:
            along = place[rows][:, int(np.ptp(place[rows], axis=0).argmax())]
            order = np.argsort(along, kind="stable")
        fold[rows[order]] = np.arange(len(rows)) * folds // len(rows)
    return fold


def whole_groups(group: Ints, stratum: Ints, folds: int, seed: int) -> Ints:
    """Folds of whole groups (slides or patients): each stratum's groups dealt out in turn, in a seeded order.

    Args:
        group: n.
        stratum: n; the same for all rows of a group, or its first row's is taken.
        folds: How many.
        seed: Of the order.

    Returns:
        n.
    """
    random = np.random.default_rng(seed)
    groups, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    fold = np.zeros(len(groups), dtype=np.int64)
    for one in np.unique(stratum):
        own = np.flatnonzero(stratum[first] == one)
        fold[random.permutation(own)] = np.arange(len(own)) % folds
    return fold[inverse]
