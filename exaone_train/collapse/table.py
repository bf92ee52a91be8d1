"""Features of patches with what is known of each: its slide, and perhaps centre, scanner, tissue, patient and place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from exaone_train.errors import FeatureError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Names = NDArray[np.str_]

TEXT_COLUMNS = ("slide_id", "centre", "scanner", "label", "patient_id", "key")
FLOATS = (pa.float16(), pa.float32())


@dataclass(frozen=True, kw_only=True)
class FeatureTable:
    """Features of one encoder, a row per patch.

    Attributes:
        name: Of the encoder.
        features: n×d.
        slide_id: n.
        centre: n; the laboratory a slide comes from, or None.
        scanner: n, or None.
        label: n; the biological class, or None.
        patient_id: n, or None.
        key: n; the name of a sample in its shard, or None.
        place: n×2, x and y of the patch on its slide in level-0 px, or None.
        images: n encoded pictures, or None.
    """

    name: str
    features: Floats
    slide_id: Names
    centre: Names | None = None
    scanner: Names | None = None
    label: Names | None = None
    patient_id: Names | None = None
    key: Names | None = None
    place: NDArray[np.float64] | None = None
    images: tuple[bytes, ...] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, chosen: Ints) -> FeatureTable:
        """Some rows of it, in the order given."""
        changes: dict[str, object] = {"features": self.features[chosen]}
        for field in (*TEXT_COLUMNS, "place"):
            values = getattr(self, field)
            changes[field] = None if values is None else values[chosen]
        if self.images is not None:
            changes["images"] = tuple(self.images[row] for row in chosen)
        return replace(self, **changes)  # type: ignore[arg-type]


def subsample(table: FeatureTable, patches: int | None, seed: int) -> FeatureTable:
    """At most so many patches, in their order; the same ones for the same number of rows and seed.

    Tables of several encoders with the same rows therefore keep the same patches.
    """
    if patches is None or len(table) <= patches:
        return table
    chosen = np.random.default_rng(seed).choice(len(table), patches, replace=False)
    return table.rows(np.sort(chosen).astype(np.int64))


def read_features(path: str | Path, name: str | None = None) -> FeatureTable:
    """Read a table of features.

    Args:
        path: Parquet with `slide_id` (string) and `feature` (fixed-size list of float32 or float16), and perhaps
            `centre`, `scanner`, `label`, `patient_id`, `key` (strings), `x` and `y` (numbers), `image` (binary).
        name: Of the encoder; the file's name without ending if None.

    Raises:
        FeatureError: It is not there, not Parquet, lacks a column, or holds what cannot be compared by angle.
    """
    place = Path(path)
    if not place.is_file():
        raise FeatureError(f"There is no table of features at {place}.")
    try:
        written = pq.ParquetFile(place, pre_buffer=False)
        known = set(written.schema_arrow.names)
        wanted = [column for column in (*TEXT_COLUMNS, "feature", "x", "y", "image") if column in known]
        table = written.read(columns=wanted, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise FeatureError(f"{place} cannot be read as Parquet: {' '.join(str(error).split())}.") from error
    missing = [column for column in ("slide_id", "feature") if column not in known]
    if missing:
        raise FeatureError(f"{place} has no column {' and no column '.join(f'`{column}`' for column in missing)}.")
    if table.num_rows == 0:
        raise FeatureError(f"{place} has no rows.")
    texts = {column: _texts(table, column, place) for column in TEXT_COLUMNS if column in known}
    return FeatureTable(
        name=name or place.stem,
        features=_features(table.column("feature"), place),
        place=_places(table, place) if {"x", "y"} <= known else None,
        images=tuple(table.column("image").to_pylist()) if "image" in known else None,
        **texts,
    )


def _features(column: pa.ChunkedArray, place: Path) -> Floats:
    if not pa.types.is_fixed_size_list(column.type) or column.type.value_type not in FLOATS:
        raise FeatureError(
            f"The column `feature` of {place} is {column.type}, not a fixed-size list of float32 or float16."
        )
    if column.null_count:
        raise FeatureError(f"{column.null_count:,} features of {place} are null.")
    chunks = [np.asarray(chunk.flatten(), dtype=np.float32) for chunk in column.chunks]
    features: Floats = np.concatenate(chunks).reshape(-1, column.type.list_size)
    if not np.isfinite(features).all():
        raise FeatureError(f"{place} holds features that are not finite.")
    nought = int((features == 0).all(axis=1).sum())
    if nought:
        raise FeatureError(f"{nought:,} features of {place} are zero and have no direction.")
    return features


def _texts(table: pa.Table, column: str, place: Path) -> Names:
    values = table.column(column)
    if values.null_count:
        raise FeatureError(f"The column `{column}` of {place} has {values.null_count:,} empty cells.")
    return np.asarray(values.cast(pa.string()).to_pylist(), dtype=np.str_)


def _places(table: pa.Table, place: Path) -> NDArray[np.float64]:
    for column in ("x", "y"):
        if table.column(column).null_count:
            raise FeatureError(f"The column `{column}` of {place} has empty cells.")
    return np.stack([np.asarray(table.column(column), dtype=np.float64) for column in ("x", "y")], axis=1)
