"""Tables that a manifest names (CSV, TSV or Parquet), as rows of text."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from exaone_prep.catalog.place import anchored, folder_of, is_url, name_of, read_chunks, standing, why
from exaone_prep.errors import ManifestError
from exaone_prep.parquet import read_parquet

_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """What a cohort's table says of one slide; what it leaves empty is None."""

    number: int
    """From 1, the header not counted."""
    uri: str
    slide_id: str | None
    patient_id: str | None
    mpp_um: float | None
    md5: str | None
    extra: dict[str, str] = field(default_factory=dict)


def read_rows(location: str, base: Path, *, what: str) -> tuple[str, tuple[str, ...], list[dict[str, str]]]:
    """Read a table.

    Args:
        location: Path (relative to `base`) or URL; `.parquet` and `.tsv` by their suffix, else CSV.
        base: The folder of the manifest.
        what: Which table this is, for messages.

    Returns:
        The absolute location, the column names, and the rows; values are stripped text, empty where there is none.

    Raises:
        ManifestError: The table is missing, unreadable or malformed.
    """
    uri = anchored(location, base)
    try:
        if standing(uri).kind != "file":
            raise ManifestError(f"{what} {location} is not a file.")
        content = b"".join(read_chunks(uri))
    except OSError as error:
        raise ManifestError(f"{what} {location} cannot be read: {why(error)}.") from error
    try:
        columns, rows = _parquet(content) if uri.lower().endswith((".parquet", ".pq")) else _text(content, uri)
    except (pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{what} {location} is neither CSV (UTF-8) nor Parquet: {_short(error)}.") from error
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise ManifestError(f"{what} {location} has the column `{twice[0]}` twice.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise ManifestError(f"{what} {location}, row {number}: {len(row)} values for {len(columns)} columns.")
    named = [name for name in columns if name]  # the first column of a written data frame has no name
    kept = [{name: value for name, value in zip(columns, row, strict=True) if name} for row in rows]
    return uri, tuple(named), kept


def read_cohort_table(location: str, base: Path, *, cohort: str) -> list[TableRow]:
    """Read the table of a cohort; its slides lie relative to its own folder.

    Raises:
        ManifestError: Naming the table, the row, and what to mend.
    """
    what = f"Cohort {cohort}: the table"
    uri, columns, rows = read_rows(location, base, what=what)
    if "slide" not in columns:
        raise ManifestError(f"{what} {location} has no column `slide`; it has {', '.join(columns) or 'none'}.")
    known = ("slide", "slide_id", "patient_id", "mpp", "md5")
    result = []
    for number, row in enumerate(rows, start=1):
        where = f"{what} {location}, row {number}"
        if not row["slide"]:
            raise ManifestError(f"{where}: `slide` is empty.")
        md5 = row.get("md5", "").lower() or None
        if md5 is not None and not _MD5.fullmatch(md5):
            raise ManifestError(f"{where}: the md5 {row['md5']!r} is not 32 hexadecimal digits.")
        result.append(
            TableRow(
                number=number,
                uri=_beside(uri, row["slide"]),
                slide_id=row.get("slide_id") or None,
                patient_id=row.get("patient_id") or None,
                mpp_um=positive_mpp(row.get("mpp", ""), where),
                md5=md5,
                extra={name: value for name, value in row.items() if name not in known and value},
            )
        )
    return result


def _beside(table_uri: str, slide: str) -> str:
    folder = folder_of(table_uri)
    if is_url(table_uri):
        return slide if is_url(slide) else f"{folder}/{slide}"
    return anchored(slide, Path(folder))


def positive_mpp(text: str, where: str) -> float | None:
    """µm per pixel from a cell, None where it is empty.

    Raises:
        ManifestError: Beginning with `where`: it is no positive number.
    """
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value <= 0:
        raise ManifestError(
            f"{where}: the mpp {text!r} is not a positive number of µm per pixel; leave it empty or mend it."
        )
    return value


def _parquet(content: bytes) -> tuple[tuple[str, ...], list[list[str]]]:
    table = read_parquet(content)
    columns = [[_as_text(value) for value in column.to_pylist()] for column in table.columns]
    return tuple(table.column_names), [list(row) for row in zip(*columns, strict=True)]


def _text(content: bytes, uri: str) -> tuple[tuple[str, ...], list[list[str]]]:
    delimiter = "\t" if name_of(uri).lower().endswith(".tsv") else ","
    lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=delimiter, strict=True)
    rows = [[value.strip() for value in row] for row in lines if any(value.strip() for value in row)]
    return (tuple(rows[0]), rows[1:]) if rows else ((), [])


def _as_text(value: object) -> str:
    """Parquet values as a CSV would hold them: a column of whole numbers with gaps often arrives as floats."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")
