"""Where a slide's pixels are taken from: its reader, or straight from its JPEG tiles where these give the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from exaone_prep.errors import UnreachableError
from exaone_prep.patches import PatchReader
from exaone_prep.slides import LevelChoice, SlideReader, UnreadableRegionError
from exaone_prep.slides.jpeg_tile import TileError
from exaone_prep.slides.tile_index import TileIndex, index_tiles
from exaone_prep.slides.tile_reader import TileReader

COMPARED: Final = 8
"""Planned regions that are read both ways before tiles are taken."""


@dataclass(frozen=True, kw_only=True)
class PixelSource:
    """How the pixels of the chosen level are read; found by the survey and obeyed by every worker.

    Attributes:
        pixels: ``reader``, or ``tiles``: decoded by libjpeg-turbo straight from the file.
        jpeg_reduction: Factor by which tiles are reduced while they are decoded; what is left is done by area.
    """

    pixels: Literal["reader", "tiles"] = "reader"
    jpeg_reduction: int = 1


def choose_pixels(
    reader: SlideReader, path: Path, choice: LevelChoice, positions: NDArray[np.int64], reduce: Literal["jpeg", "area"]
) -> PixelSource:
    """Take the tiles where they can be found and every pixel of some planned regions equals the reader's.

    Where patches are a reduction of the level by 2, 4 or 8, tiles are reduced while they are decoded, by the largest
    of these factors that divides the reduction, the sides of the tiles and every position.

    Args:
        reader: Of the slide.
        path: Of the slide.
        choice: The level.
        positions: int64 (N, 2), planned patches, in pixels of the level.
        reduce: ``area`` leaves all reduction to area means.

    Raises:
        UnreachableError: The file cannot be read.
    """
    index = index_tiles(path, reader.info, choice.level) if len(positions) else None
    if index is None or not _same_pixels(reader, index, choice, positions):
        return PixelSource()
    factors = [
        factor
        for factor in (index.reductions if reduce == "jpeg" else (1,))
        if not (choice.reduction or 1) % factor and not (positions % factor).any()
    ]
    return PixelSource(pixels="tiles", jpeg_reduction=max(factors))


def open_tiles(reader: SlideReader, path: Path, choice: LevelChoice, source: PixelSource) -> TileReader | None:
    """The tiles that the survey chose, None where it chose the reader.

    Raises:
        UnreachableError: The file cannot be read, or is not what it was.
    """
    if source.pixels == "reader":
        return None
    index = index_tiles(path, reader.info, choice.level)
    if index is None:
        raise UnreachableError(
            "The slide's tiles were found by the survey and are not there now: is another program writing it?"
        )
    return TileReader(index, scale=source.jpeg_reduction)


@contextmanager
def open_patches(
    reader: SlideReader, path: Path, choice: LevelChoice, size_px: int, source: PixelSource
) -> Iterator[PatchReader]:
    """Read patches as the survey chose to; the reader stays open afterwards.

    Raises:
        UnreachableError: See `open_tiles`.
    """
    tiles = open_tiles(reader, path, choice, source)
    try:
        yield PatchReader(reader, choice, size_px, tiles)
    finally:
        if tiles is not None:
            tiles.close()


def _same_pixels(reader: SlideReader, index: TileIndex, choice: LevelChoice, positions: NDArray[np.int64]) -> bool:
    count, side_px = min(COMPARED, len(positions)), choice.read_size_px
    tiles = TileReader(index)
    compared = 0
    try:
        for number in range(count):
            x_px, y_px = positions[len(positions) * number // count].tolist()
            try:
                direct = tiles.read(x_px, y_px, side_px, side_px)
            except TileError:
                # Such a region is the reader's in the build as well.
                continue
            try:
                expected = reader.read(choice.level, x_px, y_px, side_px, side_px)
            except UnreadableRegionError:
                return False
            if not np.array_equal(direct, expected):
                return False
            compared += 1
    finally:
        tiles.close()
    return compared > 0
