"""What a data set directory holds, read without the code that wrote it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A sample by its row in the index.

    Attributes:
        row: Of the index.
        image: Bytes of the image, read at the offset that the index gives.
        json: Bytes of the JSON, likewise.
    """

    row: dict[str, Any]
    image: bytes
    json: bytes

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The image, decoded: uint8 (H, W, 3)."""
        with Image.open(io.BytesIO(self.image)) as image:
            assert image.mode == "RGB"
            return np.asarray(image)


def samples(root: Path) -> Iterator[Sample]:
    """All samples of a data set, in the order of the index."""
    for file in sorted((root / "index").rglob("*.parquet")):
        for row in pq.ParquetFile(file).read().to_pylist():
            with (root / "shards" / file.parent.name / row["shard"]).open("rb") as shard:
                image = _at(shard, row["image_offset"], row["image_size"])
                text = _at(shard, row["json_offset"], row["json_size"])
            yield Sample(row=row, image=image, json=text)


def _at(stream: Any, offset: int, size: int) -> bytes:
    stream.seek(offset)
    data: bytes = stream.read(size)
    assert len(data) == size
    return data


def outcomes(root: Path) -> dict[str, dict[str, Any]]:
    """Rows of `outcomes.parquet` by slide; every slide of the catalog must have one."""
    rows = {row["slide_id"]: row for row in pq.ParquetFile(root / "outcomes.parquet").read().to_pylist()}
    catalog = pq.ParquetFile(root / "catalog.parquet").read(columns=["slide_id"]).column("slide_id").to_pylist()
    assert sorted(rows) == sorted(catalog)
    return rows


def results(root: Path) -> dict[str, str]:
    """Outcome of each slide, for a quarantined one its reason."""
    rows = outcomes(root)
    for row in rows.values():
        if row["outcome"] != "done":
            assert row["sentence"].endswith((".", "?")), row
    return {slide: row["reason"] or row["outcome"] for slide, row in rows.items()}


def build_json(root: Path) -> dict[str, Any]:
    """`build.json`."""
    document: dict[str, Any] = json.loads((root / "build.json").read_text())
    return document
