"""What is committed of a data set, as tables: one row per slide of the catalog, one row per shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import pyarrow as pa
import pyarrow.compute as pc

from exaone_prep.catalog import Catalog
from exaone_prep.ledger import GroupRecord
from exaone_prep.survey_table import SCHEMA as SURVEY

COLUMNS: Final = [name for name in SURVEY.names if name not in ("properties", "icc_sha256", "fit_method")]
"""Of the survey that are kept in memory; the others are read for the page of a slide."""
WAITING: Final = "waiting"
"""Outcome of a slide whose group is not committed."""

_CATALOG: Final = pa.schema(
    [
        ("slide_id", pa.string()),
        ("cohort", pa.string()),
        ("patient_id", pa.string()),
        ("split", pa.string()),
        ("group", pa.int32()),
        ("size_bytes", pa.int64()),
        ("duplicate_of", pa.string()),
    ]
)
_ASIDE: Final = ("outcome", "reason", "sentence")
SHARDS: Final = pa.schema(
    [
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("group", pa.int32()),
        ("shard", pa.string()),
        ("samples", pa.int64()),
        ("bytes", pa.int64()),
        ("slides", pa.int64()),
        ("sha256", pa.string()),
    ]
)
"""Of `Committed.shards`; `slides` are those of its group that have samples."""


def catalog_table(catalog: Catalog) -> pa.Table:
    """The catalog as a table, with what its slides end as that have no row in a survey."""
    rows = catalog.rows
    columns = {field.name: pa.array([getattr(row, field.name) for row in rows], field.type) for field in _CATALOG}
    # These are set aside before their group's turn.
    aside = [row.problem if row.duplicate_of is not None else None for row in rows]
    words = (
        ["quarantined" if problem else WAITING for problem in aside],
        [problem[0] if problem else None for problem in aside],
        [problem[1] if problem else None for problem in aside],
    )
    told = {f"aside_{name}": pa.array(some, pa.string()) for name, some in zip(_ASIDE, words, strict=True)}
    return pa.table({**columns, **told})


@dataclass(frozen=True, kw_only=True)
class Committed:
    """Tables that change only when a group is committed.

    Attributes:
        key: Of the data set in addresses; the column `dataset` of both tables.
        records: Of the ledger, by group.
        slides: One row per slide of the catalog, in its order: columns of the catalog and `COLUMNS`; `outcome` is
            `waiting` where there is none yet.
    """

    key: str
    records: tuple[GroupRecord, ...]
    slides: pa.Table

    @classmethod
    def of(cls, catalog: pa.Table, records: Sequence[GroupRecord], surveys: Sequence[pa.Table], *, key: str) -> Self:
        """Join the catalog (`catalog_table`) with the surveys of the committed groups."""
        columns = {name: catalog.column(name).combine_chunks() for name in _CATALOG.names}
        schema = pa.schema([SURVEY.field(name) for name in COLUMNS])
        survey = pa.concat_tables([schema.empty_table(), *surveys], promote_options="default").combine_chunks()
        place = pc.index_in(columns["slide_id"], value_set=survey.column("slide_id"))
        found = survey.take(place)
        columns |= {name: found.column(name) for name in COLUMNS if name not in _CATALOG.names}
        for name in _ASIDE:
            columns[name] = pc.if_else(pc.is_valid(place), columns[name], catalog.column(f"aside_{name}"))
        whole = pa.table({"dataset": pa.repeat(key, catalog.num_rows), **columns}).combine_chunks()
        return cls(key=key, records=tuple(records), slides=whole)

    @cached_property
    def shards(self) -> pa.Table:
        """One row per committed shard, by split and name; columns `SHARDS`."""
        counts = [(record, len(record.shards), record.outcomes.get("done", 0)) for record in self.records]
        some = [shard for record in self.records for shard in record.shards]
        columns = {
            "dataset": [self.key] * len(some),
            "split": [record.split for record, count, _ in counts for _ in range(count)],
            "group": [record.group for record, count, _ in counts for _ in range(count)],
            "shard": [shard.name for shard in some],
            "samples": [shard.samples for shard in some],
            "bytes": [shard.bytes for shard in some],
            "slides": [slides for _, count, slides in counts for _ in range(count)],
            "sha256": [shard.sha256 for shard in some],
        }
        return pa.table(columns, schema=SHARDS)

    @cached_property
    def shard_groups(self) -> dict[tuple[str, str], GroupRecord]:
        """The record of each shard's group, by split and name of the shard."""
        return {(record.split, shard.name): record for record in self.records for shard in record.shards}

    @cached_property
    def record_of(self) -> dict[int, GroupRecord]:
        """The record of each committed group."""
        return {record.group: record for record in self.records}

    @cached_property
    def number_of(self) -> dict[str, int]:
        """The row of each slide in `slides`, by its id."""
        return {slide: number for number, slide in enumerate(self.slides.column("slide_id").to_pylist())}
