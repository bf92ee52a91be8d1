"""What is one slide, what it is called, and whose it is."""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import re
import struct
import unicodedata
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from exaone_prep.catalog.glob import has_slide_suffix
from exaone_prep.catalog.place import files_below, files_in, folder_of, name_of, read_ranges, standing, why
from exaone_prep.catalog.sources import Candidate
from exaone_prep.catalog.table import TableRow
from exaone_prep.errors import ManifestError, UnreachableError

PatientSource = Literal["table", "regex", "slide"]

ID_KEY_VARIABLE = "EXAONE_PREP_ID_KEY"
MAX_ID_CHARACTERS = 72
"""So that `<slide_id>-<x>-<y>.json` fits the 100 bytes of a USTAR name, with nine digits each for x and y."""

_SERIES_INSTANCE_UID = 0x0020000E
_HEAD_BYTES = 1 << 16
_PARSE_ERRORS = (
    *(EOFError, struct.error, zlib.error, ValueError, KeyError),
    *(AttributeError, TypeError, NotImplementedError, RecursionError),
)


@dataclass(frozen=True, kw_only=True)
class SlideFile:
    """One slide as it lies in a store, before anything of its content is known but the DICOM series."""

    uri: str
    """What a reader opens: the file, the first file by name of a DICOM series, or a `.zarr` folder."""
    name: str
    """The name its id is made of: of the file, or of a folder that holds one DICOM series and no other slide."""
    cohort: str
    row: TableRow | None
    members: tuple[str, ...] | None
    """The files of a DICOM series, sorted; None where `members_of` has not been asked yet."""


def gather(candidates: Iterable[Candidate], *, threads: int = 16) -> list[SlideFile]:
    """Join candidates that are files of one slide.

    Files with the suffix `.dcm` in one folder with one SeriesInstanceUID (0020,000E) are one slide, whether the
    manifest names all of them or some: OpenSlide, too, joins what lies beside the file that it opens. A `.dcm` that
    is no DICOM is a slide of its own, and its trouble is found later.

    Raises:
        ManifestError: A row of a table stands for several slides, or several rows or cohorts for one.
        UnreachableError: A `.dcm` file cannot be read, so that its series is not known.
    """
    listed = list(candidates)
    folders = sorted({folder_of(candidate.uri) for candidate in listed if _is_dicom(candidate.uri)})
    try:
        with ThreadPoolExecutor(max_workers=threads) as pool:
            series = dict(zip(folders, pool.map(_series_in, folders), strict=True))
    except OSError as error:
        where = error.filename or "in a store"
        raise UnreachableError(f"A DICOM file or its folder ({where}) cannot be read: {why(error)}.") from error
    found: dict[str, SlideFile] = {}
    uri_of_row: dict[int, str] = {}
    for candidate in listed:
        slide = _slide_of(candidate, series)
        known = found.setdefault(slide.uri, slide)
        if known.cohort != slide.cohort:
            raise ManifestError(
                f"The cohorts {known.cohort} and {slide.cohort} both name {slide.uri}; take it out of one."
            )
        if known.row and slide.row and known.row is not slide.row:
            raise ManifestError(
                f"Cohort {slide.cohort}: the rows {known.row.number} and {slide.row.number} of the table name files of "
                f"one DICOM series ({folder_of(slide.uri)}); keep one."
            )
        if slide.row and not known.row:
            found[slide.uri] = slide
        if slide.row and uri_of_row.setdefault(id(slide.row), slide.uri) != slide.uri:
            raise ManifestError(
                f"Cohort {slide.cohort}: row {slide.row.number} of the table names a folder with several slides "
                f"({slide.row.uri}); give each slide a row of its own."
            )
        if slide.row and slide.row.md5 and _has_companions(slide):
            raise ManifestError(
                f"Cohort {slide.cohort}: row {slide.row.number} of the table gives an md5 for {slide.uri}, a slide of "
                "several files; leave it empty there."
            )
    return sorted(found.values(), key=lambda slide: slide.uri)


def members_of(uri: str) -> tuple[str, ...]:
    """All files that make up the slide at `uri`, sorted: itself, its DICOM series, its companions.

    Companions are the folder of an `.mrxs`, the files named after a `.vms` or `.vmu`, and the content of a `.zarr`.

    Raises:
        OSError: They cannot be listed.
    """
    lower = uri.lower()
    if _is_dicom(uri):
        return next((series for series in _series_in(folder_of(uri)) if uri in series), (uri,))
    if lower.endswith(".zarr"):
        return files_below(uri)
    if lower.endswith(".mrxs"):
        return tuple(sorted({uri, *files_below(_without_suffix(uri))}))
    if lower.endswith((".vms", ".vmu")):
        stem = name_of(_without_suffix(uri))
        return tuple(sorted({uri, *(file for file in files_in(folder_of(uri)) if name_of(file).startswith(stem))}))
    return (uri,)


def clean_id(name: str) -> str:
    """A name as a slide id: letters, digits, `_` and `-` of ASCII, others become `_`; at most 72 characters.

    A longer one is cut and ends in the first eight hexadecimal digits of the SHA-256 of the whole name.
    """
    normal = unicodedata.normalize("NFC", name)
    cleaned = re.sub(r"[^A-Za-z0-9_-]", "_", normal)
    if len(cleaned) <= MAX_ID_CHARACTERS:
        return cleaned
    digest = hashlib.sha256(normal.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{cleaned[: MAX_ID_CHARACTERS - 9]}_{digest}"


def clear_id(slide: SlideFile) -> str:
    """The id of a slide before any hashing: the table's, or its name without suffix, cleaned."""
    if slide.row and slide.row.slide_id:
        return clean_id(slide.row.slide_id)
    return clean_id(stem_of(slide.name))


def clear_ids(slides: Iterable[SlideFile]) -> dict[str, SlideFile]:
    """Slides by their clear id.

    Raises:
        ManifestError: Two slides clean to one id; it names both.
    """
    result: dict[str, SlideFile] = {}
    for slide in slides:
        other = result.setdefault(clear_id(slide), slide)
        if other is not slide:
            raise ManifestError(
                f"{other.uri} and {slide.uri} would both have the slide id {clear_id(slide)}; rename one, or give "
                "`slide_id` in a table."
            )
    return result


def stem_of(name: str) -> str:
    """A file name without its suffix; digits after the last dot are no suffix (DICOM names are often UIDs)."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and stem and suffix and not suffix.isdecimal() else name


def patient_of(slide: SlideFile, regex: str | None) -> tuple[str, PatientSource]:
    """The patient of a slide: from the table, else from its name by the cohort's regex, else the slide itself.

    Patients are global: the same id in two cohorts is the same person.
    """
    if slide.row and slide.row.patient_id:
        return slide.row.patient_id, "table"
    match = re.search(regex, slide.name) if regex is not None else None
    found = (match.group(1) if match.re.groups else match.group(0)) if match else None
    return (found, "regex") if found else (clear_id(slide), "slide")


def hashed_id(kind: Literal["slide", "patient", "key"], clear: str, key: bytes) -> str:
    """A clear id, hidden: the first 16 hexadecimal digits of its HMAC-SHA256 (RFC 2104) under a secret key."""
    return hmac.new(key, f"{kind}:{clear}".encode(), hashlib.sha256).hexdigest()[:16]


def id_key_from_environment() -> bytes | None:
    """The secret key for hashed ids, from EXAONE_PREP_ID_KEY; None where it is unset or empty."""
    return os.environ.get(ID_KEY_VARIABLE, "").encode() or None


def _is_dicom(uri: str) -> bool:
    return uri.lower().endswith(".dcm")


def _without_suffix(uri: str) -> str:
    return uri.rpartition(".")[0]


def _has_companions(slide: SlideFile) -> bool:
    return len(slide.members or ()) > 1 or slide.uri.lower().endswith((".mrxs", ".vms", ".vmu", ".zarr"))


def _slide_of(candidate: Candidate, series: dict[str, tuple[tuple[str, ...], ...]]) -> SlideFile:
    uri, row, cohort = candidate.uri, candidate.row, candidate.cohort
    if not _is_dicom(uri):
        return SlideFile(uri=uri, name=name_of(uri), cohort=cohort, row=row, members=None)
    folder = folder_of(uri)
    members = next((files for files in series[folder] if uri in files), (uri,))
    alone = (
        len(members) > 1
        and len(series[folder]) == 1
        and not any(has_slide_suffix(name_of(file)) and file not in members for file in files_in(folder))
    )
    return SlideFile(
        uri=members[0], name=name_of(folder if alone else members[0]), cohort=cohort, row=row, members=members
    )


def _series_in(folder: str) -> tuple[tuple[str, ...], ...]:
    """The `.dcm` files of a folder, joined by series; files that tell none stay alone."""
    by_uid: dict[str, list[str]] = {}
    for file in files_in(folder):
        if _is_dicom(file):
            by_uid.setdefault(_series_uid(file) or file, []).append(file)
    return tuple(tuple(files) for files in by_uid.values())


def _series_uid(uri: str) -> str | None:
    size_bytes = standing(uri).size_bytes
    # Half a second that only DICOM slides need to pay.
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_partial

    for length in (_HEAD_BYTES, size_bytes):
        try:
            head = io.BytesIO(read_ranges(uri, [(0, min(length, size_bytes))])[0])
            header = read_partial(head, stop_when=_after_series, specific_tags=[_SERIES_INSTANCE_UID])
            raw = header.get_item(_SERIES_INSTANCE_UID)
        except InvalidDicomError:
            return None
        except _PARSE_ERRORS:
            continue
        value = getattr(raw, "value", None)
        if value is not None:
            return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)).strip("\0 ") or None
    return None


def _after_series(tag: int, vr: str | None, length: int) -> bool:  # noqa: ARG001
    return tag > _SERIES_INSTANCE_UID
