"""The key between hashed ids and clear names: kept in `private/`, read by nobody who needs no slide file."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import pyarrow as pa

from exaone_prep.catalog.catalog import Catalog, parquet_bytes
from exaone_prep.errors import DatasetError
from exaone_prep.parquet import read_parquet

_SCHEMA: pa.Schema = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("slide_id", "clear_id", "uri", "patient")]
)


@dataclass(frozen=True, kw_only=True)
class PrivateRow:
    """What a hashed slide is called, where it lies, and whose it is."""

    slide_id: str
    """Hashed."""
    clear_id: str
    uri: str
    patient: str


@dataclass(frozen=True, kw_only=True)
class PrivateTable:
    """All slides of a data set with hashed ids, sorted by hashed id."""

    rows: tuple[PrivateRow, ...]

    def to_parquet(self) -> bytes:
        """The table as a Parquet file; equal tables give equal bytes."""
        return parquet_bytes(pa.Table.from_pylist([asdict(row) for row in self.rows], schema=_SCHEMA))

    @classmethod
    def from_parquet(cls, content: bytes) -> PrivateTable:
        """Read what `to_parquet` wrote.

        Raises:
            DatasetError: It is something else.
        """
        try:
            table = read_parquet(content, _SCHEMA.names)
        except (pa.ArrowException, OSError) as error:
            raise DatasetError("The private table is damaged; restore it, or the slides cannot be found.") from error
        return cls(rows=tuple(PrivateRow(**values) for values in table.to_pylist()))


def locations(catalog: Catalog, private: PrivateTable | None) -> dict[str, str]:
    """Where each slide lies, by its id.

    Raises:
        DatasetError: Ids are hashed and the private table is missing or of another data set.
    """
    hidden = {row.slide_id: row.uri for row in private.rows} if private else {}
    result = {}
    for row in catalog.rows:
        uri = row.uri if row.uri is not None else hidden.get(row.slide_id)
        if uri is None:
            raise DatasetError(f"Where slide {row.slide_id} lies stands in private/ only, and there it is missing.")
        result[row.slide_id] = uri
    return result
