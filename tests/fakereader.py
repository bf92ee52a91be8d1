"""A slide that is an array in memory, with places that cannot be decoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exaone_prep.slides import ClaimedMpp, Level, SlideInfo, UnreadableRegionError
from exaone_prep.slides.reader import check_region

Rgb = NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""x, y, width and height in level-0 pixels."""


class FakeReader:
    """Serves levels from arrays; each read of a damaged place fails, and is counted.

    Attributes:
        reads: Level, x, y, width and height of every read, failed ones included.
        closed: Whether it was closed.
    """

    def __init__(
        self,
        *levels: Rgb,
        mpp: float | None = 0.5,
        damaged: Sequence[Box] = (),
        background: tuple[int, int, int] = (255, 255, 255),
    ) -> None:
        self._pixels = levels
        self._damaged = damaged
        self.reads: list[tuple[int, int, int, int, int]] = []
        self.closed = False
        height, width = levels[0].shape[:2]
        self.info = SlideInfo(
            reader="openslide",
            vendor="fake",
            levels=tuple(
                Level(width_px=level.shape[1], height_px=level.shape[0], downsample=width / level.shape[1], exact=True)
                for level in levels
            ),
            claimed_mpp=(ClaimedMpp(x_um_per_px=mpp, y_um_per_px=mpp, source="vendor"),) if mpp else (),
            objective_power=None,
            bounds_px=(0, 0, width, height),
            background=background,
            properties={},
            icc_sha256=None,
        )

    def read(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> Rgb:
        """See `SlideReader.read`."""
        check_region(self.info.levels, level, x_px, y_px, width_px, height_px)
        self.reads.append((level, x_px, y_px, width_px, height_px))
        scale = self.info.levels[level].downsample
        for left, top, width, height in self._damaged:
            across = x_px * scale < left + width and (x_px + width_px) * scale > left
            down = y_px * scale < top + height and (y_px + height_px) * scale > top
            if across and down:
                raise UnreadableRegionError(f"damaged at ({left}, {top})")
        return self._pixels[level][y_px : y_px + height_px, x_px : x_px + width_px].copy()

    def close(self) -> None:
        """See `SlideReader.close`."""
        self.closed = True
