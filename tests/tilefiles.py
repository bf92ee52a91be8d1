"""Tiled JPEG TIFFs of every kind a scanner writes: shared tables, RGB without a word about it, holes, BigTIFF."""

from __future__ import annotations

import io
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

Rgb = NDArray[np.uint8]
_FORMAT = {2: "s", 3: "H", 4: "I", 16: "Q"}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How tiles are stored.

    Attributes:
        tile_px: Width and height of a tile.
        colours: What the photometric tag says, and the components are.
        subsampling: Of chroma; of RGB nothing is subsampled.
        shared_tables: Quantisation and Huffman tables lie once in the tag JPEGTables.
        marked: Tiles keep the JFIF or Adobe segment from which colours are guessed.
        big: Offsets of 64 bits.
        quality: Of the JPEG.
    """

    tile_px: tuple[int, int] = (256, 256)
    colours: Literal["rgb", "ycbcr"] = "ycbcr"
    subsampling: Literal["420", "422", "444"] = "420"
    shared_tables: bool = False
    marked: bool = True
    big: bool = False
    quality: int = 85


def write_tiled(
    path: Path,
    levels: list[Rgb],
    kind: Kind,
    *,
    missing: Collection[int] = (),
    description: str = "",
    software: str = "",
) -> list[tuple[int, int]]:
    """Write levels, the largest first; return offset and size of each tile of the first.

    Args:
        path: Of the file.
        levels: Pixels.
        kind: Of all levels.
        missing: Numbers of tiles of the first level that are left out: offset and size 0.
        description: ImageDescription of the first level.
        software: Likewise, Software.
    """
    first: list[tuple[int, int]] = []
    with path.open("wb") as stream:
        stream.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if kind.big else struct.pack("<2sHI", b"II", 42, 0))
        pointer = 8 if kind.big else 4
        for number, pixels in enumerate(levels):
            tables, places = b"", []
            for tile_number, tile in enumerate(_tiles(pixels, kind)):
                data = encoded(tile, kind)
                if kind.shared_tables:
                    tables, data = _split(data)
                if number == 0 and tile_number in missing:
                    places.append((0, 0))
                    continue
                places.append((stream.tell(), len(data)))
                stream.write(data)
            first = first or places
            stream.write(b"\0" * (-stream.tell() % 16))
            at = stream.tell()
            stream.seek(pointer)
            stream.write(struct.pack("<Q" if kind.big else "<I", at))
            stream.seek(at)
            texts = (description, software) if number == 0 else ("", "")
            pointer = _write_directory(stream, _tags(pixels, kind, places, tables, number, texts), big=kind.big)
    return first


def encoded(tile: Rgb, kind: Kind) -> bytes:
    """A tile as a whole JPEG stream."""
    if kind.colours == "rgb":
        buffer = io.BytesIO()
        Image.fromarray(tile).save(buffer, "JPEG", quality=kind.quality, subsampling=0, keep_rgb=True)
        data = buffer.getvalue()
    else:
        data = simplejpeg.encode_jpeg(
            np.ascontiguousarray(tile), quality=kind.quality, colorspace="RGB", colorsubsampling=kind.subsampling
        )
    if kind.marked:
        return data
    # Component numbers 1, 2, 3 and no marker: what Aperio writes for RGB, and any reader would take for YCbCr.
    kept = b"\xff\xd8"
    for marker, body in _segments_of(data):
        if 0xE0 <= marker <= 0xEF:
            continue
        changed = bytearray(body)
        if marker in (0xC0, 0xDA):
            start, step = (10, 3) if marker == 0xC0 else (5, 2)
            changed[start : start + 3 * step : step] = b"\x01\x02\x03"
        kept += bytes(changed)
    return kept


def _segments_of(data: bytes) -> list[tuple[int, bytes]]:
    """Segments with their markers; the scan takes all that follows."""
    found, at = [], 2
    while True:
        marker = data[at + 1]
        end = len(data) if marker == 0xDA else at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((marker, data[at:end]))
        if marker == 0xDA:
            return found
        at = end


def _split(data: bytes) -> tuple[bytes, bytes]:
    tables = tile = b"\xff\xd8"
    for marker, body in _segments_of(data):
        if marker in (0xDB, 0xC4):
            tables += body
        else:
            tile += body
    return tables + b"\xff\xd9", tile


def _tiles(pixels: Rgb, kind: Kind) -> list[Rgb]:
    width, height = kind.tile_px
    padded = np.pad(pixels, ((0, -pixels.shape[0] % height), (0, -pixels.shape[1] % width), (0, 0)), mode="edge")
    return [
        padded[y : y + height, x : x + width]
        for y in range(0, padded.shape[0], height)
        for x in range(0, padded.shape[1], width)
    ]


def _tags(
    pixels: Rgb, kind: Kind, places: list[tuple[int, int]], tables: bytes, number: int, texts: tuple[str, str]
) -> list[tuple[int, int, bytes, int]]:
    """Number, type, bytes and count of each tag."""
    wide = 16 if kind.big else 4

    def numbers(tag: int, type_: int, *values: int) -> tuple[int, int, bytes, int]:
        return tag, type_, struct.pack(f"<{len(values)}{_FORMAT[type_]}", *values), len(values)

    tags = [
        numbers(254, 4, int(number > 0)),
        numbers(256, 4, pixels.shape[1]),
        numbers(257, 4, pixels.shape[0]),
        numbers(258, 3, 8, 8, 8),
        numbers(259, 3, 7),
        numbers(262, 3, 2 if kind.colours == "rgb" else 6),
        numbers(277, 3, 3),
        numbers(284, 3, 1),
        numbers(322, 4, kind.tile_px[0]),
        numbers(323, 4, kind.tile_px[1]),
        numbers(324, wide, *(offset for offset, _ in places)),
        numbers(325, wide, *(size for _, size in places)),
    ]
    if kind.colours == "ycbcr":
        tags.append(numbers(530, 3, *{"420": (2, 2), "422": (2, 1), "444": (1, 1)}[kind.subsampling]))
    if tables:
        tags.append((347, 7, tables, len(tables)))
    for tag, text in zip((270, 305), texts, strict=True):
        if text:
            tags.append((tag, 2, text.encode() + b"\0", len(text.encode()) + 1))
    return sorted(tags)


def _write_directory(stream: io.BufferedWriter, tags: list[tuple[int, int, bytes, int]], *, big: bool) -> int:
    """Write a directory where the stream stands; return where the place of the next one is written."""
    count_format, inline = ("<Q", 8) if big else ("<H", 4)
    offset_format = "<Q" if big else "<I"
    entry = 4 + 2 * inline
    following = stream.tell() + struct.calcsize(count_format) + len(tags) * entry
    spill = following + inline
    entries, values = b"", b""
    for tag, type_, data, count in tags:
        entries += struct.pack("<HH", tag, type_) + struct.pack(offset_format, count)
        if len(data) <= inline:
            entries += data.ljust(inline, b"\0")
        else:
            entries += struct.pack(offset_format, spill + len(values))
            values += data + b"\0" * (-len(data) % 8)
    stream.write(struct.pack(count_format, len(tags)) + entries + b"\0" * inline + values)
    return following
