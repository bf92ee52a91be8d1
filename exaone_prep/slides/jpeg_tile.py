"""JPEG tiles of TIFF files: making one a whole stream, and decoding it at full scale or a fraction of it.

A tile is an abbreviated stream: its tables may be kept once per level (TIFF Technical Note 2), and what its three
components mean is said by the TIFF's photometric tag, not by the stream. A decoder of whole streams (ITU-T T.81)
guesses that from a JFIF or Adobe segment, so these are replaced by one that says what the tag says.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray

SCALES: Final = (1, 2, 4, 8)
"""Whole factors by which a decoder can shrink while it decodes (inverse DCT of 8, 4, 2 or 1 points)."""

Colours = Literal["rgb", "ycbcr"]

_START: Final = b"\xff\xd8"
_END: Final = b"\xff\xd9"
_SCAN: Final = 0xDA
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JFIF: Final = 0xE0
_ADOBE_KIND: Final = 0xEE
_GUESSED_FROM: Final = frozenset((_JFIF, _ADOBE_KIND))
_ADOBE: Final[dict[Colours, bytes]] = {
    "rgb": b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00",
    "ycbcr": b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01",
}


class TileError(Exception):
    """A tile that cannot be decoded here; whether it can be read at all is for the slide's reader to say."""


def stream_head(tables: bytes | None, colours: Colours) -> bytes:
    """What every tile of a level begins with: start of image, the meaning of its components, the shared tables.

    Raises:
        TileError: The tables are no JPEG stream.
    """
    head = _START + _ADOBE[colours]
    if not tables:
        return head
    body = tables[2:-2] if tables.endswith(_END) else tables[2:]
    kept, _, _ = _segments(_START + body, to_scan=False)
    return head + kept


def complete(tile: bytes, head: bytes, width_px: int, height_px: int) -> bytes:
    """A tile as a whole stream of its own.

    Args:
        tile: As it lies in the file.
        head: From `stream_head`.
        width_px: That a tile of the level has.
        height_px: Likewise.

    Raises:
        TileError: It is no JPEG, of another size, or not of three components of 8 bits.
    """
    begin, scan = beginning(tile, head, width_px, height_px)
    return begin + tile[scan:]


def beginning(tile: bytes, head: bytes, width_px: int, height_px: int) -> tuple[bytes, int]:
    """What a whole stream of the tile has before its scan, and where in the tile the scan begins.

    It is the same for all tiles that are the same up to there, which mostly are all of a level.

    Raises:
        TileError: See `complete`.
    """
    kept, scan, _ = _segments(tile, to_scan=True, size_px=(width_px, height_px))
    return head + kept, scan


def reductions(tile: bytes) -> tuple[int, ...]:
    """The factors of `SCALES` at which the decoder comes near to area means.

    Each component is shrunk by an inverse DCT as small as its own sampling asks for, the same along both axes. Where
    chroma is subsampled along one axis alone, it is shrunk too far along that axis and blown up again: at 2 this does
    not matter yet, at 4 and 8 it does (`docs/decisions/015-pixels-straight-from-tiles.md`).

    Raises:
        TileError: It is no JPEG of three components of 8 bits.
    """
    frame = _segments(tile, to_scan=True)[2]
    luma, *chroma = (divmod(frame[at], 16) for at in (7, 10, 13))
    if any(component != (1, 1) for component in chroma):
        return SCALES if {luma} == set(chroma) else (1,)
    if luma in ((1, 1), (2, 2)):
        return SCALES
    return (1, 2) if luma in ((2, 1), (1, 2)) else (1,)


def decode(stream: bytes, scale: int, into: NDArray[np.uint8]) -> None:
    """Decode a whole stream.

    At full scale with the slow integer DCT and smooth upsampling of chroma, libjpeg's defaults, which OpenSlide leaves
    as they are. A warning (bytes cut off, say) is an error, as it is to OpenSlide.

    Args:
        stream: From `complete`.
        scale: Of `SCALES`; the image shrinks by it.
        into: uint8 (H / scale, W / scale, 3), contiguous; receives RGB.

    Raises:
        TileError: It is damaged, or does not come out at that size.
    """
    height_px, width_px, _ = into.shape
    smallest = {} if scale == 1 else {"min_height": height_px, "min_width": width_px, "min_factor": scale}
    try:
        shape = simplejpeg.decode_jpeg(
            stream, colorspace="RGB", fastdct=False, fastupsample=False, strict=True, buffer=into, **smallest
        ).shape
    except ValueError as error:
        raise TileError(str(error)) from error
    if shape != into.shape:
        raise TileError(f"decoded to {shape[1]}×{shape[0]} px instead of {width_px}×{height_px}")


def _segments(data: bytes, *, to_scan: bool, size_px: tuple[int, int] | None = None) -> tuple[bytes, int, bytes]:
    """The segments before the scan without those that colours are guessed from, where the scan begins, the frame."""
    if data[:2] != _START:
        raise TileError("it does not begin as a JPEG does")
    kept, at, since = b"", 2, 2
    frame = b""
    while at < len(data):
        if data[at] != 0xFF or at + 4 > len(data):
            raise TileError("its segments are damaged")
        kind = data[at + 1]
        if kind == 0xFF:
            at += 1
            continue
        if kind == _SCAN and to_scan:
            if not frame:
                raise TileError("its scan comes before its frame")
            return kept + data[since:at], at, frame
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind in _FRAMES:
            frame = data[at + 4 : end]
            _check_frame(frame, size_px)
        elif kind in _GUESSED_FROM:
            _check_replaced(kind, data[at + 4 : end])
            kept, since = kept + data[since:at], end
        at = end
    if to_scan:
        raise TileError("it holds no scan")
    return kept + data[since:], len(data), frame


def _check_replaced(kind: int, body: bytes) -> None:
    """Refuse what libjpeg would warn of, which nobody sees once the segment is gone."""
    jfif = kind == _JFIF and len(body) >= 14 and body[:6] == b"JFIF\0\x01"
    adobe = kind == _ADOBE_KIND and len(body) >= 12 and body[:5] == b"Adobe" and body[11] <= 1
    if not jfif and not adobe:
        raise TileError("what it says of its colours is damaged or unusual")


def _check_frame(frame: bytes, size_px: tuple[int, int] | None) -> None:
    if len(frame) != 15 or frame[0] != 8 or frame[5] != 3:
        raise TileError("it has not three components of 8 bits")
    size = (int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big"))
    if size_px is not None and size != size_px:
        raise TileError(f"it has {size[0]}×{size[1]} px instead of {size_px[0]}×{size_px[1]}")
