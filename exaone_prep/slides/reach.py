"""Telling a slide that cannot be reached from one that is broken: only the second is the slide's fault."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from exaone_prep.errors import SlideProblemError, UnreachableError

PROBES: Final = 16
PROBE_BYTES: Final = 4096


def check_path(path: Path) -> None:
    """Refuse what cannot be a slide, and make sure that the beginning of all its files can be read.

    All of them, because OpenSlide passes over a DICOM file it may not read, and the slide lacks a level.
    Sentences name no path: it may be a patient's name.

    Raises:
        SlideProblemError: ``not_a_file`` (a pipe, a device, a socket) or ``empty_file``.
        UnreachableError: The path is missing or cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            if not stat.S_ISREG(status.st_mode):
                raise SlideProblemError("not_a_file", "This is a pipe, a device or a socket, not a file: leave it out.")
            if status.st_size == 0:
                raise SlideProblemError("empty_file", "The file is empty (0 bytes): copy it again from its source.")
        for part in slide_files(path):
            _read_at(part, [0])
    except OSError as error:
        raise unreachable(error) from error


def ensure_reachable(path: Path) -> None:
    """Read samples from all files of a slide, spread over their length, after something else failed to.

    Raises:
        UnreachableError: One of them is missing or cannot be read, so the failure says nothing about the slide.
    """
    try:
        for part in slide_files(path):
            last = max(part.stat().st_size - PROBE_BYTES, 0)
            _read_at(part, sorted({last * probe // (PROBES - 1) for probe in range(PROBES)}))
    except OSError as error:
        raise unreachable(error) from error


def slide_files(path: Path) -> list[Path]:
    """The files a slide may consist of: itself, an ``.mrxs`` with those of its folder, or for DICOM all of a folder.

    OpenSlide looks for a series in all files of the folder, whatever their names.

    Raises:
        OSError: A folder cannot be listed.
    """
    if path.is_dir():
        return _files_of(path)
    if path.suffix.lower() == ".dcm":
        return _files_of(path.parent)
    folder = path.with_suffix("")
    return [path, *_files_of(folder)] if path.suffix.lower() == ".mrxs" and folder.is_dir() else [path]


def _files_of(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_file())


def _read_at(path: Path, offsets: list[int]) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for offset in offsets:
            os.pread(descriptor, PROBE_BYTES, offset)
    finally:
        os.close(descriptor)


def unreachable(error: OSError) -> UnreachableError:
    """The sentence for a fault of storage, without the path that the fault itself would name."""
    return UnreachableError(
        f"The slide cannot be reached ({error.strerror}): check the path, the mount and its rights."
    )
