"""The spool: encoded patches of one slide on local disk, until the shards of its group are packed."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

_ADDED: Final = [
    ("sample", "<i4"),
    ("white", "<f4"),
    ("black", "<f4"),
    ("pen", "<f4"),
    ("sharpness", "<f4"),
    ("status", "<i1"),
    ("offset", "<i8"),
    ("size", "<i4"),
]
SPOOL_COLUMNS: Final = np.dtype([*_ADDED, ("x", "<i8"), ("y", "<i8"), ("fraction", "<f8")])
"""One record per kept sample; `sample` counts the planned patches of the slide, `x` and `y` are level-0 pixels."""


class Spool:
    """Bytes one after the other, and beside them (`.npy`) a table of what they are."""

    def __init__(self, path: Path, level0: NDArray[np.int64], fractions: NDArray[np.float64]) -> None:
        """Begin a new, empty spool.

        Args:
            path: The file, which must not exist.
            level0: int64 (N, 2), x and y of the planned patches in level-0 pixels.
            fractions: float64 (N,), the share of tissue in each.
        """
        self._path = path
        self._level0, self._fractions = level0, fractions
        self._stream = path.open("xb", buffering=1 << 20)
        self._records: list[tuple[float, ...]] = []
        self._offset = 0

    def add(self, data: bytes, values: tuple[float, ...]) -> None:
        """Append an encoded patch with its number in the plan, quality measures, and stain status."""
        size = len(data)
        self._stream.write(data)
        self._records.append((*values, self._offset, size))
        self._offset += size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if kind is None:
            np.save(_table_of(self._path), self._table())

    def _table(self) -> NDArray[np.void]:
        table = np.empty(len(self._records), dtype=SPOOL_COLUMNS)
        added = np.array(self._records, dtype=_ADDED)
        for name, _ in _ADDED:
            table[name] = added[name]
        numbers = table["sample"]
        table["x"], table["y"] = self._level0[numbers, 0], self._level0[numbers, 1]
        table["fraction"] = self._fractions[numbers]
        return table


class SpoolReader:
    """Reads samples of a slide by the number they have in its plan."""

    def __init__(self, path: Path, planned: int) -> None:
        self.records: NDArray[np.void] = np.load(_table_of(path))
        self._file = os.open(path, os.O_RDONLY)
        self._row = np.full(planned, -1, dtype=np.int64)
        self._row[self.records["sample"]] = np.arange(len(self.records))

    def rows(self, samples: NDArray[np.int32]) -> NDArray[np.int64]:
        """Where in `records` planned samples are, −1 for those that were dropped."""
        return self._row[samples]

    def read(self, offset: int, size: int) -> bytes:
        """An encoded patch, by what its record says."""
        return os.pread(self._file, size, offset)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)


def _table_of(path: Path) -> Path:
    return path.with_suffix(".npy")
