"""Engines that take one set of pixels at a time, while it is in the cache: those of the CPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from threading import Lock
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from exaone_prep.stain.algebra import Matrix3, Vector
from exaone_prep.stain.engine import AngleQuery, ConcentrationQuery, Loaded, Moments

_TABLES_KEPT: Final = 16


class Pixels(Protocol):
    """One set of pixels, loaded on an engine."""

    def moments(self) -> Moments:
        """Exact sums over the kept pixels."""
        ...

    def pseudo_angles(self, first: Vector, second: Vector, ranks: tuple[int, int]) -> tuple[float, float]:
        """The answer to an `AngleQuery`; `moments` comes before."""
        ...

    def concentrations(self, inverse: tuple[Vector, Vector], rank: int) -> tuple[float, float]:
        """The answer to a `ConcentrationQuery`."""
        ...


class PixelEngine(Protocol):
    """The work on one set of pixels."""

    name: str

    def load(self, pixels: NDArray[np.uint8]) -> Pixels:
        """Prepare uint8 (N, 3) pixels for a fit."""
        ...

    def tables(self, corrections: Sequence[Matrix3]) -> NDArray[np.float32]:
        """The float32 (N, 3, 256, 4) tables of `exaone_prep.stain.tables`, bit for bit."""
        ...

    def apply(
        self,
        pixels: NDArray[np.uint8],
        tables: NDArray[np.float32],
        out: NDArray[np.uint8],
        sums: NDArray[np.int64],
    ) -> None:
        """Write trunc(min(255, (a · b) · c)) of the table entries a, b, c of each pixel, and the sums of that.

        Args:
            pixels: uint8 (N, 3).
            tables: float32 (3, 256, 4), C-contiguous; see `exaone_prep.stain.tables`.
            out: uint8 (N, 3), C-contiguous; may not overlap `pixels`.
            sums: int64 (6,); receives what `exaone_prep.channel_sums.count_channels` gives of `out`.
        """
        ...

    def count(self, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
        """What `exaone_prep.channel_sums.count_channels` gives of uint8 (N, 3) pixels."""
        ...


class OneByOne:
    """Makes an `Engine` of a `PixelEngine`."""

    def __init__(self, pixel_engine: PixelEngine) -> None:
        self.name = pixel_engine.name
        self.pixel_engine = pixel_engine
        self._tables: OrderedDict[Matrix3, NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()

    def sets_at_once(self, pixels_per_set: int) -> int:  # noqa: ARG002 (the same for all)
        """One: all of a patch is done before the next one takes its place in the cache."""
        return 1

    def lanes(self, threads: int) -> int:
        """As many as are offered: each works on patches of its own."""
        return threads

    def load(self, sets: NDArray[np.uint8]) -> AbstractContextManager[Loaded]:
        """Have uint8 (N, P, 3) pixels ready for work."""
        return _Loaded(self, sets)

    def tables_of(self, correction: Matrix3) -> NDArray[np.float32]:
        """The tables of a correction, float32 (3, 256, 4); those of the latest few are kept."""
        with self._lock:
            known = self._tables.get(correction)
        if known is None:
            known = self.pixel_engine.tables([correction])[0]
            with self._lock:
                self._tables[correction] = known
                if len(self._tables) > _TABLES_KEPT:
                    self._tables.popitem(last=False)
        return known


class _Loaded:
    def __init__(self, owner: OneByOne, sets: NDArray[np.uint8]) -> None:
        self._owner = owner
        self._engine = owner.pixel_engine
        self._sets = sets
        self._pixels: list[Pixels] = []

    def __enter__(self) -> Loaded:
        return self

    def __exit__(self, *_: object) -> None:
        self._pixels.clear()

    def moments(self) -> list[Moments]:
        self._pixels = [self._engine.load(pixels) for pixels in self._sets]
        return [pixels.moments() for pixels in self._pixels]

    def pseudo_angles(self, queries: Sequence[AngleQuery | None]) -> list[tuple[float, float] | None]:
        return [
            None if query is None else pixels.pseudo_angles(*query)
            for pixels, query in zip(self._pixels, queries, strict=True)
        ]

    def concentrations(self, queries: Sequence[ConcentrationQuery | None]) -> list[tuple[float, float] | None]:
        return [
            None if query is None else pixels.concentrations(*query)
            for pixels, query in zip(self._pixels, queries, strict=True)
        ]

    def apply(self, corrections: Sequence[Matrix3 | None], out: NDArray[np.uint8], sums: NDArray[np.int64]) -> None:
        for number, correction in enumerate(corrections):
            pixels, target = self._sets[number], out[number]
            if correction is None:
                target[...] = pixels
                sums[number] = self._engine.count(target)
            else:
                self._engine.apply(pixels, self._owner.tables_of(correction), target, sums[number])
