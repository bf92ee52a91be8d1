"""Where slides lie: local paths, or URLs that fsspec understands. Whatever goes wrong here is an `OSError`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from exaone_prep.faults import patiently
from exaone_prep.object_storage import filesystem

Kind = Literal["file", "folder", "pipe", "socket", "device"]
Range = tuple[int, int]
"""Offset and length in bytes."""

_LOCAL_SCHEMES = ("file://", "local://")
CHUNK_BYTES = 1 << 24
"""Of a file that is read whole: one request to a store."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What stands at a place, found without opening it."""

    kind: Kind
    size_bytes: int


def is_url(location: str) -> bool:
    """Whether a location is a URL of another store (a `file://` URL is a local path)."""
    return "://" in location and not location.startswith(_LOCAL_SCHEMES)


def anchored(location: str, base: Path) -> str:
    """An absolute local path (relative ones start at `base`, `~` is the home), or the URL as it is."""
    if is_url(location):
        return location
    for scheme in _LOCAL_SCHEMES:
        location = location.removeprefix(scheme)
    return str(base.absolute() / os.path.expanduser(location))  # noqa: PTH111  # leaves an unknown ~user as it is


def name_of(uri: str) -> str:
    """The last part of a path or URL."""
    return uri.rstrip("/").rpartition("/")[2]


def folder_of(uri: str) -> str:
    """All but the last part of a path or URL."""
    return uri.rstrip("/").rpartition("/")[0]


def standing(uri: str) -> Standing:
    """What stands at `uri`; only asks the file system for it, so that a pipe cannot block.

    Raises:
        OSError: Nothing is there (`FileNotFoundError`), or it cannot be reached.
    """
    if is_url(uri):
        with as_os_errors():
            system, path = filesystem(uri)
            system.invalidate_cache(path)
            info = patiently(lambda: system.info(path))
        return Standing(kind="folder" if info["type"] == "directory" else "file", size_bytes=int(info["size"] or 0))
    found = Path(uri).stat()
    return Standing(kind=_kind(found.st_mode), size_bytes=found.st_size)


def files_in(folder: str) -> tuple[str, ...]:
    """Regular files directly in a folder, sorted; of a folder that is not there, none."""
    if is_url(folder):
        with as_os_errors():
            system, path = filesystem(folder)
            try:
                listed = patiently(lambda: system.ls(path, detail=True, refresh=True))
            except FileNotFoundError:
                return ()
            return tuple(sorted(system.unstrip_protocol(info["name"]) for info in listed if info["type"] == "file"))
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted(entry.path for entry in entries if entry.is_file()))
    except (FileNotFoundError, NotADirectoryError):
        return ()


def files_below(folder: str) -> tuple[str, ...]:
    """Regular files anywhere below a folder, sorted; of a folder that is not there, none."""
    if is_url(folder):
        with as_os_errors():
            system, path = filesystem(folder)
            return tuple(sorted(system.unstrip_protocol(name) for name in patiently(lambda: system.find(path))))
    if not Path(folder).is_dir():
        return ()
    walked = os.walk(folder, onerror=_raise)
    paths = (Path(root, name) for root, _, names in walked for name in names)
    return tuple(sorted(str(path) for path in paths if path.is_file()))


def read_ranges(uri: str, ranges: Sequence[Range]) -> list[bytes]:
    """The bytes of some ranges of a regular file; what lies beyond its end is left out."""
    if is_url(uri):
        with as_os_errors():
            system, path = filesystem(uri)
            return _patient_ranges(system, path, ranges)
    parts = []
    with Path(uri).open("rb", buffering=0) as file:
        for offset, length in ranges:
            file.seek(offset)
            parts.append(_read_fully(file, length))
    return parts


def read_chunks(uri: str) -> Iterator[bytes]:
    """A whole regular file, piece by piece."""
    if is_url(uri):
        size_bytes = standing(uri).size_bytes
        for offset in range(0, size_bytes, CHUNK_BYTES):
            yield from read_ranges(uri, [(offset, min(CHUNK_BYTES, size_bytes - offset))])
        return
    with Path(uri).open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def why(error: OSError) -> str:
    """The cause of an error in words that hold no path."""
    if error.strerror:
        return error.strerror
    known: dict[type[OSError], str] = {
        PermissionError: "permission denied",
        FileNotFoundError: "it is not there",
        TimeoutError: "timed out",
    }
    return next((text for kind, text in known.items() if isinstance(error, kind)), type(error).__name__)


def _patient_ranges(system: Any, path: str, ranges: Sequence[Range]) -> list[bytes]:
    """Each range is tried as often as any other request: what has come is not asked for again."""
    parts: dict[Range, bytes] = {}

    def ask() -> None:
        missing = [one for one in dict.fromkeys(ranges) if one not in parts]
        ends = [offset + length for offset, length in missing]
        answers = system.cat_ranges([path] * len(missing), [offset for offset, _ in missing], ends)
        fault = None
        for one, answer in zip(missing, answers, strict=True):
            if isinstance(answer, Exception):  # whatever it is told about errors, it returns them in place of bytes
                fault = answer
            else:
                parts[one] = bytes(answer)
        if fault is not None:
            raise fault

    patiently(ask)
    return [parts[one] for one in ranges]


def _read_fully(file: Any, length: int) -> bytes:
    parts = []
    while length > 0 and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISFIFO(mode):
        return "pipe"
    return "socket" if stat.S_ISSOCK(mode) else "device"


def _raise(error: OSError) -> None:
    raise error


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Turn whatever a store's client raises into an `OSError`."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # every store's client has a family of its own, and no common ancestor
        raise OSError(None, f"{type(error).__name__} from the store") from error
