"""What an engine does: the work per pixel. The decisions between are made once, in `fitting` and `batch`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

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


class AngleQuery(NamedTuple):
    """Which two order statistics (ranks from 0) of the kept pixels' pseudo-angles from `first` towards `second`."""

    first: Vector
    second: Vector
    ranks: tuple[int, int]


class ConcentrationQuery(NamedTuple):
    """Which order statistic (rank from 0) of the concentrations of all pixels, per row of the pseudo-inverse."""

    inverse: tuple[Vector, Vector]
    rank: int


class Loaded(Protocol):
    """Sets of pixels on an engine: of a patch each, or one sample of a slide. Queries are one per set, or None."""

    def moments(self) -> list[Moments]:
        """Exact sums over the kept pixels; they come before the angles."""
        ...

    def pseudo_angles(self, queries: Sequence[AngleQuery | None]) -> list[tuple[float, float] | None]:
        """The order statistics asked for."""
        ...

    def concentrations(self, queries: Sequence[ConcentrationQuery | None]) -> list[tuple[float, float] | None]:
        """The order statistics asked for, of both stains."""
        ...

    def apply(self, corrections: Sequence[Matrix3 | None], out: NDArray[np.uint8], sums: NDArray[np.int64]) -> None:
        """Write what the corrections make of the sets into `out`, uint8 (N, P, 3); a set without one as it is.

        `sums`, int64 (N, 6), receives what `exaone_prep.channel_sums.count_channels` gives of each set in `out`.
        The last thing asked: an engine may work in place of the pixels it loaded.
        """
        ...


class Engine(Protocol):
    """Pixel work on one kind of device; all engines give equal bits, and serve several threads at once."""

    name: str

    def sets_at_once(self, pixels_per_set: int) -> int:
        """How many sets are best loaded together."""
        ...

    def lanes(self, threads: int) -> int:
        """How many threads are best to load and work at once, where the caller offers so many."""
        ...

    def load(self, sets: NDArray[np.uint8]) -> AbstractContextManager[Loaded]:
        """Have uint8 (N, P, 3) pixels ready for work until the context ends."""
        ...
