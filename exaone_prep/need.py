"""What a group needs of the scratch: guessed from its slides' sizes, estimated from their surveys, then known."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from exaone_prep.catalog import CatalogRow
from exaone_prep.catalog.place import is_url
from exaone_prep.errors import ManifestError
from exaone_prep.manifest import Codec
from exaone_prep.shards.tar import BLOCK_BYTES

# Of patches of tissue, normalised, rounded up: dense tissue took 3.0 bits per pixel at quality 90, one patch 3.4.
_JPEG_BITS_PER_PX: Final = ((70, 2.5), (80, 3.1), (90, 4.3), (95, 6.0), (100, 11.0))
_MORE_WITHOUT_SUBSAMPLING: Final = 1.5
_PNG_BITS_PER_PX: Final = 24.0

_TAR_BYTES: Final = 4 * BLOCK_BYTES
"""Two headers, the JSON, and padding behind the image."""

_SPOOL_PER_SLIDE_BYTE: Final = 2.0
_PICTURES_PER_SLIDE_BYTE: Final = 0.25
_PICTURES_BYTES: Final = 2 << 20

_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY_UNITS: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@dataclass(frozen=True, kw_only=True)
class SlideNeed:
    """Bytes that one slide takes.

    Attributes:
        staged: Of its copy, until it is cut.
        spool: Of its encoded patches.
        tar: Of the same in shards.
        pictures: That its survey leaves.
    """

    staged: int = 0
    spool: int = 0
    tar: int = 0
    pictures: int = 0


def guessed(row: CatalogRow, uri: str) -> SlideNeed:
    """Before the survey, from the size of the slide's files: only the copy, if it takes one, is certain.

    Args:
        row: The slide in the catalog.
        uri: Where it is.
    """
    spool = round(_SPOOL_PER_SLIDE_BYTE * row.size_bytes)
    return SlideNeed(
        staged=row.size_bytes if is_url(uri) else 0,
        spool=spool,
        tar=spool,
        pictures=round(_PICTURES_PER_SLIDE_BYTE * row.size_bytes) + _PICTURES_BYTES,
    )


def estimated(*, planned: int, size_px: int, codec: Codec, staged: int, pictures: int) -> SlideNeed:
    """After the survey, from its planned patches: more than they will take, unless they are noise.

    Args:
        planned: Patches.
        size_px: Side of one.
        codec: How they are encoded.
        staged: Bytes of the copy.
        pictures: Bytes that the survey left.
    """
    patch = round(_bits_per_px(codec) * size_px * size_px / 8)
    return SlideNeed(staged=staged, spool=planned * patch, tar=planned * (patch + _TAR_BYTES), pictures=pictures)


def known(*, kept: int, spool: int, pictures: int) -> SlideNeed:
    """After the cut: its copy is gone.

    Args:
        kept: Samples in the spool.
        spool: Bytes of them.
        pictures: Bytes that the survey left.
    """
    return SlideNeed(spool=spool, tar=spool + kept * _TAR_BYTES, pictures=pictures)


def need_bytes(slides: Iterable[SlideNeed]) -> int:
    """The most that a group takes at a time: copies are gone when shards, and pictures once more, are written."""
    staged, spool, tar, pictures = 0, 0, 0, 0
    for slide in slides:
        staged += slide.staged
        spool += slide.spool
        tar += slide.tar
        pictures += slide.pictures
    return spool + pictures + max(staged, tar + pictures)


def parse_bytes(text: str) -> int:
    """A number of bytes as people write it: 200GB, 1.5 TiB, 500M, 1000000.

    Raises:
        ManifestError: It is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?i?)B?\s*", text, flags=re.IGNORECASE)
    unit = found[2].capitalize() if found else ""
    if found is None or unit not in _UNITS | _BINARY_UNITS:
        raise ManifestError(f"{text} is no number of bytes; write it as 200GB, 1.5TiB or 500000000.")
    return round(float(found[1]) * (_UNITS | _BINARY_UNITS)[unit])


def in_words(size_bytes: int) -> str:
    """A number of bytes for people, with three digits."""
    value, unit = float(size_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:  # what rounds to 1000 is 1 of the next
            break
        value, unit = value / 1000, larger
    if unit == "bytes":
        return f"{size_bytes} bytes"
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"


def _bits_per_px(codec: Codec) -> float:
    if codec.format == "png":
        return _PNG_BITS_PER_PX
    bits = next(bits for quality, bits in _JPEG_BITS_PER_PX if codec.quality <= quality)
    return bits if codec.subsampling == "420" else bits * _MORE_WITHOUT_SUBSAMPLING
