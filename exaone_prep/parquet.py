"""Parquet from bytes, without Arrow's threads.

A process that ends while Arrow's idle threads are still starting is aborted by their destructor ("terminate called
without an active exception", exit code -6): 62 of 400 short processes that had used `pyarrow.parquet.read_table`. The
tables here are small, and parallelism comes from the workers.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


def open_parquet(data: bytes) -> pq.ParquetFile:
    """A Parquet file in memory, that reads ahead in no thread."""
    return pq.ParquetFile(io.BytesIO(data), pre_buffer=False)


def read_parquet(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """A table, or some columns of it, from the bytes of a Parquet file."""
    return open_parquet(data).read(columns=None if columns is None else list(columns), use_threads=False)
