"""Patches of one slide, at the requested scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exaone_prep.resample import reduce_area, resize_area
from exaone_prep.slides import LevelChoice, SlideReader


class PatchReader:
    """Reads a square of the chosen level and brings it to the patch size; survey and cut read through it alike."""

    def __init__(self, reader: SlideReader, choice: LevelChoice, size_px: int) -> None:
        self._reader = reader
        self._choice = choice
        self._size_px = size_px

    def read(self, x_px: int, y_px: int) -> NDArray[np.uint8]:
        """The patch whose upper left corner is at pixel (x, y) of the level: uint8 (size, size, 3).

        Raises:
            UnreadableRegionError: The file is damaged there.
            UnreachableError: The file cannot be reached.
        """
        side_px = self._choice.read_size_px
        pixels = self._reader.read(self._choice.level, x_px, y_px, side_px, side_px)
        if self._choice.reduction == 1:
            return pixels
        if self._choice.reduction is not None:
            return reduce_area(pixels, self._choice.reduction)
        return resize_area(pixels, self._size_px)
