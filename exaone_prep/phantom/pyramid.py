"""Pyramids of JPEG tiles, written strip by strip, that OpenSlide reads as `generic-tiff`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from exaone_prep.phantom.tiff import Directory, Subsampling, TileFile

_MIN_SIDE_PX = 16
_STRIP_PX = 512


@dataclass(frozen=True, kw_only=True)
class Pyramid:
    """How a slide is stored.

    Attributes:
        width_px: Of level 0.
        height_px: Of level 0.
        tile_px: Side of a tile; a multiple of 16.
        levels: At most; a level with a side under 16 px is left out.
        factor: Between neighbouring levels, 2 or 4.
        subsampling: Of chroma.
        quality: JPEG quality.
        mpp: µm per pixel of level 0 for the resolution tags; None leaves them out.
        bigtiff: Offsets of 64 bits.
    """

    width_px: int
    height_px: int
    tile_px: int
    levels: int
    factor: int
    subsampling: Subsampling
    quality: int
    mpp: float | None
    bigtiff: bool

    def directories(self) -> list[Directory]:
        """The levels, largest first."""
        found = []
        for level in range(self.levels):
            scale = self.factor**level
            width, height = self.width_px // scale, self.height_px // scale
            if level and min(width, height) < _MIN_SIDE_PX:
                break
            found.append(
                Directory(
                    width_px=width,
                    height_px=height,
                    tile_px=self.tile_px,
                    subsampling=self.subsampling,
                    pixels_per_cm=None if self.mpp is None else 10_000 / (self.mpp * scale),
                    reduced=level > 0,
                )
            )
        return found


def write_pyramid(path: Path, pyramid: Pyramid, strip: Callable[[int, int], NDArray[np.uint8]]) -> None:
    """Write a slide.

    Args:
        path: The file; what is there is replaced.
        pyramid: How.
        strip: Gives the pixels (uint8, rows × width × 3, RGB) of level 0 from a first row up to a last one
            (exclusive); called for strips of whole tiles, in order.
    """
    directories = pyramid.directories()
    with path.open("wb") as stream, TileFile(stream, directories, big=pyramid.bigtiff) as file:
        for level, directory in enumerate(directories):
            smaller = None
            if level + 1 < len(directories):
                below = directories[level + 1]
                smaller = np.empty((below.height_px, below.width_px, 3), np.uint8)
            for tile in _tiles(pyramid, directory, strip, smaller):
                file.append(level, tile)
            if smaller is not None:
                strip = _rows_of(smaller)


def _rows_of(pixels: NDArray[np.uint8]) -> Callable[[int, int], NDArray[np.uint8]]:
    return lambda top, bottom: pixels[top:bottom]


def _tiles(
    pyramid: Pyramid,
    directory: Directory,
    strip: Callable[[int, int], NDArray[np.uint8]],
    smaller: NDArray[np.uint8] | None,
) -> Iterator[bytes]:
    """Encoded tiles in raster order; on the way the next level is filled with block means."""
    height, width = directory.height_px, directory.width_px
    side, factor = pyramid.tile_px, pyramid.factor
    strip_px = side * max(_STRIP_PX // side, 1)
    for top in range(0, height, strip_px):
        rows = strip(top, min(top + strip_px, height))
        if smaller is not None:
            means = block_mean(rows, factor)
            smaller[top // factor : top // factor + len(means)] = means
        padded = np.pad(rows, ((0, -len(rows) % side), (0, -width % side), (0, 0)), mode="edge")
        for first in range(0, len(padded), side):
            for left in range(0, padded.shape[1], side):
                yield simplejpeg.encode_jpeg(
                    np.ascontiguousarray(padded[first : first + side, left : left + side]),
                    quality=pyramid.quality,
                    colorspace="RGB",
                    colorsubsampling=pyramid.subsampling,
                    fastdct=False,
                )


def block_mean(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Mean of each factor × factor block (rounded half up); what is left at the right and lower border is dropped."""
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    total = np.full((height, width, 3), factor * factor // 2, np.uint16)
    for row in range(factor):
        for column in range(factor):
            total += pixels[row : height * factor : factor, column : width * factor : factor]
    return (total // (factor * factor)).astype(np.uint8)
