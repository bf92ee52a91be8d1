"""From the cohorts of a manifest to candidate slides: places, with what a table says of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from exaone_prep.catalog.glob import expand
from exaone_prep.catalog.place import anchored, folder_of, is_url, name_of, why
from exaone_prep.catalog.table import TableRow, read_cohort_table
from exaone_prep.errors import ManifestError, UnreachableError
from exaone_prep.manifest import Cohort


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A place that a cohort names: a slide, or one file of a slide."""

    uri: str
    cohort: str
    row: TableRow | None = None


def find_candidates(cohorts: Iterable[Cohort], base: Path) -> list[Candidate]:
    """All places that the cohorts name, each once, sorted by path.

    Where globs and the table of one cohort name the same place, it counts once, with what the table says. A folder
    reached by two paths (a symbolic link) is the same folder; a link to a single file is a file of its own.

    Args:
        cohorts: From the manifest.
        base: The folder of the manifest, where relative paths start.

    Raises:
        ManifestError: A pattern matches nothing, a table is wrong, or two cohorts name the same place.
        UnreachableError: A folder or store cannot be read.
    """
    _real_folder.cache_clear()  # links may have moved since
    found: dict[str, Candidate] = {}
    for cohort in cohorts:
        for candidate in [*_from_table(cohort, base), *_from_patterns(cohort, base)]:
            place = _identity(candidate.uri)
            known = found.setdefault(place, candidate)
            if known.cohort != candidate.cohort:
                raise ManifestError(
                    f"The cohorts {known.cohort} and {candidate.cohort} both name {candidate.uri}; take it out of one."
                )
            if known.row and candidate.row and known.row is not candidate.row:
                raise ManifestError(
                    f"Cohort {cohort.name}: the table names {candidate.uri} in rows {known.row.number} and "
                    f"{candidate.row.number}; keep one."
                )
    return sorted(found.values(), key=lambda candidate: candidate.uri)


def _from_patterns(cohort: Cohort, base: Path) -> list[Candidate]:
    result = []
    for pattern in cohort.slides:
        places = _expand(anchored(pattern, base), cohort.name)
        if not places:
            raise ManifestError(
                f"Cohort {cohort.name}: {pattern} matches no slide; relative paths start at the manifest's folder."
            )
        result += [Candidate(uri=_encodable(uri, cohort.name), cohort=cohort.name) for uri in places]
    return result


def _from_table(cohort: Cohort, base: Path) -> list[Candidate]:
    if cohort.table is None:
        return []
    rows = read_cohort_table(cohort.table, base, cohort=cohort.name)
    if not rows:
        raise ManifestError(f"Cohort {cohort.name}: the table {cohort.table} has no rows.")
    result = []
    for row in rows:
        places = _expand_literal(row.uri, cohort.name)
        if not places:
            raise ManifestError(
                f"Cohort {cohort.name}: the table {cohort.table} lists {row.uri} in row {row.number}, but no slide is "
                "there; paths in a table start at the table's folder."
            )
        result += [Candidate(uri=_encodable(uri, cohort.name), cohort=cohort.name, row=row) for uri in places]
    return result


def _expand(pattern: str, cohort: str) -> tuple[str, ...]:
    try:
        return expand(pattern)
    except OSError as error:
        where = error.filename or pattern
        raise UnreachableError(f"Cohort {cohort}: {where} cannot be read: {why(error)}.") from error


def _expand_literal(uri: str, cohort: str) -> tuple[str, ...]:
    """A table names slides, not globs: a local name with brackets is only ever that name."""
    if not is_url(uri) and not _exists(uri, cohort):
        return ()
    return _expand(uri, cohort)


def _exists(path: str, cohort: str) -> bool:
    try:
        Path(path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UnreachableError(f"Cohort {cohort}: {path} cannot be read: {why(error)}.") from error
    return True


def _identity(uri: str) -> str:
    return uri if is_url(uri) else f"{_real_folder(folder_of(uri))}/{name_of(uri)}"


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return str(Path(folder or "/").resolve())


def _encodable(uri: str, cohort: str) -> str:
    try:
        uri.encode()
    except UnicodeEncodeError as error:
        raise ManifestError(f"Cohort {cohort}: the file name {uri!r} is not UTF-8; rename the file.") from error
    return uri
