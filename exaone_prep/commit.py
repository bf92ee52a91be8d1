"""Commit the files of a group: each name appears whole, is checked, and the ledger entry comes last."""

from __future__ import annotations

from pathlib import Path

from exaone_prep import layout
from exaone_prep.checksum import sha256_of
from exaone_prep.dataset import Dataset
from exaone_prep.environment import describe, in_words
from exaone_prep.errors import StorageConflictError
from exaone_prep.ledger import FileRecord, GroupRecord, read_record
from exaone_prep.shards.pack import ShardRecord
from exaone_prep.storage import put_bytes


class Commit:
    """Puts the files of one group into a data set."""

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        self._dataset = dataset
        self._storage = dataset.storage
        self._folder = folder

    def put_shard(self, path: str, tar: Path) -> bool:
        """Make a packed shard appear under its name; the local file goes, its spool space is needed.

        Returns:
            Whether the name is new, so that nobody has read it back yet.
        """
        try:
            new = self._storage.put_new(path, tar)
        except StorageConflictError as error:
            raise self._conflict(error) from error
        tar.unlink()
        return new

    def check_shard(self, path: str, record: ShardRecord) -> None:
        """Read a shard back.

        Raises:
            StorageConflictError: What lies there is not what was packed.
        """
        if self._storage.size(path) != record.bytes or self._storage.sha256(path) != record.sha256:
            raise self._conflict(StorageConflictError(f"{path} in {self._storage.url} does not read back as packed"))

    def put(self, path: str, data: bytes) -> FileRecord:
        """Make a small file appear under its name."""
        file = self._folder / "commit.part"
        file.write_bytes(data)
        return self.put_file(path, file)

    def put_file(self, path: str, file: Path) -> FileRecord:
        """Make a local file appear under a name; the local one goes."""
        record = FileRecord(bytes=file.stat().st_size, sha256=sha256_of(file))
        try:
            self._storage.put_new(path, file)
        except StorageConflictError as error:
            raise self._conflict(error) from error
        finally:
            file.unlink()
        return record

    def close(self, record: GroupRecord) -> GroupRecord:
        """Create the ledger entry; where another builder was first with the same content, return that builder's."""
        data = record.model_dump_json(indent=1).encode()
        try:
            put_bytes(self._storage, layout.ledger(record.group), data, self._folder)
        except StorageConflictError as error:
            first = read_record(self._storage, record.group)
            if not record.same_content(first):
                raise self._conflict(error) from error
            return first
        return record

    def _conflict(self, error: StorageConflictError) -> StorageConflictError:
        ours = in_words(describe(self._dataset.versions))
        return StorageConflictError(
            f"{error}: the build stops rather than mix two results. "
            f"This environment: {ours}; the one that began this data set: {in_words(self._dataset.environment)}."
        )
