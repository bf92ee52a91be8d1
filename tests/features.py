"""Features that were made to a plan, so that the measures of collapse have known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from exaone_train.collapse.table import FeatureTable

DIMENSIONS = 32


def around(centres: NDArray[np.int64], seed: int = 0, spread: float = 1e-3) -> NDArray[np.float32]:
    """Features close to one of several right-angled directions, by number: n×32."""
    random = np.random.default_rng(seed)
    features = np.eye(DIMENSIONS)[centres] + spread * random.standard_normal((len(centres), DIMENSIONS))
    return features.astype(np.float32)


def table(
    features: NDArray[np.float32],
    slide: NDArray[np.int64],
    *,
    centre: NDArray[np.int64] | None = None,
    label: NDArray[np.int64] | None = None,
    scanner: NDArray[np.int64] | None = None,
    patient: NDArray[np.int64] | None = None,
    place: NDArray[np.float64] | None = None,
    name: str = "encoder",
) -> FeatureTable:
    """A table of numbers as names."""

    def named(kind: str, numbers: NDArray[np.int64] | None) -> NDArray[np.str_] | None:
        return None if numbers is None else np.array([f"{kind}{number:03}" for number in numbers])

    slide_id = named("slide", slide)
    assert slide_id is not None
    return FeatureTable(
        name=name,
        features=features,
        slide_id=slide_id,
        centre=named("lab", centre),
        scanner=named("scanner", scanner),
        label=named("tissue", label),
        patient_id=named("patient", patient),
        place=place,
    )


def random_table(
    seed: int = 0, patches: int = 240, slides: int = 12, labels: int = 3, centres: int = 4, name: str = "encoder"
) -> FeatureTable:
    """Features without structure beyond a little of each kind; each slide has one centre and several labels."""
    random = np.random.default_rng(seed)
    slide = random.integers(0, slides, patches)
    centre = slide % centres
    label = random.integers(0, labels, patches)
    features = random.standard_normal((patches, DIMENSIONS)).astype(np.float32)
    for kind, strength in ((slide, 0.6), (centre + 100, 0.8), (label + 200, 1.0)):
        directions = np.random.default_rng(seed + 1).standard_normal((400, DIMENSIONS))
        features += strength * directions[kind].astype(np.float32)
    return table(features, slide, centre=centre, label=label, scanner=centre // 2, name=name)


def write_table(path: Path, written: FeatureTable, dtype: pa.DataType | None = None, **more: list[object]) -> Path:
    """Write a table as Parquet, as `exaone-train embed` does."""
    kind = dtype or pa.float32()
    flat = written.features.astype(np.float16 if kind == pa.float16() else np.float32).reshape(-1)
    columns: dict[str, object] = {
        "slide_id": written.slide_id.tolist(),
        "feature": pa.FixedSizeListArray.from_arrays(pa.array(flat, type=kind), written.features.shape[1]),
    }
    for column in ("centre", "scanner", "label", "patient_id"):
        if (values := getattr(written, column)) is not None:
            columns[column] = values.tolist()
    if written.place is not None:
        columns["x"], columns["y"] = written.place.T.tolist()
    pq.write_table(pa.table({**columns, **more}), path)
    return path
