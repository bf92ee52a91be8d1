"""The TIFF container of tiled JPEG pyramids (TIFF 6.0, TIFF Technical Note 2, BigTIFF).

tifffile writes JPEG tiles, even encoded ones, only where imagecodecs is installed; this needs neither.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Literal, Self

from exaone_prep.errors import ManifestError

Subsampling = Literal["420", "422", "444"]
_SUBSAMPLING: dict[Subsampling, tuple[int, int]] = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}
_SHORT, _LONG, _RATIONAL, _LONG8 = 3, 4, 5, 16
_FORMAT = {_SHORT: "H", _LONG: "I", _RATIONAL: "I", _LONG8: "Q"}
_DENOMINATOR = 1000


@dataclass(frozen=True, kw_only=True)
class Directory:
    """One level of a pyramid.

    Attributes:
        width_px: Of the level.
        height_px: Of the level.
        tile_px: Side of a tile.
        subsampling: Of chroma in the tiles.
        pixels_per_cm: For the resolution tags; None leaves them out.
        reduced: Whether it is a smaller version of the first level.
    """

    width_px: int
    height_px: int
    tile_px: int
    subsampling: Subsampling
    pixels_per_cm: float | None
    reduced: bool

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return -(-self.width_px // self.tile_px) * -(-self.height_px // self.tile_px)


class TileFile:
    """A TIFF whose directories come first and whose tiles are appended; a context manager.

    A file that is cut off can therefore still be opened, as one that a broken copy leaves behind.
    """

    def __init__(self, stream: BinaryIO, directories: list[Directory], *, big: bool) -> None:
        self._stream = stream
        self._directories = directories
        self._big = big
        self._offsets: list[list[int]] = [[] for _ in directories]
        self._sizes: list[list[int]] = [[] for _ in directories]
        self._write_directories()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write_directories()

    def append(self, level: int, tile: bytes) -> None:
        """Add the next tile of a level, in raster order: a whole JPEG stream.

        Raises:
            ManifestError: Where the file outgrows what offsets of 32 bits reach.
        """
        self._offsets[level].append(self._stream.tell())
        self._sizes[level].append(len(tile))
        self._stream.write(tile)
        if not self._big and self._stream.tell() >= 2**32:
            raise ManifestError("A generated slide outgrows 4 GiB: make it smaller or choose BigTIFF.")

    def _write_directories(self) -> None:
        """Write header and directories at the start; their size does not depend on the values in them."""
        self._stream.seek(0)
        count_format, offset_format = ("<Q", "<Q") if self._big else ("<H", "<I")
        first = 16 if self._big else 8
        self._stream.write(
            struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if self._big else struct.pack("<2sHI", b"II", 42, 8)
        )
        for level, directory in enumerate(self._directories):
            tags = self._tags(level, directory)
            inline = struct.calcsize(offset_format)
            entry_size = 4 + 2 * inline
            spill = first + struct.calcsize(count_format) + len(tags) * entry_size + inline
            entries, values = b"", b""
            for tag, kind, numbers in tags:
                packed = struct.pack(f"<{len(numbers)}{_FORMAT[kind]}", *numbers)
                count = len(numbers) // 2 if kind == _RATIONAL else len(numbers)
                entries += struct.pack("<HH", tag, kind) + struct.pack(offset_format, count)
                if len(packed) <= inline:
                    entries += packed.ljust(inline, b"\0")
                else:
                    entries += struct.pack(offset_format, spill + len(values))
                    values += packed + b"\0" * (-len(packed) % 8)
            values += b"\0" * (-(spill + len(values)) % 8)
            first = spill + len(values)
            following = first if level + 1 < len(self._directories) else 0
            self._stream.write(struct.pack(count_format, len(tags)) + entries + struct.pack(offset_format, following))
            self._stream.write(values)

    def _tags(self, level: int, directory: Directory) -> list[tuple[int, int, list[int]]]:
        missing = [0] * (directory.tiles - len(self._offsets[level]))
        wide = _LONG8 if self._big else _LONG
        tags = [
            (254, _LONG, [int(directory.reduced)]),
            (256, _LONG, [directory.width_px]),
            (257, _LONG, [directory.height_px]),
            (258, _SHORT, [8, 8, 8]),
            (259, _SHORT, [7]),  # JPEG
            (262, _SHORT, [6]),  # YCbCr
            (277, _SHORT, [3]),
            (284, _SHORT, [1]),
            (322, _LONG, [directory.tile_px]),
            (323, _LONG, [directory.tile_px]),
            (324, wide, self._offsets[level] + missing),
            (325, wide, self._sizes[level] + missing),
            (530, _SHORT, list(_SUBSAMPLING[directory.subsampling])),
            (532, _RATIONAL, [0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1]),
        ]
        if directory.pixels_per_cm is not None:
            ratio = [round(directory.pixels_per_cm * _DENOMINATOR), _DENOMINATOR]
            tags += [(282, _RATIONAL, ratio), (283, _RATIONAL, ratio), (296, _SHORT, [3])]
        return sorted(tags)
