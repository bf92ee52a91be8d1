"""Where the JPEG tiles of a slide's level lie in its file, as far as they can be decoded without the slide's reader."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from exaone_prep.slides.jpeg_tile import Colours, TileError, reductions, stream_head
from exaone_prep.slides.reach import unreachable
from exaone_prep.slides.reader import SlideInfo

if TYPE_CHECKING:
    import tifffile

VENDORS: Final = ("aperio", "generic-tiff", "philips")
"""Families whose levels are plain grids of tiles, one page each. Others lap tiles over each other or move them."""

_ASKED: Final = 8
_JPEG: Final = 7
_COLOURS: Final[dict[int, Colours]] = {2: "rgb", 6: "ycbcr"}
_BROKEN: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, struct.error)


@dataclass(frozen=True, kw_only=True)
class TileIndex:
    """The tiles of one level.

    Attributes:
        path: The file.
        width_px: Of the level.
        height_px: Of the level.
        tile_width_px: Of a tile; those at the edges are as large, and filled up.
        tile_height_px: Likewise.
        across: Tiles in a row.
        offsets: int64 (N,), first byte of each tile, row after row.
        sizes: int64 (N,), bytes of each tile; 0 where there is none.
        reductions: Factors by which tiles may be reduced while they are decoded.
        head: What every tile's stream begins with.
        background: RGB of what is not there.
    """

    path: Path
    width_px: int
    height_px: int
    tile_width_px: int
    tile_height_px: int
    across: int
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    reductions: tuple[int, ...]
    head: bytes
    background: tuple[int, int, int]


def index_tiles(path: Path, info: SlideInfo, level: int) -> TileIndex | None:
    """Find the tiles of a level of a slide that OpenSlide opened; None where they are to be left to OpenSlide.

    A page is taken for the level if it is the only one of its size made of tiles, they are JPEG of three components,
    and the family is one of `VENDORS`. Where tiles are missing from a lower level of an Aperio slide, OpenSlide paints
    the level above instead: such levels are left to it.

    Raises:
        UnreachableError: The file cannot be read.
    """
    if info.reader != "openslide" or info.vendor not in VENDORS or not path.is_file():
        return None
    # A tenth of a second, which commands that open no slide are spared.
    import tifffile

    try:
        with _silent(), tifffile.TiffFile(path) as file:
            pages = [page for page in file.pages if isinstance(page, tifffile.TiffPage) and page.is_tiled]
            fitting = [page for page in pages if _fits(page, info, level)]
            index = _index(path, info, fitting[0]) if len(fitting) == 1 else None
    except OSError as error:
        raise unreachable(error) from error
    except (tifffile.TiffFileError, TileError, *_BROKEN):
        return None
    if index is not None and info.vendor == "aperio" and level > 0 and not index.sizes.all():
        return None
    return index


@contextmanager
def _silent() -> Iterator[None]:
    # It logs what it finds odd, with the name of the file, which may be a patient's.
    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _fits(page: tifffile.TiffPage, info: SlideInfo, level: int) -> bool:
    wanted = info.levels[level]
    width_px, height_px = page.imagewidth, page.imagelength
    if info.vendor != "philips":
        return (width_px, height_px) == (wanted.width_px, wanted.height_px)
    # Philips fills levels up to whole tiles, and says elsewhere how large they are.
    beyond = (width_px - wanted.width_px, height_px - wanted.height_px)
    return 0 <= beyond[0] < page.tilewidth and 0 <= beyond[1] < page.tilelength


def _index(path: Path, info: SlideInfo, page: tifffile.TiffPage) -> TileIndex | None:
    if (
        int(page.compression) != _JPEG
        or int(page.photometric) not in _COLOURS
        or page.samplesperpixel != 3
        or page.bitspersample != 8
        or int(page.planarconfig) != 1
        or page.imagedepth != 1
    ):
        return None
    across = -(-page.imagewidth // page.tilewidth)
    count = across * -(-page.imagelength // page.tilelength)
    offsets = np.array(page.dataoffsets, dtype=np.int64)
    sizes = np.array(page.databytecounts, dtype=np.int64)
    if len(offsets) != count or len(sizes) != count or (offsets < 0).any() or (sizes < 0).any():
        return None
    return TileIndex(
        path=path,
        width_px=page.imagewidth,
        height_px=page.imagelength,
        tile_width_px=page.tilewidth,
        tile_height_px=page.tilelength,
        across=across,
        offsets=offsets,
        sizes=sizes,
        reductions=_reductions(path, offsets, sizes, (page.tilewidth, page.tilelength)),
        head=stream_head(page.jpegtables, _COLOURS[int(page.photometric)]),
        background=info.background,
    )


def _reductions(
    path: Path, offsets: NDArray[np.int64], sizes: NDArray[np.int64], sides: tuple[int, int]
) -> tuple[int, ...]:
    """What the first sound one of some tiles says, as far as it divides the sides of a tile."""
    present = np.flatnonzero(sizes)
    with path.open("rb") as stream:
        for number in present[:: max(1, len(present) // _ASKED)]:
            stream.seek(int(offsets[number]))
            try:
                factors = reductions(stream.read(int(sizes[number])))
            except TileError:
                continue
            return tuple(factor for factor in factors if not any(side % factor for side in sides))
    return (1,)
