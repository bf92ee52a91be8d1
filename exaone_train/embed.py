"""Features of the samples of data sets, as a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from exaone_train.decode import Decoder
from exaone_train.encoder import Encoder
from exaone_train.errors import ShardError
from exaone_train.reader import Sample, ShardReader, read_index
from exaone_train.shardset import ShardSet

READ_AT_ONCE: Final = 512
_INDEXED: Final = ("slide_id", "patient_id", "cohort", "x", "y")
_NAMES: Final = {"cohort": "centre"}
"""Slides of one source: what `exaone-train collapse` asks for."""

Rows = list[dict[str, Any]]


def embed(
    shards: ShardSet,
    encoder: Encoder,
    out: Path,
    *,
    per_slide: int | None = None,
    batch_size: int = 64,
    threads: int = 4,
    on_damage: Literal["fail", "skip"] = "fail",
) -> int:
    """Write a Parquet table with `key`, `slide_id`, `patient_id`, `centre` (the cohort), `x`, `y` and `feature`.

    Args:
        shards: In whose order they are.
        encoder: Gives the features, float32 (dim,), a list of fixed size.
        out: The file; it appears whole or not at all. Its metadata hold the encoder's description.
        per_slide: The first samples of each slide that are taken; shards are mixed, so these are a random choice.
        batch_size: Images that go through the encoder at a time.
        threads: That decode.
        on_damage: Whether a damaged sample is an error or left out.

    Returns:
        How many rows.

    Raises:
        ShardError: There are no samples, or one is damaged.
    """
    if not shards.shards:
        raise ShardError(f"There are no shards of the split {shards.split!r} in {', '.join(shards.places)}.")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.part")
    rows = 0
    writer: pq.ParquetWriter | None = None
    try:
        for table in _tables(shards, encoder, per_slide, batch_size, threads, on_damage):
            if writer is None:
                writer = pq.ParquetWriter(partial, table.schema)
            writer.write_table(table)
            rows += table.num_rows
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise ShardError(f"No sample of the split {shards.split!r} could be read.")
    partial.rename(out)
    return rows


def _tables(
    shards: ShardSet,
    encoder: Encoder,
    per_slide: int | None,
    batch_size: int,
    threads: int,
    on_damage: Literal["fail", "skip"],
) -> Iterator[pa.Table]:
    about = {"step": encoder.step, "encoder": encoder.name, "shards": encoder.provenance}
    metadata = {"exaone_train.encoder": json.dumps(about)}
    decoder = Decoder(on_damage)
    with ThreadPoolExecutor(threads) as pool:
        for samples, rows in _chosen(shards, per_slide):
            size_px = shards.patch_size_px
            pixels = np.empty((len(samples), size_px, size_px, 3), dtype=np.uint8)
            kept = np.flatnonzero(list(pool.map(decoder.is_whole, samples, pixels)))
            if not len(kept):
                continue
            parts = [encoder.embed(pixels[kept[at : at + batch_size]]) for at in range(0, len(kept), batch_size)]
            yield _table(np.concatenate(parts), [rows[place] for place in kept], metadata)


def _table(features: NDArray[np.float32], rows: Rows, metadata: dict[str, str]) -> pa.Table:
    dim = features.shape[1]
    lists = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel(), pa.float32()), dim)
    columns = {
        _NAMES.get(name, name): pa.array([row[name] for row in rows], pa.int32() if name in ("x", "y") else pa.string())
        for name in ("key", *_INDEXED)
    }
    return pa.table({**columns, "feature": lists}).replace_schema_metadata(metadata)


def _chosen(shards: ShardSet, per_slide: int | None) -> Iterator[tuple[list[Sample], Rows]]:
    reader, taken = ShardReader(shards, indexes=1), Counter[str]()
    for number, shard in enumerate(shards.shards):
        about = read_index(shard, _INDEXED).to_pylist()
        wanted = []
        for row, one in enumerate(about):
            taken[one["slide_id"]] += 1
            if per_slide is None or taken[one["slide_id"]] <= per_slide:
                wanted.append(row)
        for at in range(0, len(wanted), READ_AT_ONCE):
            some = np.array(wanted[at : at + READ_AT_ONCE], dtype=np.int64)
            samples = reader.read(np.full(len(some), number), some)
            yield samples, [{**about[row], "key": sample.key} for row, sample in zip(some, samples, strict=True)]
