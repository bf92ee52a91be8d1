"""Opening a slide with the first reader that can."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exaone_prep.errors import SlideProblemError
from exaone_prep.manifest import Reader
from exaone_prep.slides.openslide_reader import OpenSlideReader
from exaone_prep.slides.reach import check_path, unreachable
from exaone_prep.slides.reader import SlideReader


def open_slide(path: Path, readers: Sequence[Reader]) -> SlideReader:
    """Open a slide with the first of the readers that can; `SlideInfo.reader` says which it was.

    Args:
        path: A local file, or the directory of one DICOM series (or of one NGFF image).
        readers: In order of preference.

    Raises:
        SlideProblemError: No reader can: ``not_a_file``, ``empty_file``, ``not_a_slide`` or ``unreadable``.
        UnreachableError: The path is missing or cannot be read, which is not the slide's fault.
        ManifestError: A reader is needed that is not installed.
    """
    check_path(path)
    problems: list[SlideProblemError] = []
    for reader in readers:
        try:
            return _open_with(reader, path)
        except SlideProblemError as problem:
            problems.append(problem)
        except OSError as error:
            raise unreachable(error) from error
    # "Known but broken" says more than "unknown"; among equals the preferred reader's word counts.
    raise min(problems, key=lambda problem: problem.reason != "unreadable")


def _open_with(reader: Reader, path: Path) -> SlideReader:
    if reader == "openslide":
        return OpenSlideReader(path)
    from exaone_prep.slides.tiatoolbox_reader import TiatoolboxReader

    return TiatoolboxReader(path)
