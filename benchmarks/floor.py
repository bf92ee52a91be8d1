"""The codec floor: each JPEG tile under a planned patch decoded once, each kept patch encoded once, and nothing else.

Both work as a build does, with the same library, the same DCT and the same upsampling of chroma; decoding goes into one
buffer that is used again, and patches are encoded while they are in the processor's cache. No tool can cost less.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from stages import steps
from surveyed import Surveyed, middle_rows

from exaone_prep.codec import encode
from exaone_prep.manifest import Codec
from exaone_prep.slides import open_slide
from exaone_prep.slides.jpeg_tile import complete, decode
from exaone_prep.slides.tile_index import index_tiles

_PATCHES = 256
_IN_CACHE = 2
"""Patches that are touched before they are encoded: 400 kB."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """The JPEG tiles that planned patches lie in, as whole streams.

    Attributes:
        streams: The tiles.
        height_px: Of each.
        width_px: Of each.
        scale: By which decoding reduces them.
    """

    streams: list[bytes]
    height_px: int
    width_px: int
    scale: int

    def decode_ms(self) -> float:
        """CPU time of decoding all of them."""
        into = np.empty((self.height_px // self.scale, self.width_px // self.scale, 3), dtype=np.uint8)
        began = time.process_time_ns()
        for stream in self.streams:
            decode(stream, self.scale, into)
        return (time.process_time_ns() - began) / 1e6


@dataclass(frozen=True, kw_only=True)
class FloorCost:
    """One measurement of the floor of a slide.

    Attributes:
        decode_total_ms: CPU time of decoding all tiles under planned patches.
        encode_ms: CPU time of encoding, per patch.
    """

    decode_total_ms: float
    encode_ms: float

    def ms(self, kept: int) -> float:
        """CPU time per kept patch."""
        return self.decode_total_ms / kept + self.encode_ms


class Floor:
    """The floor of a slide, to be measured again and again.

    Attributes:
        tiles: Under planned patches; 0 where the level is not made of JPEG tiles, and the floor is not known.
    """

    def __init__(self, slide: Surveyed) -> None:
        """Take tiles, and patches as they are kept, into memory."""
        self._tiles = needed_tiles(slide)
        self._patches = steps(slide, middle_rows(slide.positions, _PATCHES), keep=_PATCHES).finished
        self._codec = slide.manifest.codec
        self.tiles = len(self._tiles.streams) if self._tiles is not None else 0
        self.measured: list[FloorCost] = []

    def measure(self) -> FloorCost:
        """Decode and encode all of it once."""
        cost = FloorCost(
            decode_total_ms=self._tiles.decode_ms() if self._tiles is not None else 0.0,
            encode_ms=encode_ms(self._patches, self._codec),
        )
        self.measured.append(cost)
        return cost


def needed_tiles(slide: Surveyed, positions: NDArray[np.int64] | None = None) -> Tiles | None:
    """The tiles under planned patches, or under some of them; None where the level is not made of JPEG tiles."""
    reader = open_slide(slide.path, slide.manifest.readers)
    try:
        index = index_tiles(slide.path, reader.info, slide.choice.level)
    finally:
        reader.close()
    if index is None:
        return None
    width, height, side = index.tile_width_px, index.tile_height_px, slide.choice.read_size_px
    numbers: set[int] = set()
    for x, y in (slide.positions if positions is None else positions).tolist():
        for row in range(y // height, (y + side - 1) // height + 1):
            first, last = x // width, (x + side - 1) // width
            numbers.update(range(row * index.across + first, row * index.across + last + 1))
    streams = []
    with slide.path.open("rb") as stream:
        for number in sorted(numbers):
            stream.seek(int(index.offsets[number]))
            streams.append(complete(stream.read(int(index.sizes[number])), index.head, width, height))
    return Tiles(streams=streams, height_px=height, width_px=width, scale=slide.pixels.jpeg_reduction)


def encode_ms(patches: Sequence[NDArray[np.uint8]], codec: Codec) -> float:
    """CPU time of encoding patches, uint8 (size, size, 3), per patch."""
    spent_ns = 0
    for first in range(0, len(patches), _IN_CACHE):
        some = patches[first : first + _IN_CACHE]
        for patch in some:
            patch.sum(dtype=np.int64)
        began = time.process_time_ns()
        for patch in some:
            encode(patch, codec)
        spent_ns += time.process_time_ns() - began
    return spent_ns / 1e6 / len(patches)
