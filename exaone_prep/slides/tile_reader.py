"""The pixels of one level straight from its JPEG tiles, each decoded once where the regions to come are known."""

from __future__ import annotations

import os
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exaone_prep.slides.jpeg_tile import TileError, beginning, decode
from exaone_prep.slides.reach import unreachable
from exaone_prep.slides.tile_index import TileIndex

CACHE_BYTES: Final = 512 * 2**20
"""Of decoded tiles kept for regions to come: one row of 512 px tiles along 349,000 px, all of it tissue."""

_STRIP_BYTES: Final = 3 * 2**19
"""Of decoded tiles between two rows of a strip: what most processors' second cache holds, or nearly."""

_SPARE_BYTES: Final = 16 * 2**20
"""Of tiles that are done with, for those to come: memory that is already there."""


class TileReader:
    """Reads regions of a level, whole or reduced while it is decoded. Not for use by several threads at once.

    Memory: `cache_bytes`, the tiles of one region and 16 MiB.

    Attributes:
        scale: 1, or the factor by which tiles are reduced.
        decoded: Tiles decoded so far.
    """

    def __init__(self, index: TileIndex, *, scale: int = 1, cache_bytes: int = CACHE_BYTES) -> None:
        """Open the file.

        Raises:
            ValueError: The scale is none of the index's `reductions`.
            UnreachableError: The file cannot be read.
        """
        if scale not in index.reductions:
            raise ValueError(
                f"these tiles of {index.tile_width_px}×{index.tile_height_px} px are not to be decoded at 1/{scale}"
            )
        self.scale = scale
        self.decoded = 0
        self._index = index
        self._shape = (index.tile_height_px // scale, index.tile_width_px // scale, 3)
        tile_bytes = self._shape[0] * self._shape[1] * 3
        self._most_kept = cache_bytes // tile_bytes
        self._most_spare = max(1, _SPARE_BYTES // tile_bytes)
        # Of the last tile: what it has before its scan, and what a whole stream has there.
        self._before, self._begin = b"", b""
        self._uses: memoryview[int] | None = None
        self._kept: dict[int, NDArray[np.uint8] | None] = {}
        self._passing: dict[int, NDArray[np.uint8]] = {}
        self._spare: list[NDArray[np.uint8]] = []
        try:
            self._file = os.open(index.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise unreachable(error) from error

    def order(self, positions: NDArray[np.int64], side_px: int) -> NDArray[np.int64]:
        """The quickest order to read regions in: by strips so narrow that tiles are still in the cache one row on.

        Row after row across a slide, a tile that two rows share has gone to main memory in between; so have most
        buffers that tiles are decoded into.

        Args:
            positions: int64 (N, 2), x and y of the upper left corners, in pixels of the level.
            side_px: Of all of them, in pixels of the level.

        Returns:
            int64 (N,), numbers of regions. Row after row where no region shares a tile with another.
        """
        index, (tile_height, _, _) = self._index, self._shape
        alone = not (positions % (index.tile_width_px, index.tile_height_px)).any() and not (
            side_px % index.tile_width_px or side_px % index.tile_height_px
        )
        strip_px = max(side_px, _STRIP_BYTES // (2 * 3 * tile_height) * self.scale)
        strips = np.zeros(len(positions), np.int64) if alone else positions[:, 0] // strip_px
        return np.lexsort((positions[:, 0], positions[:, 1], strips))

    def expect(self, positions: NDArray[np.int64], side_px: int) -> None:
        """Announce the regions that will be read, so that a tile is kept until the last of them that needs it.

        Memory is then what lies between two rows of regions, not a guess. Each is to be read once, in any order; rows
        one after the other need least.

        Args:
            positions: int64 (N, 2), x and y of the upper left corners, in pixels of the level.
            side_px: Of all of them, in pixels of the level.
        """
        index = self._index
        down = len(index.offsets) // index.across
        x, y = positions[:, 0], positions[:, 1]
        # Each region adds one to a rectangle of tiles: four corners of it, then running sums along both axes.
        corners = np.zeros((down + 1, index.across + 1), dtype=np.int32)
        left, right = x // index.tile_width_px, (x + side_px - 1) // index.tile_width_px + 1
        upper, lower = y // index.tile_height_px, (y + side_px - 1) // index.tile_height_px + 1
        for rows, columns, sign in ((upper, left, 1), (upper, right, -1), (lower, left, -1), (lower, right, 1)):
            np.add.at(corners, (rows, columns), sign)
        uses = corners.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)[:down, : index.across]
        self._uses = uses.ravel().data  # quicker than the array itself, one number at a time
        self._kept.clear()
        self._passing.clear()

    def read(self, x_px: int, y_px: int, width_px: int, height_px: int) -> NDArray[np.uint8]:
        """A region as uint8 (height / scale, width / scale, 3), RGB.

        Args:
            x_px: Left edge, in pixels of the level; like all four it divides by `scale`.
            y_px: Upper edge.
            width_px: Width.
            height_px: Height; the region lies inside the level.

        Raises:
            ValueError: The region is empty, reaches outside the level or does not divide by the scale.
            TileError: A tile of it cannot be decoded here.
            UnreachableError: The file cannot be read.
        """
        self._check(x_px, y_px, width_px, height_px)
        scale, (tile_height, tile_width, _) = self.scale, self._shape
        left, top, width, height = x_px // scale, y_px // scale, width_px // scale, height_px // scale
        if (height, width) == (tile_height, tile_width) and not top % tile_height and not left % tile_width:
            whole = self._give_away(top // tile_height * self._index.across + left // tile_width)
            if whole is not None:
                return whole
        right, bottom = left + width, top + height
        columns = [
            (column, max(left, column * tile_width), min(right, (column + 1) * tile_width))
            for column in range(left // tile_width, (right - 1) // tile_width + 1)
        ]
        # As rows of bytes: NumPy copies those in one go, and triples one by one.
        pixels = np.empty((height, width * 3), dtype=np.uint8)
        problem: TileError | None = None
        passed, self._passing = self._passing, {}
        for row in range(top // tile_height, (bottom - 1) // tile_height + 1):
            first_line = row * tile_height
            upper, lower = max(top, first_line), min(bottom, first_line + tile_height)
            for column, first, last in columns:
                number = row * self._index.across + column
                tile = passed.pop(number, None) if passed else None
                if tile is None:
                    tile = self._take(number)
                if tile is None:
                    problem = TileError(f"tile {number} cannot be decoded")
                else:
                    start = (first - column * tile_width) * 3
                    pixels[upper - top : lower - top, (first - left) * 3 : (last - left) * 3] = tile.reshape(
                        tile_height, -1
                    )[upper - first_line : lower - first_line, start : start + (last - first) * 3]
                # Every use is counted down, also that of a tile that fails.
                self._leave(number, tile)
        for tile in passed.values():
            self._put_back(tile)
        if problem is not None:
            raise problem
        return pixels.reshape(height, width, 3)

    @property
    def kept_bytes(self) -> int:
        """Decoded tiles kept for regions to come."""
        return sum(tile.nbytes for tile in self._kept.values() if tile is not None)

    def close(self) -> None:
        """Give file and memory back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._kept.clear()
        self._passing.clear()
        self._spare.clear()

    def _take(self, number: int) -> NDArray[np.uint8] | None:
        """A decoded tile, None for one that cannot be decoded."""
        if number in self._kept:
            return self._kept[number]
        tile = self._spare.pop() if self._spare else np.empty(self._shape, dtype=np.uint8)
        try:
            self._decode(number, tile)
        except TileError:
            self._put_back(tile)
            return None
        return tile

    def _decode(self, number: int, into: NDArray[np.uint8]) -> None:
        index = self._index
        size = int(index.sizes[number])
        if size == 0:
            into[:] = index.background
            return
        try:
            data = os.pread(self._file, size, int(index.offsets[number]))
        except OSError as error:
            raise unreachable(error) from error
        self.decoded += 1
        if not (self._before and data.startswith(self._before)):
            self._begin, scan = beginning(data, index.head, index.tile_width_px, index.tile_height_px)
            self._before = data[:scan]
        decode(self._begin + data[len(self._before) :], self.scale, into)

    def _give_away(self, number: int) -> NDArray[np.uint8] | None:
        """A decoded tile that no further region needs, to whom it is the region: no copy of it is made."""
        if number in self._kept or (self._uses is not None and self._uses[number] > 1):
            return None
        tile = self._take(number)
        if tile is None:
            raise TileError(f"tile {number} cannot be decoded")
        if self._uses is not None:
            self._uses[number] -= 1
        return tile

    def _leave(self, number: int, tile: NDArray[np.uint8] | None) -> None:
        """Keep a tile that a region to come needs, and the buffer of one that none does."""
        if self._uses is not None:
            uses = self._uses[number] - 1
            self._uses[number] = uses
            if uses > 0:
                # Where there is no room, those kept already are needed sooner than this one, except by the next region.
                if number in self._kept or len(self._kept) < self._most_kept:
                    self._kept[number] = tile
                elif tile is not None:
                    self._passing[number] = tile
                return
        if self._kept:
            self._kept.pop(number, None)
        if tile is not None:
            self._put_back(tile)

    def _put_back(self, tile: NDArray[np.uint8]) -> None:
        if len(self._spare) < self._most_spare:
            self._spare.append(tile)

    def _check(self, x_px: int, y_px: int, width_px: int, height_px: int) -> None:
        index, scale = self._index, self.scale
        if width_px < 1 or height_px < 1 or x_px < 0 or y_px < 0:
            raise ValueError(f"{width_px}×{height_px} px at ({x_px}, {y_px}) are no region")
        if x_px + width_px > index.width_px or y_px + height_px > index.height_px:
            raise ValueError(
                f"the region {width_px}×{height_px} px at ({x_px}, {y_px}) reaches outside "
                f"the level of {index.width_px}×{index.height_px} px"
            )
        if scale != 1 and (x_px % scale or y_px % scale or width_px % scale or height_px % scale):
            raise ValueError(f"{width_px}×{height_px} px at ({x_px}, {y_px}) do not divide by {scale}")
