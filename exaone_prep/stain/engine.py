"""What an engine does: the work per pixel. The decisions between are made once, in `fitting` and `batch`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from exaone_prep.stain.algebra import Matrix3, Vector


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Exact sums over the kept pixels, in units of 2^−21 (2^−42 for products).

    Attributes:
        n_kept: Number of pixels.
        sums: Of the optical density of red, green, blue.
        products: Of red², red·green, red·blue, green², green·blue, blue².
    """

    n_kept: int
    sums: tuple[int, int, int]
    products: tuple[int, int, int, int, int, int]


class Pixels(Protocol):
    """The pixels of one fit, loaded on an engine."""

    def moments(self) -> Moments:
        """Exact sums over the kept pixels."""
        ...

    def pseudo_angles(self, first: Vector, second: Vector, ranks: tuple[int, int]) -> tuple[float, float]:
        """Order statistics (ranks from 0) of the kept pixels' pseudo-angles from `first` towards `second`."""
        ...

    def concentrations(self, inverse: tuple[Vector, Vector], rank: int) -> tuple[float, float]:
        """Order statistic (rank from 0) of the concentrations of all pixels, per row of the pseudo-inverse."""
        ...


class Engine(Protocol):
    """Pixel work on one kind of device; all engines give equal bits, and serve several threads at once."""

    name: str

    def load(self, pixels: NDArray[np.uint8]) -> Pixels:
        """Prepare uint8 (N, 3) pixels for a fit."""
        ...

    def tables(self, corrections: Sequence[Matrix3]) -> NDArray[np.float32]:
        """The float32 (N, 3, 256, 4) tables of `exaone_prep.stain.tables`, bit for bit."""
        ...

    def apply(self, patch: NDArray[np.uint8], tables: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
        """Look a uint8 (H, W, 3) patch up in float32 (3, 256, 4) tables; see `exaone_prep.stain.tables`."""
        ...
