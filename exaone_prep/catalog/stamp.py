"""The content stamp of a slide: cheap to take, and different when the slide is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from exaone_prep.catalog.identity import members_of
from exaone_prep.catalog.place import Standing, read_chunks, read_ranges, standing, why
from exaone_prep.errors import Reason, SlideChangedError, UnreachableError

if TYPE_CHECKING:
    from exaone_prep.catalog.catalog import CatalogRow

HEAD_BYTES = 65_536
"""Hashed at the start, at the end, and from the first TIFF directory on."""
BLOCK_BYTES = 4_096
BLOCKS = 16
"""Hashed in between, evenly spaced."""
MAX_MEMBERS = 64
"""Of a slide of more files, evenly spaced ones are read; the size of every one counts."""

_FOLDER_SLIDE = ".zarr"
_TIFF, _BIG_TIFF = 42, 43


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What tells one content from another."""

    text: str
    """`sampled:<sha256>`, `md5:<md5>` as a table gave it, or `none:<reason>`."""
    size_bytes: int
    """Of all files of the slide; 0 where there is no content."""
    problem: tuple[Reason, str] | None = None


def stamp_slide(uri: str, *, md5: str | None = None, members: tuple[str, ...] | None = None) -> Stamp:
    """Take the stamp of a slide.

    SHA-256 over size and samples: the first 64 KiB, the last 64 KiB, 64 KiB from the first directory of a TIFF or
    BigTIFF on (TIFF 6.0, section 2: there a rewritten tag lies), and 16 blocks of 4 KiB evenly spaced over the whole.
    A slide of several files is stamped over the stamps of its files, in an order that their names do not decide, so
    that a renamed copy has the same stamp. Names and times are in no stamp. Of a single file up to 256 KiB every byte
    is hashed.

    Args:
        uri: Local path or URL.
        md5: What a table says; it is then the stamp, nothing is read, and only `check_stamp` reads the whole file.
        members: The files of the slide where they are known; else they are looked up.

    Raises:
        OSError: The slide cannot be reached. A pipe, socket or device is never opened.
    """
    found = standing(uri)
    if found.kind != "file" and not (found.kind == "folder" and uri.lower().endswith(_FOLDER_SLIDE)):
        return _no_content("not_a_file", f"It is a {found.kind}, not a regular file; take it out of the manifest.")
    if found.kind == "file" and found.size_bytes == 0:
        return _no_content("empty_file", "It is a file of zero bytes; fetch it again from its source.")
    if md5 is not None:
        return Stamp(text=f"md5:{md5}", size_bytes=found.size_bytes)
    files = members_of(uri) if members is None else members
    if not files:
        return _no_content("empty_file", "It is a folder without files; fetch it again from its source.")
    stands = [found if file == uri else standing(file) for file in files]
    sampled = set(_spaced(len(files), MAX_MEMBERS))
    digests = sorted(
        _sampled(file, stand) if position in sampled else f"{stand.size_bytes}"
        for position, (file, stand) in enumerate(zip(files, stands, strict=True))
    )
    text = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return Stamp(text=f"sampled:{text}", size_bytes=sum(stand.size_bytes for stand in stands))


def check_stamp(row: CatalogRow, place: Path | str) -> None:
    """Make sure that a slide is still what the catalog froze.

    A stamp that came from a table as an md5 is checked over the whole file, the first time that anything but the table
    vouches for it.

    Args:
        row: The slide's row.
        place: Where it lies now, a local path or URL (staged copies keep their stamp).

    Raises:
        SlideChangedError: Its content differs.
        UnreachableError: It cannot be read. With hashed ids (a row without URI) neither message holds a path.
    """
    uri = str(place)
    is_md5 = row.stamp.startswith("md5:")
    cause: OSError | None = None
    try:
        now = stamp_slide(uri, md5=_md5(uri, standing(uri)) if is_md5 else None)
    except OSError as error:
        cause = error
    if cause is not None:
        sentence = f"Slide {row.slide_id} cannot be reached{_at(row, uri)}: {why(cause)}."
        raise UnreachableError(sentence) from (cause if row.uri is not None else None)
    if now.text != row.stamp:
        then = "the md5 in its table" if is_md5 else f"the content that the catalog froze ({row.size_bytes:,} bytes)"
        raise SlideChangedError(
            f"Slide {row.slide_id}{_at(row, uri)} no longer has {then}, it is {_described(now)}; restore it, or build "
            "a new data set."
        )


def _described(stamp: Stamp) -> str:
    return f"now {stamp.size_bytes:,} bytes with other content" if stamp.problem is None else "now without content"


def _at(row: CatalogRow, uri: str) -> str:
    return f" at {uri}" if row.uri is not None else ""


def _no_content(reason: Reason, sentence: str) -> Stamp:
    return Stamp(text=f"none:{reason}", size_bytes=0, problem=(reason, sentence))


def _md5(uri: str, found: Standing) -> str:
    if found.kind != "file":
        return ""
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in read_chunks(uri):
        digest.update(chunk)
    return digest.hexdigest()


def _sampled(uri: str, found: Standing) -> str:
    size = found.size_bytes
    if found.kind != "file":
        return f"{found.kind}"
    if size <= 4 * HEAD_BYTES:
        ranges = [(0, size)]
        parts = read_ranges(uri, ranges)
    else:
        ranges = [(0, HEAD_BYTES), (size - HEAD_BYTES, HEAD_BYTES)]
        head = read_ranges(uri, ranges[:1])[0]
        directory = _first_directory(head)
        if directory is not None and directory < size:
            ranges.append((directory, min(HEAD_BYTES, size - directory)))
        ranges += [(size * i // (BLOCKS + 1), BLOCK_BYTES) for i in range(1, BLOCKS + 1)]
        parts = [head, *read_ranges(uri, ranges[1:])]
    digest = hashlib.sha256(f"{size}\n".encode())
    for (offset, length), part in zip(ranges, parts, strict=True):
        digest.update(f"{offset} {length} {len(part)}\n".encode())
        digest.update(part)
    return digest.hexdigest()


def _first_directory(head: bytes) -> int | None:
    """Offset in bytes of the first directory, if these are the first bytes of a TIFF or BigTIFF."""
    if head[:2] not in (b"II", b"MM"):
        return None
    byteorder: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    magic = int.from_bytes(head[2:4], byteorder)
    if magic == _TIFF:
        return int.from_bytes(head[4:8], byteorder)
    return int.from_bytes(head[8:16], byteorder) if magic == _BIG_TIFF else None


def _spaced(count: int, most: int) -> list[int]:
    return list(range(count)) if count <= most else [i * (count - 1) // (most - 1) for i in range(most)]
