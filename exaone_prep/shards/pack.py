"""Pack one shard from the spools of its group, in the planned order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from exaone_prep.job import Tell
from exaone_prep.manifest import Codec
from exaone_prep.plan import load_places
from exaone_prep.shards.index import SCHEMA
from exaone_prep.shards.sample import EXTENSIONS, STAIN_STATUSES, SampleText, sample_key
from exaone_prep.shards.tar import TarWriter
from exaone_prep.slides import LevelChoice
from exaone_prep.spool import SPOOL_COLUMNS, SpoolReader

_STATUSES: Final = pa.array(STAIN_STATUSES)


@dataclass(frozen=True, kw_only=True)
class PackedSlide:
    """A slide of the group as packing needs it; `spool` is None where none of its samples are committed."""

    slide_id: str
    cohort: str
    patient_id: str
    planned: int
    choice: LevelChoice
    spool: Path | None


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """A packed shard."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PackJob:
    """Pack the planned samples at `places` of a group's plan.

    Attributes:
        slides: Of the group, in the plan's order.
        plan: File of the plan.
        places: First place and the one after the last.
        name: Of the shard.
        codec: Of the images.
        tar: File to write.
        index: File for the shard's part of the index (Arrow IPC).
    """

    slides: tuple[PackedSlide, ...]
    plan: Path
    places: tuple[int, int]
    name: str
    codec: Codec
    tar: Path
    index: Path

    def run(self, tell: Tell) -> ShardRecord:
        """Do it."""
        with ExitStack() as stack:
            spools: dict[int, SpoolReader] = {}
            slide, records = self._planned(stack, spools)
            with self.tar.open("xb", buffering=1 << 20) as stream:
                writer = TarWriter(stream)
                places = self._write(writer, slide, records, spools)
                sha256 = writer.close()
        table = self._table(slide, records, places)
        with pa.ipc.new_file(self.index, SCHEMA) as sink:
            sink.write_table(table)
        tell(table.num_rows)
        return ShardRecord(name=self.name, samples=table.num_rows, bytes=writer.size_bytes, sha256=sha256)

    def _planned(self, stack: ExitStack, spools: dict[int, SpoolReader]) -> tuple[NDArray[np.int32], NDArray[np.void]]:
        """Slide and record of each sample that was kept, in the planned order; opens the spools."""
        slide, sample = load_places(self.plan, *self.places)
        records = np.zeros(len(slide), dtype=SPOOL_COLUMNS)
        kept = np.zeros(len(slide), dtype=np.bool_)
        for number in np.unique(slide).tolist():
            packed = self.slides[number]
            if packed.spool is None:
                continue
            spool = spools[number] = SpoolReader(packed.spool, packed.planned)
            stack.callback(spool.close)
            places = np.flatnonzero(slide == number)
            rows = spool.rows(sample[places])
            places, rows = places[rows >= 0], rows[rows >= 0]
            records[places] = spool.records[rows]
            kept[places] = True
        return slide[kept], records[kept]

    def _write(
        self, writer: TarWriter, slide: NDArray[np.int32], records: NDArray[np.void], spools: Mapping[int, SpoolReader]
    ) -> NDArray[np.int64]:
        """Write the samples; offset and size of image and JSON of each, int64 (N, 4)."""
        extension = EXTENSIONS[self.codec.format]
        texts = {
            number: SampleText(
                slide_id=self.slides[number].slide_id,
                cohort=self.slides[number].cohort,
                level=self.slides[number].choice.level,
                mpp=self.slides[number].choice.effective_mpp,
            )
            for number in spools
        }
        places = []
        for number, (offset, size, x, y, fraction, status) in zip(slide.tolist(), _facts(records), strict=True):
            image = spools[number].read(offset, size)
            text = texts[number].of(x_px=x, y_px=y, tissue_fraction=fraction, stain_status=STAIN_STATUSES[status])
            key = sample_key(self.slides[number].slide_id, x, y)
            starts = writer.add_all(((f"{key}.{extension}", image), (f"{key}.json", text)))
            places.append((starts[0], size, starts[1], len(text)))
        return np.array(places, dtype=np.int64).reshape(-1, 4)

    def _table(self, slide: NDArray[np.int32], records: NDArray[np.void], places: NDArray[np.int64]) -> pa.Table:
        """The shard's part of the index."""
        which = pa.array(slide)
        choices = [packed.choice for packed in self.slides]
        columns: dict[str, Any] = {
            "slide_id": pa.array([packed.slide_id for packed in self.slides], pa.string()).take(which),
            "cohort": pa.array([packed.cohort for packed in self.slides], pa.string()).take(which),
            "patient_id": pa.array([packed.patient_id for packed in self.slides], pa.string()).take(which),
            "x": records["x"],
            "y": records["y"],
            "level": _of_slides([choice.level for choice in choices], slide),
            "read_size_px": _of_slides([choice.read_size_px for choice in choices], slide),
            "footprint_px": _of_slides([choice.footprint_px for choice in choices], slide),
            "mpp": _of_slides([choice.effective_mpp for choice in choices], slide),
            "tissue_fraction": records["fraction"],
            "white_fraction": records["white"],
            "black_fraction": records["black"],
            "pen_fraction": records["pen"],
            "sharpness": records["sharpness"],
            "stain_status": _STATUSES.take(pa.array(records["status"])),
            "shard": pa.repeat(self.name, len(slide)),
            "image_offset": places[:, 0],
            "image_size": places[:, 1],
            "json_offset": places[:, 2],
            "json_size": places[:, 3],
        }
        return pa.table(
            [
                column if isinstance(column, pa.Array) else pa.array(np.ascontiguousarray(column)).cast(field.type)
                for field, column in zip(SCHEMA, (columns[name] for name in SCHEMA.names), strict=True)
            ],
            schema=SCHEMA,
        )


def _facts(records: NDArray[np.void]) -> Iterator[tuple[int, int, int, int, float, int]]:
    """Offset, size, x, y, fraction and status of each record, as plain numbers."""
    columns = [records[name].tolist() for name in ("offset", "size", "x", "y", "fraction", "status")]
    return zip(*columns, strict=True)


def _of_slides(values: Sequence[Any], slide: NDArray[np.int32]) -> NDArray[Any]:
    return np.array(values)[slide]
