"""A picture of a whole slide at about the tissue scale, read in blocks and in spite of damaged places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exaone_prep.errors import SlideProblemError
from exaone_prep.resample import reduce_area
from exaone_prep.slides import SlideReader, UnreadableRegionError

BLOCK_PX: Final = 2048
MAX_FAILURES: Final = 400
"""Failed reads after which a slide is given up: each one costs a reopened file."""

_LEVEL_SLACK: Final = 1.25
"""A level up to this much coarser than asked serves as well: the mask's scale is no contract."""


@dataclass(frozen=True, kw_only=True)
class Overview:
    """A slide at about 8 µm/px.

    Attributes:
        rgb: uint8 (H, W, 3).
        unreadable: bool (H, W), where the file could not be decoded.
        mpp: µm per pixel.
        scale_px: Side of an overview pixel, in level-0 pixels.
    """

    rgb: NDArray[np.uint8]
    unreadable: NDArray[np.bool_]
    mpp: float
    scale_px: float


def read_overview(reader: SlideReader, *, slide_mpp: float, target_mpp: float) -> Overview:
    """Read the whole slide from its coarsest suitable level, reduced by area.

    Args:
        reader: An open slide.
        slide_mpp: µm per pixel of level 0.
        target_mpp: µm per pixel wanted, about.

    Raises:
        SlideProblemError: ("unreadable") where next to nothing can be read.
    """
    levels = reader.info.levels
    usable = [
        number
        for number, level in enumerate(levels)
        if level.exact and slide_mpp * level.downsample <= target_mpp * _LEVEL_SLACK
    ]
    number = max(usable, default=0)
    level = levels[number]
    level_mpp = slide_mpp * level.downsample
    factor = max(1, round(target_mpp / level_mpp))
    height, width = -(-level.height_px // factor), -(-level.width_px // factor)
    overview = Overview(
        rgb=np.empty((height, width, 3), dtype=np.uint8),
        unreadable=np.zeros((height, width), dtype=np.bool_),
        mpp=level_mpp * factor,
        scale_px=level.downsample * factor,
    )
    overview.rgb[:] = reader.info.background
    painter = _Painter(reader, number, factor, overview)
    step = max(1, BLOCK_PX // factor)
    for y in range(0, height, step):
        for x in range(0, width, step):
            painter.paint(x, y, min(step, width - x), min(step, height - y))
    return overview


class _Painter:
    def __init__(self, reader: SlideReader, level: int, factor: int, overview: Overview) -> None:
        self._reader = reader
        self._level = level
        self._factor = factor
        self._overview = overview
        self._failures = 0

    def paint(self, x: int, y: int, width: int, height: int) -> None:
        """Fill a rectangle of overview pixels; around a damaged place in ever smaller pieces."""
        size = self._reader.info.levels[self._level]
        left, top = x * self._factor, y * self._factor
        right = min(left + width * self._factor, size.width_px)
        bottom = min(top + height * self._factor, size.height_px)
        try:
            pixels = self._reader.read(self._level, left, top, right - left, bottom - top)
        except UnreadableRegionError as error:
            self._failures += 1
            if self._failures > MAX_FAILURES:
                raise SlideProblemError(
                    "unreadable",
                    f"Over {MAX_FAILURES} places of it cannot be decoded; is the file whole? The last error: {error}",
                ) from error
            if width <= 4 and height <= 4:
                self._overview.unreadable[y : y + height, x : x + width] = True
                return
            for part_y, part_height in _halves(y, height):
                for part_x, part_width in _halves(x, width):
                    self.paint(part_x, part_y, part_width, part_height)
            return
        # The last row and column may be cut by the slide's edge: repeat the edge, so that the mean is of real pixels.
        missing = (height * self._factor - pixels.shape[0], width * self._factor - pixels.shape[1])
        if any(missing):
            pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        reduced = pixels if self._factor == 1 else reduce_area(pixels, self._factor)
        self._overview.rgb[y : y + height, x : x + width] = reduced


def _halves(start: int, length: int) -> list[tuple[int, int]]:
    if length <= 4:
        return [(start, length)]
    half = length // 2
    return [(start, half), (start + half, length - half)]
