"""The ledger: one commit record per group. A group counts as built when, and only when, its record exists."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import BaseModel, ConfigDict

from exaone_prep import layout
from exaone_prep.errors import DatasetError
from exaone_prep.storage import Storage, read_all


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class FileRecord(_Record):
    """A committed file."""

    bytes: int
    sha256: str


class ShardEntry(FileRecord):
    """A committed shard."""

    name: str
    samples: int


class IndexEntry(FileRecord):
    """A committed index; `values_sha256` does not depend on the Parquet writer."""

    rows: int
    values_sha256: str


class Sums(_Record):
    """Integer sums per channel over the pixels of all kept patches."""

    pixels: int
    sums: tuple[int, int, int]
    squares: tuple[int, int, int]


class GroupRecord(_Record):
    """The commit record of a group: everything but `built` follows from the content alone."""

    format_version: int = layout.FORMAT_VERSION
    content_id: str
    group: int
    split: str
    shards: tuple[ShardEntry, ...]
    index: IndexEntry
    survey: FileRecord
    slides: FileRecord
    outcomes: dict[str, int]
    planned: int
    samples: int
    dropped: dict[str, int]
    stain_statuses: dict[str, int]
    channels: Sums
    built: dict[str, Any]

    @property
    def shard_bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)

    def same_content(self, other: GroupRecord) -> bool:
        """Whether two builders made the same group."""
        return self.model_dump(exclude={"built"}) == other.model_dump(exclude={"built"})


def committed_groups(storage: Storage) -> list[int]:
    """Numbers of the groups that have a commit record."""
    return [layout.group_of(name) for name in storage.names(layout.LEDGER) if name.endswith(".json")]


def read_record(storage: Storage, group: int) -> GroupRecord:
    """The commit record of a group.

    Raises:
        DatasetError: It is not one of ours, or of a later format.
    """
    path = layout.ledger(group)
    return parsed(storage, path, storage.read(path))


def read_ledger(storage: Storage) -> list[GroupRecord]:
    """All commit records, by group."""
    paths = [layout.ledger(group) for group in committed_groups(storage)]
    return [parsed(storage, path, data) for path, data in zip(paths, read_all(storage, paths), strict=True)]


def parsed(storage: Storage, path: str, data: bytes) -> GroupRecord:
    """The commit record in the bytes of a file.

    Raises:
        DatasetError: It is not one of ours, or of a later format.
    """
    try:
        record = GroupRecord.model_validate_json(data)
    except ValueError as error:
        raise DatasetError(f"{storage.url}/{path} is not a commit record: {str(error).splitlines()[0]}.") from error
    check_format(record.format_version, f"{storage.url}/{path}")
    return record


def check_format(version: int, where: str) -> None:
    """Refuse what a later version of this software wrote."""
    if not layout.FORMAT_VERSION - 1 <= version <= layout.FORMAT_VERSION:
        raise DatasetError(
            f"{where} has format version {version}; this software reads {layout.FORMAT_VERSION} and the one before."
        )


def shards_digest(records: list[GroupRecord]) -> str:
    """The digest of a data set: SHA-256 over the sorted lines `<split>/<shard> <bytes> <sha256>`."""
    return _lines_digest(
        f"{record.split}/{shard.name} {shard.bytes} {shard.sha256}" for record in records for shard in record.shards
    )


def index_digest(records: list[GroupRecord]) -> str:
    """SHA-256 over the sorted lines `<split>/group-<number> <rows> <sha256 of the values>`."""
    return _lines_digest(
        f"{record.split}/group-{record.group:06d} {record.index.rows} {record.index.values_sha256}"
        for record in records
    )


def _lines_digest(lines: Any) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode()).hexdigest()
