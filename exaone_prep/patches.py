"""Patches of one slide, at the requested scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exaone_prep.resample import reduce_area, resize_area
from exaone_prep.slides import LevelChoice, SlideReader
from exaone_prep.slides.jpeg_tile import TileError
from exaone_prep.slides.tile_reader import TileReader


class PatchReader:
    """Reads a square of the chosen level and brings it to the patch size; survey and cut read through it alike."""

    def __init__(self, reader: SlideReader, choice: LevelChoice, size_px: int, tiles: TileReader | None = None) -> None:
        """Read through `reader`, or where `tiles` of the chosen level are given from these.

        A region with a tile that cannot be decoded is handed to the reader, whose word counts.

        Raises:
            ValueError: The tiles are reduced by a factor that is none of the patches' reduction.
        """
        if tiles is not None and (choice.reduction or 1) % tiles.scale:
            raise ValueError(f"tiles reduced by {tiles.scale} do not make patches reduced by {choice.reduction}")
        self._reader = reader
        self._choice = choice
        self._size_px = size_px
        self._tiles = tiles

    def expect(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Announce the patches that will be read, each once, so that no tile is decoded twice.

        Args:
            positions: int64 (N, 2), x and y of upper left corners, in pixels of the level.

        Returns:
            int64 (N,), the order in which to read them: what is read does not depend on it, how long it takes does.
        """
        if self._tiles is None:
            return np.arange(len(positions))
        self._tiles.expect(positions, self._choice.read_size_px)
        return self._tiles.order(positions, self._choice.read_size_px)

    def read(self, x_px: int, y_px: int) -> NDArray[np.uint8]:
        """The patch whose upper left corner is at pixel (x, y) of the level: uint8 (size, size, 3).

        Raises:
            UnreadableRegionError: The file is damaged there.
            UnreachableError: The file cannot be reached.
        """
        side_px = self._choice.read_size_px
        if self._tiles is not None:
            try:
                return self._shrink(self._tiles.read(x_px, y_px, side_px, side_px), self._tiles.scale)
            except TileError:
                pass
        return self._shrink(self._reader.read(self._choice.level, x_px, y_px, side_px, side_px), 1)

    def _shrink(self, pixels: NDArray[np.uint8], done: int) -> NDArray[np.uint8]:
        if self._choice.reduction is not None:
            return reduce_area(pixels, self._choice.reduction // done)
        return resize_area(pixels, self._size_px)
