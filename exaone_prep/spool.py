"""The spool: encoded patches of one slide on local disk, until the shards of its group are packed."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

SPOOL_COLUMNS: Final = np.dtype(
    [
        ("sample", "<i4"),
        ("white", "<f4"),
        ("black", "<f4"),
        ("pen", "<f4"),
        ("sharpness", "<f4"),
        ("status", "<i1"),
        ("offset", "<i8"),
        ("size", "<i4"),
    ]
)
"""One record per kept sample; `sample` counts the planned patches of the slide."""


class Spool:
    """Bytes one after the other, and beside them (`.npy`) a table of what they are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = path.open("xb", buffering=1 << 20)
        self._records: list[tuple[float, ...]] = []
        self._offset = 0

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new, empty spool."""
        return cls(path)

    def add(self, data: bytes, values: tuple[float, ...]) -> None:
        """Append an encoded patch with the values of its record, offset and size excepted."""
        self._stream.write(data)
        self._records.append((*values, self._offset, len(data)))
        self._offset += len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if kind is None:
            np.save(_table_of(self._path), np.array(self._records, dtype=SPOOL_COLUMNS))


class SpoolReader:
    """Reads samples of a slide by the number they have in its plan."""

    def __init__(self, path: Path, planned: int) -> None:
        self.records: NDArray[np.void] = np.load(_table_of(path))
        self._file = os.open(path, os.O_RDONLY)
        self._row = np.full(planned, -1, dtype=np.int64)
        self._row[self.records["sample"]] = np.arange(len(self.records))

    def find(self, sample: int) -> np.void | None:
        """The record of a planned sample, None if it was dropped."""
        row = self._row[sample]
        return None if row < 0 else self.records[row]

    def read(self, record: np.void) -> bytes:
        """The encoded patch."""
        return os.pread(self._file, int(record["size"]), int(record["offset"]))

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)


def _table_of(path: Path) -> Path:
    return path.with_suffix(".npy")
