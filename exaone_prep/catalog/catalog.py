"""The frozen table of a data set's slides: one row each, as Parquet."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from exaone_prep.catalog.identity import PatientSource
from exaone_prep.errors import REASONS, DatasetError, Reason
from exaone_prep.parquet import read_parquet

CATALOG_FORMAT = 1
"""Raised when a reader of the previous number would misread; readers accept the current and the previous one."""

NO_GROUP = -1

SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("cohort", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("patient_source", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("group", pa.int32(), nullable=False),
        pa.field("stamp", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("uri", pa.string()),
        pa.field("mpp_override", pa.float64()),
        pa.field("cohort_mpp", pa.float64()),
        pa.field("mpp_if_missing", pa.float64()),
        pa.field("allow_non_he", pa.bool_(), nullable=False),
        pa.field("duplicate_of", pa.string()),
        pa.field("problem_reason", pa.string()),
        pa.field("problem", pa.string()),
    ]
)
"""Columns of `catalog.parquet`; extra columns of the cohorts' tables follow, sorted by name, as text."""

_METADATA_KEY = b"exaone_prep.catalog"


@dataclass(frozen=True, kw_only=True)
class CatalogRow:
    """One slide of the manifest."""

    slide_id: str
    cohort: str
    patient_id: str
    patient_source: PatientSource
    split: str
    group: int
    """`NO_GROUP` for duplicates."""
    stamp: str
    size_bytes: int
    uri: str | None
    """Absolute path or URL; None with hashed ids, where it is in `private/`."""
    mpp_override: float | None
    """µm per pixel of level 0 from the cohort's table."""
    cohort_mpp: float | None
    mpp_if_missing: float | None
    allow_non_he: bool
    duplicate_of: str | None = None
    """Id of the slide with the same content, here or in an earlier data set, that is taken instead."""
    problem: tuple[Reason, str] | None = None
    """Why the slide is set aside already, with a sentence."""
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CatalogMetadata:
    """What holds for the whole catalog."""

    format_version: int
    versions: dict[str, str]
    """Of the packages that touch pixels."""
    excluded: dict[str, int]
    """`patients` and `slides` that the exclude table kept out; `done_before`: slides of an earlier data set."""
    warnings: tuple[str, ...]
    manifest: dict[str, Any]
    """`Manifest.canonical`, of the settings the catalog was frozen with."""
    environment: dict[str, Any] = field(default_factory=dict)
    id_key_check: str = ""
    """With hashed ids: whether another data set's were hashed with the same key, without telling the key."""
    """In which it was frozen; in no content id."""


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """All slides of a data set, sorted by id."""

    rows: tuple[CatalogRow, ...]
    content_id: str
    """SHA-256 over everything that decides the bytes of the shards; see `content_id_of`."""
    metadata: CatalogMetadata

    def groups(self) -> dict[int, tuple[CatalogRow, ...]]:
        """The rows of each group, both in order; duplicates are in none."""
        result: dict[int, list[CatalogRow]] = {}
        for row in self.rows:
            if row.group != NO_GROUP:
                result.setdefault(row.group, []).append(row)
        return {group: tuple(result[group]) for group in sorted(result)}

    def to_parquet(self) -> bytes:
        """The catalog as a Parquet file; equal catalogs give equal bytes under equal versions of Arrow."""
        extra = sorted({name for row in self.rows for name in row.extra})
        columns = {name: [_cell(row, name) for row in self.rows] for name in SCHEMA.names}
        columns |= {name: [row.extra.get(name) for row in self.rows] for name in extra}
        document = {
            "content_id": self.content_id,
            "format_version": self.metadata.format_version,
            "versions": self.metadata.versions,
            "excluded": self.metadata.excluded,
            "warnings": list(self.metadata.warnings),
            "manifest": self.metadata.manifest,
            "environment": self.metadata.environment,
            "id_key_check": self.metadata.id_key_check,
            "extra": extra,
        }
        schema = pa.schema([*SCHEMA, *(pa.field(name, pa.string()) for name in extra)])
        table = pa.table(columns, schema=schema.with_metadata({_METADATA_KEY: _canonical(document)}))
        return parquet_bytes(table)

    @classmethod
    def from_parquet(cls, content: bytes) -> Catalog:
        """Read what `to_parquet` wrote.

        Raises:
            DatasetError: It is no catalog, damaged, or of a format that this version does not read.
        """
        try:
            table = read_parquet(content)
            document = json.loads((table.schema.metadata or {})[_METADATA_KEY])
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise DatasetError(
                "The catalog is damaged or is no catalog; use the data set's own catalog.parquet."
            ) from error
        version = document.get("format_version")
        if version not in (CATALOG_FORMAT, CATALOG_FORMAT - 1):
            raise DatasetError(f"The catalog has format {version}; this version reads {CATALOG_FORMAT}: update it.")
        return cls(
            rows=tuple(_rows(table, document["extra"])),
            content_id=document["content_id"],
            metadata=CatalogMetadata(
                format_version=version,
                versions=document["versions"],
                excluded=document["excluded"],
                warnings=tuple(document["warnings"]),
                manifest=document["manifest"],
                environment=document["environment"],
                id_key_check=document["id_key_check"],
            ),
        )


def content_id_of(settings: Mapping[str, Any], rows: Iterable[CatalogRow], versions: Mapping[str, str]) -> str:
    """What two builds must share to write the same shards: SHA-256 over canonical JSON, as 64 hexadecimal digits.

    Args:
        settings: `Manifest.content`.
        rows: All slides; of each count id, cohort, patient, stamp and overrides, never where it lies.
        versions: Of the packages that touch pixels.
    """
    slides = [
        {name: getattr(row, name) for name in _CONTENT_FIELDS} for row in sorted(rows, key=lambda row: row.slide_id)
    ]
    document = {
        "format_version": CATALOG_FORMAT,
        "settings": dict(settings),
        "slides": slides,
        "versions": dict(versions),
    }
    return hashlib.sha256(_canonical(document)).hexdigest()


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as Parquet with everything fixed that a writer may choose."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", compression_level=3, version="2.6", row_group_size=65_536)
    return sink.getvalue()


_CONTENT_FIELDS = (
    *("slide_id", "cohort", "patient_id", "stamp"),
    *("mpp_override", "cohort_mpp", "mpp_if_missing", "allow_non_he"),
)


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _cell(row: CatalogRow, name: str) -> object:
    if name == "problem_reason":
        return row.problem[0] if row.problem else None
    if name == "problem":
        return row.problem[1] if row.problem else None
    return getattr(row, name)


def _rows(table: pa.Table, extra: list[str]) -> Iterator[CatalogRow]:
    """The rows of a table; by columns, since a dict for each of 50,000 takes a second."""
    names = (*_PLAIN_FIELDS, "problem_reason", "problem", *extra)
    for values in zip(*(table.column(name).to_pylist() for name in names), strict=True):
        known = dict(zip(_PLAIN_FIELDS, values, strict=False))
        reason, sentence, *more = values[len(_PLAIN_FIELDS) :]
        if known["patient_source"] not in _PATIENT_SOURCES or (reason is not None and reason not in REASONS):
            raise DatasetError(
                f"The catalog's row of slide {known['slide_id']} holds values that this version does not know."
            )
        yield CatalogRow(
            **known,
            problem=None if reason is None else (reason, sentence),
            extra={name: value for name, value in zip(extra, more, strict=True) if value is not None},
        )


_PLAIN_FIELDS = tuple(item.name for item in fields(CatalogRow) if item.name not in ("problem", "extra"))
_PATIENT_SOURCES = frozenset(get_args(PatientSource))
