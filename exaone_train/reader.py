"""Encoded samples out of shards: neighbours by one ranged read, checked against the index."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from numpy.typing import NDArray

from exaone_train.errors import ShardError
from exaone_train.memory import Memory
from exaone_train.shardset import Shard, ShardSet
from exaone_train.store import patiently, read_into

_HEADER_BYTES: Final = 512
_INDEX_BLOCK_BYTES: Final = 1 << 20
_COLUMNS: Final = ["x", "y", "image_offset", "image_size"]
_SUFFIXES: Final = {"jpeg": ".jpg", "png": ".png"}


class Sample(NamedTuple):
    """An encoded sample.

    Attributes:
        tar: Path or URL of its shard.
        key: `<slide_id>-<x>-<y>`.
        slide_id: Of the slide.
        image: As it is in the shard.
        damage: A sentence, if it is not there.
    """

    tar: str
    key: str
    slide_id: str
    image: memoryview
    damage: str


class ShardReader:
    """Reads samples by shard and row; several threads may use it."""

    def __init__(self, shards: ShardSet, *, indexes: int) -> None:
        """Keep the indexes of so many shards at hand, 24 bytes per sample each."""
        self._shards, self._suffix, self._memory = shards.shards, _SUFFIXES[shards.image_format], Memory()
        self._index = lru_cache(maxsize=indexes)(lambda shard: read_index(shard, ["slide_id", *_COLUMNS]))

    def read(self, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> list[Sample]:
        """Samples in the order that they are asked for; damaged ones say so.

        Raises:
            ShardError: A store or an index cannot be read: no damage that is passed over.
        """
        order = np.lexsort((rows, shards))
        apart = np.flatnonzero((np.diff(shards[order]) != 0) | (np.diff(rows[order]) != 1)) + 1
        runs = [self._run(self._shards[shards[run[0]]], int(rows[run[0]]), len(run)) for run in np.split(order, apart)]
        found = list(itertools.chain(*runs))
        return [found[place] for place in np.argsort(order).tolist()]

    def _run(self, shard: Shard, first: int, count: int) -> list[Sample]:
        index = self._index(shard).slice(first, count)
        slides = index["slide_id"].combine_chunks().dictionary_decode().to_pylist()
        xs, ys, offsets, sizes = (index[name].to_numpy().tolist() for name in _COLUMNS)
        start, missing = offsets[0] - _HEADER_BYTES, ""
        data = self._memory.take(offsets[-1] + sizes[-1] - start).data
        try:
            data = data[: read_into(data, shard.tar, start)]
        except FileNotFoundError:
            data, missing = data[:0], f"The shard {shard.tar} is missing."
        keys = [f"{slide}-{x}-{y}" for slide, x, y in zip(slides, xs, ys, strict=True)]
        images = [data[at - start : at - start + size] for at, size in zip(offsets, sizes, strict=True)]

        def is_there(number: int) -> bool:
            header = bytes(data[offsets[number] - start - _HEADER_BYTES : offsets[number] - start])
            named = header.startswith(f"{keys[number]}{self._suffix}\0".encode()) and header[257:262] == b"ustar"
            return named and len(images[number]) == sizes[number]

        damages = [missing] * count
        if not missing and not (is_there(0) and is_there(count - 1)):  # then those between them are
            sentence = f"The shard {shard.tar} is no tar, cut off, or another one"
            damages = ["" if is_there(at) else f"{sentence}: {key} is not in its place." for at, key in enumerate(keys)]
        return list(map(Sample, [shard.tar] * count, keys, slides, images, damages))


def read_index(shard: Shard, columns: Sequence[str]) -> pa.Table:
    """Columns of a shard's part of the index; text that repeats as dictionaries.

    Raises:
        ShardError: There is none, or it is of another shard.
    """

    def ask() -> pa.Table:
        files, path = url_to_fs(shard.index)
        # Without Arrow's threads: idle ones abort short processes at their end.
        with files.open(path, "rb", block_size=_INDEX_BLOCK_BYTES) as file:
            parquet = pq.ParquetFile(file, read_dictionary=["slide_id", "shard"], pre_buffer=False)
            table = parquet.read_row_group(shard.row_group, ["shard", *columns], use_threads=False)
        if not all(map(shard.tar.endswith, table["shard"].unique().to_pylist())) or len(table) != shard.samples:
            raise ShardError(f"The index {shard.index} does not fit the shard {shard.tar}.")
        return table.drop_columns("shard")

    try:
        return patiently(shard.index, ask)
    except FileNotFoundError:
        raise ShardError(f"The index {shard.index} is missing.") from None
