"""The index: one row group per shard, and a checksum of its values that no Parquet writer can change."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exaone_prep.shards.index import FORMAT_VERSION, SCHEMA, index_parquet, read_shard_tables, values_sha256


def table(rows: int, shard: str = "shard-000000-000.tar", first: int = 0) -> pa.Table:
    """An index of one shard, no two values alike as far as the types allow."""
    columns: dict[str, Any] = {}
    for number, field in enumerate(SCHEMA):
        if pa.types.is_string(field.type):
            columns[field.name] = [f"{field.name} {first + row}" for row in range(rows)]
        elif pa.types.is_floating(field.type):
            columns[field.name] = [(first + row + 1) / (number + 2) for row in range(rows)]
        else:
            columns[field.name] = [(number + first + row) % 127 for row in range(rows)]
    columns["shard"] = [shard] * rows
    return pa.table(columns, schema=SCHEMA)


def test_the_columns_are_those_of_the_format() -> None:
    assert {field.name: str(field.type) for field in SCHEMA} == {
        "slide_id": "string",
        "cohort": "string",
        "patient_id": "string",
        "x": "int32",
        "y": "int32",
        "level": "int8",
        "read_size_px": "int32",
        "footprint_px": "double",
        "mpp": "double",
        "tissue_fraction": "double",
        "white_fraction": "float",
        "black_fraction": "float",
        "pen_fraction": "float",
        "sharpness": "float",
        "stain_status": "string",
        "shard": "string",
        "image_offset": "int64",
        "image_size": "int32",
        "json_offset": "int64",
        "json_size": "int32",
    }
    assert not any(field.nullable for field in SCHEMA)


def test_a_file_has_one_row_group_per_shard_in_their_order_and_its_format_version() -> None:
    shards = [table(5, "s0"), table(1, "s1", 5), table(3, "s2", 6)]
    data = index_parquet(shards)
    file = pq.ParquetFile(io.BytesIO(data))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [5, 1, 3]
    assert file.schema_arrow.metadata[b"exaone_prep.format_version"] == str(FORMAT_VERSION).encode()
    for written, read in zip(shards, read_shard_tables(data), strict=True):
        assert read.equals(written)
    assert pq.read_table(io.BytesIO(data)).equals(pa.concat_tables(shards))


def test_a_group_without_samples_has_an_empty_index() -> None:
    data = index_parquet([])
    assert pq.read_table(io.BytesIO(data)).schema.equals(SCHEMA)
    assert sum(part.num_rows for part in read_shard_tables(data)) == 0
    assert values_sha256([]) == values_sha256([SCHEMA.empty_table()])
    assert values_sha256([]) != values_sha256([table(1)])


def test_equal_tables_give_equal_bytes() -> None:
    shards = [table(50, "s0"), table(49, "s1", 50)]
    assert index_parquet(shards) == index_parquet([pa.table(shard.to_pydict(), schema=SCHEMA) for shard in shards])


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd"])
@pytest.mark.parametrize("row_group_size", [1, 3, 100])
def test_the_checksum_of_the_values_is_no_matter_of_the_file(compression: str, row_group_size: int) -> None:
    shards = [table(5, "s0"), table(8, "s1", 5)]
    sink = io.BytesIO()
    pq.write_table(
        pa.concat_tables(shards),
        sink,
        compression=compression,
        row_group_size=row_group_size,
        use_dictionary=row_group_size == 3,
        version="1.0" if compression == "gzip" else "2.6",
        data_page_version="2.0" if compression == "zstd" else "1.0",
    )
    read = read_shard_tables(sink.getvalue())
    assert len(read) != len(shards)
    assert values_sha256(read) == values_sha256(shards) == values_sha256(read_shard_tables(index_parquet(shards)))


@given(st.sampled_from(SCHEMA.names), st.integers(0, 8))
def test_the_checksum_changes_with_any_value(name: str, row: int) -> None:
    shards = [table(5, "s0"), table(4, "s1", 5)]
    whole = pa.concat_tables(shards)
    values = whole.column(name).to_pylist()
    if pa.types.is_string(SCHEMA.field(name).type):
        values[row] += "a"
    elif pa.types.is_floating(SCHEMA.field(name).type):
        kind = np.float64 if SCHEMA.field(name).type == pa.float64() else np.float32
        values[row] = np.nextafter(kind(values[row]), kind(1000))
    else:
        values[row] += 1
    column = pa.array(values, type=SCHEMA.field(name).type)
    changed = whole.set_column(SCHEMA.names.index(name), SCHEMA.field(name), column)
    assert values_sha256([changed]) != values_sha256(shards)


def test_the_checksum_changes_with_the_order_of_rows() -> None:
    whole = table(6)
    assert values_sha256([whole.take([1, 0, 2, 3, 4, 5])]) != values_sha256([whole])


def test_text_that_moves_from_one_row_to_the_next_changes_the_checksum() -> None:
    def with_cohorts(first: str, second: str) -> pa.Table:
        whole = table(2)
        return whole.set_column(1, SCHEMA.field("cohort"), pa.array([first, second], pa.string()))

    assert values_sha256([with_cohorts("ab", "c")]) != values_sha256([with_cohorts("a", "bc")])
