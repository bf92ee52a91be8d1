"""Exact nearest neighbours by cosine similarity, in blocks of bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

BLOCK_BYTES = 64 * 2**20
"""Of one block of similarities; choosing the largest needs about four times as much."""


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The k nearest of each query, nearest first.

    Attributes:
        index: n×k rows of the references; −1 where a query has fewer.
        similarity: n×k cosines; −inf there.
    """

    index: Ints
    similarity: Floats

    @property
    def found(self) -> NDArray[np.bool_]:
        """n×k: whether there is such a neighbour."""
        return self.index >= 0


def unit(features: NDArray[np.floating]) -> Floats:
    """Features of length 1, n×d float32."""
    scaled = features.astype(np.float32)
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    return scaled


def nearest(
    queries: Floats,
    references: Floats,
    k: int,
    *,
    query_group: Ints | None = None,
    reference_group: Ints | None = None,
    themselves: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> Neighbours:
    """The k references of largest cosine similarity for each query; of equal ones the first.

    Args:
        queries: n×d, of length 1 (`unit`).
        references: m×d, of length 1.
        k: At most m are found.
        query_group: n; with `reference_group`, references of a query's own group do not count.
        reference_group: m.
        themselves: Queries and references are the same rows, and none is its own neighbour.
        block_bytes: Bound for one block of similarities.
    """
    count, among = len(queries), len(references)
    k = min(k, among)
    index = np.full((count, k), -1, dtype=np.int64)
    similarity = np.full((count, k), -np.inf, dtype=np.float32)
    rows = max(1, block_bytes // (4 * max(1, among)))
    for start in range(0, count, rows):
        here = slice(start, min(count, start + rows))
        cosines = queries[here] @ references.T
        if themselves:
            cosines[np.arange(cosines.shape[0]), np.arange(here.start, here.stop)] = -np.inf
        if query_group is not None and reference_group is not None:
            cosines[query_group[here, None] == reference_group[None, :]] = -np.inf
        index[here], similarity[here] = _largest(cosines, k)
    index[np.isneginf(similarity)] = -1
    return Neighbours(index=index, similarity=similarity)


def _largest(cosines: Floats, k: int) -> tuple[Ints, Floats]:
    """Columns and values of the k largest per row, in descending order; of equal ones the first."""
    if k < cosines.shape[1]:
        chosen = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        least = np.take_along_axis(cosines, chosen, axis=1).min(axis=1, keepdims=True)
        for row in np.flatnonzero((cosines >= least).sum(axis=1) > k):  # ties at the border, which are split by chance
            chosen[row] = np.argsort(-cosines[row], kind="stable")[:k]
    else:
        chosen = np.broadcast_to(np.arange(cosines.shape[1]), cosines.shape)
    chosen = np.sort(chosen, axis=1)
    values = np.take_along_axis(cosines, chosen, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1), np.take_along_axis(values, order, axis=1)


def vote(neighbours: Neighbours, labels: Ints, classes: int) -> Ints:
    """The most frequent label among each query's neighbours; of equally frequent ones the smallest; −1 for none."""
    count = neighbours.index.shape[0]
    votes = np.zeros((count, classes), dtype=np.int64)
    query, _ = np.nonzero(neighbours.found)
    np.add.at(votes, (query, labels[neighbours.index[neighbours.found]]), 1)
    return np.where(votes.any(axis=1), votes.argmax(axis=1), -1)
