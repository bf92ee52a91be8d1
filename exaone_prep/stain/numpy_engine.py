"""The definition in plain arrays: the engine that needs NumPy alone, and runs on CuPy's arrays as well.

Deterministic by construction: table look-ups, separate element-wise ufuncs, integer sums and selection. Two float64
lanes travel as one complex128, four float32 lanes likewise, because a look-up then costs the same as one of a
single lane; complex addition is the addition of both lanes. NumPy's functions hand CuPy's arrays on to CuPy, which
compiles each of them to a kernel of its own, so that nothing is fused there either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exaone_prep.stain.algebra import Matrix3, Vector
from exaone_prep.stain.density import EXACT_SUM_PIXELS, MAX_KEPT_LEVEL, OD_FIXED, OD_TABLE
from exaone_prep.stain.engine import Moments
from exaone_prep.stain.tables import tables

_BLOCK_PIXELS: Final = 16_384
_SAMPLE: Final = 2048
_SAMPLE_FROM: Final = 16_384


class NumpyPixels:
    """Pixels of one fit, as planes."""

    def __init__(self, pixels: NDArray[np.uint8], arrays: Any = np) -> None:
        self._arrays = arrays
        self._all = arrays.ascontiguousarray(arrays.asarray(pixels).T)
        red, green, blue = self._all
        kept = np.flatnonzero(np.maximum(np.maximum(red, green), blue) <= MAX_KEPT_LEVEL)
        self._kept = self._all if len(kept) == len(red) else np.stack([plane.take(kept) for plane in self._all])

    def moments(self) -> Moments:
        """Exact sums over the kept pixels: int64 within a chunk, Python integers across."""
        table = self._arrays.asarray(OD_FIXED)
        sums, products = [0] * 3, [0] * 6
        for chunk in _chunks(self._kept):
            densities = [table.take(plane) for plane in chunk]
            for i, density in enumerate(densities):
                sums[i] += int(density.sum())
            for i, (a, b) in enumerate(((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))):
                products[i] += int(np.dot(densities[a], densities[b]))
        s, p = sums, products
        return Moments(
            n_kept=self._kept.shape[1], sums=(s[0], s[1], s[2]), products=(p[0], p[1], p[2], p[3], p[4], p[5])
        )

    def pseudo_angles(self, first: Vector, second: Vector, ranks: tuple[int, int]) -> tuple[float, float]:
        """Order statistics of the pseudo-angle of the kept pixels; see `pseudo_angle`."""
        angles = self._arrays.empty(self._kept.shape[1], dtype=np.float64)
        for start, projected in self._project(self._kept, first, second):
            angles[start : start + len(projected)] = pseudo_angle(projected.real, projected.imag)
        return order_statistic(angles, ranks[0]), order_statistic(angles, ranks[1])

    def concentrations(self, inverse: tuple[Vector, Vector], rank: int) -> tuple[float, float]:
        """Order statistic of the two concentrations of all pixels."""
        values = self._arrays.empty((2, self._all.shape[1]), dtype=np.float64)
        for start, projected in self._project(self._all, *inverse):
            values[0, start : start + len(projected)] = projected.real
            values[1, start : start + len(projected)] = projected.imag
        return order_statistic(values[0], rank), order_statistic(values[1], rank)

    def _project(
        self, planes: NDArray[np.uint8], first: Vector, second: Vector
    ) -> Iterator[tuple[int, NDArray[np.complex128]]]:
        """Chunks of (OD·first) + i·(OD·second), each with its start; the products are added in channel order."""
        table = np.empty((3, 256), dtype=np.complex128)
        for channel in range(3):
            table[channel].real = np.multiply(OD_TABLE, first[channel])
            table[channel].imag = np.multiply(OD_TABLE, second[channel])
        words = self._arrays.asarray(table)
        for start in range(0, planes.shape[1], _BLOCK_PIXELS):
            red, green, blue = planes[:, start : start + _BLOCK_PIXELS]
            projected = words[0].take(red)
            np.add(projected, words[1].take(green), out=projected)
            np.add(projected, words[2].take(blue), out=projected)
            yield start, projected


class NumpyEngine:
    """Look-ups and products in arrays, a block at a time so that they stay in the cache."""

    def __init__(self, arrays: Any = np) -> None:
        """Choose whose arrays do the work.

        Args:
            arrays: `numpy` or `cupy`.
        """
        self.name = str(arrays.__name__)
        self._arrays = arrays

    def load(self, pixels: NDArray[np.uint8]) -> NumpyPixels:
        """Prepare uint8 (N, 3) pixels for a fit."""
        return NumpyPixels(pixels, self._arrays)

    def tables(self, corrections: Sequence[Matrix3]) -> NDArray[np.float32]:
        """Tables of fits, by `exaone_prep.stain.tables.tables`."""
        return tables(corrections)

    def apply(
        self,
        pixels: NDArray[np.uint8],
        tables: NDArray[np.float32],
        out: NDArray[np.uint8],
        sums: NDArray[np.int64],
    ) -> None:
        """See `PixelEngine`."""
        words = self._arrays.asarray(tables.view(np.complex128).reshape(3, 256))
        for start in range(0, len(pixels), _BLOCK_PIXELS):
            source = self._arrays.asarray(pixels[start : start + _BLOCK_PIXELS])
            a, b, c = (_lanes(words[channel].take(source[:, channel])) for channel in range(3))
            np.multiply(a, b, out=a)
            np.multiply(a, c, out=a)
            np.minimum(a, np.float32(255.0), out=a)
            levels, target = _on_host(a.astype(np.uint8)), out[start : start + _BLOCK_PIXELS]
            for channel in range(3):
                target[:, channel] = levels[:, channel]
        sums[:] = self.count(out)

    def count(self, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
        """See `PixelEngine`; without numba, which may be why this engine is in use."""
        levels = pixels.astype(np.int64)
        return np.concatenate([levels.sum(axis=0), np.square(levels).sum(axis=0)])


def pseudo_angle(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A measure in (−2, 2] that grows with the angle atan2(y, x), by one division.

    It is y/(|x|+|y|) where x ≥ 0, continued as ±2 − y/(|x|+|y|) beyond; 0 for the null vector.
    `exaone_prep.stain.fitting.direction` goes back.

    Args:
        x: float64 (N,).
        y: float64 (N,).
    """
    y = y + 0.0  # −0.0 becomes 0.0, so that angles on the cut are all +180°
    length = np.add(np.abs(x), np.abs(y))
    length[length == 0.0] = 1.0
    angle = np.divide(y, length)
    behind = x < 0.0
    if behind.any():
        angle[behind] = np.subtract(np.copysign(2.0, y[behind]), angle[behind])
    return angle


def order_statistic(values: NDArray[np.float64], rank: int) -> float:
    """The value of the given rank (0 is the smallest), without sorting; the choice of pivots never shows.

    Args:
        values: float64 (N,), finite.
        rank: 0 to N−1.
    """
    if len(values) >= _SAMPLE_FROM:
        # A percentile near an end lies in a short tail: a bound from a sample cuts it off, counting makes sure of it.
        sample = np.sort(values[:: len(values) // _SAMPLE])
        place = rank * len(sample) // len(values)
        margin = len(sample) // 64
        if place + margin < len(sample) // 4:
            tail = values[values <= sample[place + margin]]
            if rank < len(tail):
                values = tail
        elif place - margin > len(sample) * 3 // 4:
            tail = values[values >= sample[place - margin]]
            if len(values) - rank <= len(tail):
                values, rank = tail, rank - (len(values) - len(tail))
    return float(np.partition(values, rank)[rank]) + 0.0


def _chunks(planes: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [planes[:, start : start + EXACT_SUM_PIXELS] for start in range(0, planes.shape[1], EXACT_SUM_PIXELS)]


def _lanes(words: NDArray[np.complex128]) -> NDArray[np.float32]:
    return words.view(np.float32).reshape(*words.shape, 4)


def _on_host(array: Any) -> NDArray[np.uint8]:
    """An array of CuPy's must be fetched."""
    fetched: NDArray[np.uint8] = array.get() if hasattr(array, "get") else array
    return fetched
