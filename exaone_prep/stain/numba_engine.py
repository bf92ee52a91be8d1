"""The engine that numba compiles: the bits of the NumPy engine, several times faster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exaone_prep.channel_sums import count_channels
from exaone_prep.stain.algebra import Matrix3, Vector
from exaone_prep.stain.compilation import Kernels, compiled
from exaone_prep.stain.density import EXACT_SUM_PIXELS, MAX_KEPT_LEVEL, OD_FIXED, OD_TABLE
from exaone_prep.stain.engine import Moments

_OD_FIXED: Final[NDArray[np.int32]] = OD_FIXED.astype(np.int32)


class NumbaPixels:
    """Pixels of one fit, as one run of bytes."""

    def __init__(self, pixels: NDArray[np.uint8], kernels: Kernels) -> None:
        self._bytes = np.ascontiguousarray(pixels).reshape(-1)
        self._kernels = kernels
        count = len(self._bytes) // 3
        self._coarse, self._passed = np.empty((3, count), dtype=np.int16), np.empty(count, dtype=np.uint8)
        self._n_kept = 0

    def moments(self) -> Moments:
        """Exact sums over the kept pixels: int64 within a row of pixels, Python integers across rows."""
        rows = max(1, -(-len(self._bytes) // (3 * EXACT_SUM_PIXELS)))
        sums = np.empty((rows, 10), dtype=np.int64)
        self._kernels.sum_products(self._bytes, _OD_FIXED, MAX_KEPT_LEVEL, self._coarse, self._passed, sums)
        r, g, b, rr, rg, rb, gg, gb, bb, n = (sum(column) for column in zip(*sums.tolist(), strict=True))
        self._n_kept = n
        return Moments(n_kept=n, sums=(r, g, b), products=(rr, rg, rb, gg, gb, bb))

    def pseudo_angles(self, first: Vector, second: Vector, ranks: tuple[int, int]) -> tuple[float, float]:
        """Order statistics of the pseudo-angle of the kept pixels; `moments` comes before."""
        result = np.empty(2, dtype=np.float64)
        axes, places = np.array((first, second), dtype=np.float64), np.array(ranks, dtype=np.int64)
        self._kernels.pseudo_angles(
            self._bytes,
            self._coarse,
            self._passed,
            OD_TABLE,
            MAX_KEPT_LEVEL,
            self._n_kept,
            axes,
            places,
            result,
        )
        return float(result[0]), float(result[1])

    def concentrations(self, inverse: tuple[Vector, Vector], rank: int) -> tuple[float, float]:
        """Order statistic of the two concentrations of all pixels; `moments` comes before."""
        result = np.empty(2, dtype=np.float64)
        rows = np.array(inverse, dtype=np.float64)
        self._kernels.concentrations(self._bytes, self._coarse, self._passed, OD_TABLE, rows, rank, result)
        return float(result[0]), float(result[1])


class NumbaEngine:
    """Compiled loops that release the interpreter lock; one object serves any number of threads."""

    name = "numba"

    def __init__(self) -> None:
        self._kernels = compiled()

    def load(self, pixels: NDArray[np.uint8]) -> NumbaPixels:
        """Prepare uint8 (N, 3) pixels for a fit."""
        return NumbaPixels(pixels, self._kernels)

    def tables(self, corrections: Sequence[Matrix3]) -> NDArray[np.float32]:
        """What `exaone_prep.stain.tables.tables` returns."""
        matrices = np.array(corrections, dtype=np.float64).reshape(-1, 3, 3)
        result = np.zeros((len(matrices), 3, 256, 4), dtype=np.float32)
        self._kernels.tables(matrices, OD_TABLE, result)
        return result

    def apply(
        self,
        pixels: NDArray[np.uint8],
        tables: NDArray[np.float32],
        out: NDArray[np.uint8],
        sums: NDArray[np.int64],
    ) -> None:
        """See `PixelEngine`; the sums are taken while the pixels are in registers."""
        sums.fill(0)
        self._kernels.apply(np.ascontiguousarray(pixels).reshape(-1), tables.reshape(-1), out.reshape(-1), sums)

    def count(self, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
        """See `PixelEngine`."""
        return count_channels(pixels)
