"""Globs, folders and single files of a manifest, expanded to places where slides may lie.

The standard library's globs pass over folders they may not read; here such a folder is an error, so that no slide is
missing silently. Names that begin with a dot are passed over unless the pattern asks for them: file servers keep
snapshots of every slide in such folders, and some desktops write a hidden twin of every file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from stat import S_ISDIR

from exaone_prep.catalog.place import as_os_errors, is_url, name_of
from exaone_prep.catalog.place import standing as standing_at
from exaone_prep.faults import patiently
from exaone_prep.object_storage import filesystem

SLIDE_SUFFIXES = frozenset(
    {
        *(".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi", ".dcm"),
        *(".jp2", ".qptiff", ".zarr"),
    }
)
"""What OpenSlide (first line) or only TIAToolbox (second line) opens. A `.zarr` (NGFF) is a folder, but one slide."""

_WILDCARDS = re.compile(r"[*?\[]")
_FOLDER_SLIDE = ".zarr"


def has_slide_suffix(name: str) -> bool:
    """Whether a file name ends as slides do, in either case."""
    return os.path.splitext(name)[1].lower() in SLIDE_SUFFIXES  # noqa: PTH122  # names of URLs too


def expand(pattern: str) -> tuple[str, ...]:
    """All places that a pattern of the manifest stands for, sorted; none where it matches nothing.

    Args:
        pattern: An absolute local path or a URL: a single file (taken whatever its suffix), a folder (all files with
            a slide's suffix below it), or a glob, where `**` crosses folders. A glob whose last part spells out a
            suffix takes every match; any other (`*`, `**`, `case?`) only files with a slide's suffix.

    Raises:
        OSError: A folder on the way cannot be read, or the store cannot be reached.
    """
    with as_os_errors():
        return tuple(sorted(set(_expand_url(pattern) if is_url(pattern) else _expand_local(pattern))))


def _expand_url(pattern: str) -> Iterator[str]:
    system, path = filesystem(pattern)
    system.invalidate_cache()
    if not _WILDCARDS.search(path):
        try:
            folder = standing_at(pattern).kind == "folder"
        except FileNotFoundError:
            return
        if not folder or path.rstrip("/").lower().endswith(_FOLDER_SLIDE):
            yield system.unstrip_protocol(path)
            return
        matches = dict.fromkeys(patiently(lambda: system.find(path)), "file")
        takes_all = False
    else:
        found = patiently(lambda: system.glob(path, detail=True))
        matches = {name: info["type"] for name, info in found.items()}
        takes_all = _spells_suffix(name_of(path))
    prefix = len(_WILDCARDS.split(path)[0].rpartition("/")[0])
    for name, kind in matches.items():
        for below in patiently(lambda name=name: system.find(name)) if kind == "directory" else [name]:  # type: ignore[misc]
            whole = _as_one_slide(below)
            if "/." in whole[prefix:] and "/." not in path:
                continue
            if has_slide_suffix(whole) or (takes_all and kind == "file"):
                yield system.unstrip_protocol(whole)


def _as_one_slide(path: str) -> str:
    parts = path.split("/")
    ends = [i for i, part in enumerate(parts) if part.lower().endswith(_FOLDER_SLIDE)]
    return "/".join(parts[: ends[0] + 1]) if ends else path


def _expand_local(pattern: str) -> Iterator[str]:
    path = Path(pattern)
    if os.path.lexists(path):  # a name may hold brackets
        yield from _files(path, takes_all=True)
        return
    parts = path.parts
    first = next((i for i, part in enumerate(parts) if _WILDCARDS.search(part)), None)
    if first is None:
        return
    takes_all = _spells_suffix(parts[-1])
    for match in _matches(Path(*parts[:first]), list(parts[first:]), frozenset()):
        yield from _files(match, takes_all=takes_all)


def _files(path: Path, *, takes_all: bool) -> Iterator[str]:
    if path.name.lower().endswith(_FOLDER_SLIDE) or not path.is_dir():
        if takes_all or has_slide_suffix(path.name):
            yield str(path)
        return
    for below in _matches(path, ["**"], frozenset()):
        if has_slide_suffix(below.name):
            yield str(below)


def _matches(folder: Path, segments: list[str], trail: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """Paths below `folder` that fit the segments; `trail` holds the folders above, against links in a circle."""
    head, *rest = segments
    if not _WILDCARDS.search(head):
        below = folder / head
        if rest and below.is_dir():
            yield from _matches(below, rest, trail)
        elif not rest and os.path.lexists(below):
            yield below
        return
    try:
        found = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    if not S_ISDIR(found.st_mode):
        return
    here = (found.st_dev, found.st_ino)
    if head == "**" and here in trail:
        return
    if head == "**" and rest:
        yield from _matches(folder, rest, trail)
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if head.startswith(".") or not entry.name.startswith("."))
    for name in names:
        below = folder / name
        if head == "**":
            if below.is_dir() and not name.lower().endswith(_FOLDER_SLIDE):
                yield from _matches(below, segments, trail | {here})
            elif not rest:
                yield below
        elif fnmatchcase(name, head):
            if not rest:
                yield below
            elif below.is_dir():
                yield from _matches(below, rest, trail)


def _spells_suffix(segment: str) -> bool:
    return not _WILDCARDS.search(segment) or re.search(r"\.[A-Za-z0-9]+$", segment) is not None
