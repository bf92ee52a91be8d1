"""Pack one shard from the spools of its group, in the planned order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from exaone_prep.job import Tell
from exaone_prep.manifest import Codec
from exaone_prep.plan import plan_group
from exaone_prep.shards.index import SCHEMA
from exaone_prep.shards.sample import EXTENSIONS, STAIN_STATUSES, sample_json, sample_key
from exaone_prep.shards.tar import TarWriter
from exaone_prep.slides import LevelChoice
from exaone_prep.spool import SpoolReader
from exaone_prep.survey import load_grid


@dataclass(frozen=True, kw_only=True)
class PackedSlide:
    """A slide of the group as packing needs it; `spool` is None where none of its samples are committed."""

    slide_id: str
    cohort: str
    patient_id: str
    planned: int
    choice: LevelChoice
    pictures: Path
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
    """Pack shard `number` of a group to the file `tar`, and its part of the index to `index` (Arrow IPC)."""

    slides: tuple[PackedSlide, ...]
    number: int
    name: str
    codec: Codec
    samples_per_shard: int
    seed: int
    tar: Path
    index: Path

    def run(self, tell: Tell) -> ShardRecord:
        """Do it; the plan is made anew from the counts, which is quicker than sending it."""
        plan = plan_group(
            [(slide.slide_id, slide.planned) for slide in self.slides],
            samples_per_shard=self.samples_per_shard,
            seed=self.seed,
        )
        places = slice(int(plan.bounds[self.number]), int(plan.bounds[self.number + 1]))
        sources = {number: _Source(self.slides[number]) for number in sorted(set(plan.slide[places].tolist()))}
        columns: dict[str, list[Any]] = {field.name: [] for field in SCHEMA}
        try:
            with self.tar.open("xb", buffering=1 << 20) as stream:
                writer = TarWriter(stream)
                for slide, sample in zip(plan.slide[places].tolist(), plan.sample[places].tolist(), strict=True):
                    self._add(writer, sources[slide], sample, columns)
                sha256 = writer.close()
        finally:
            for source in sources.values():
                source.close()
        table = pa.table(columns, schema=SCHEMA)
        with pa.ipc.new_file(self.index, SCHEMA) as sink:
            sink.write_table(table)
        tell(table.num_rows)
        return ShardRecord(name=self.name, samples=table.num_rows, bytes=writer.size_bytes, sha256=sha256)

    def _add(self, writer: TarWriter, source: _Source, sample: int, columns: dict[str, list[Any]]) -> None:
        record = source.spool.find(sample) if source.spool is not None else None
        if record is None:
            return
        assert source.spool is not None
        slide, choice = source.slide, source.slide.choice
        x, y = source.level0(sample)
        fraction = round(float(source.fractions[sample]), 4)
        status = STAIN_STATUSES[record["status"]]
        key = sample_key(slide.slide_id, x, y)
        image = source.spool.read(record)
        text = sample_json(
            slide_id=slide.slide_id,
            cohort=slide.cohort,
            x_px=x,
            y_px=y,
            level=choice.level,
            mpp=choice.effective_mpp,
            tissue_fraction=fraction,
            stain_status=status,
        )
        image_offset = writer.add(f"{key}.{EXTENSIONS[self.codec.format]}", image)
        json_offset = writer.add(f"{key}.json", text)
        row = {
            "slide_id": slide.slide_id,
            "cohort": slide.cohort,
            "patient_id": slide.patient_id,
            "x": x,
            "y": y,
            "level": choice.level,
            "read_size_px": choice.read_size_px,
            "footprint_px": choice.footprint_px,
            "mpp": choice.effective_mpp,
            "tissue_fraction": fraction,
            "white_fraction": record["white"],
            "black_fraction": record["black"],
            "pen_fraction": record["pen"],
            "sharpness": record["sharpness"],
            "stain_status": status,
            "shard": self.name,
            "image_offset": image_offset,
            "image_size": len(image),
            "json_offset": json_offset,
            "json_size": len(text),
        }
        for name, value in row.items():
            columns[name].append(value)


class _Source:
    """A slide's spool and grid, open while a shard is packed."""

    def __init__(self, slide: PackedSlide) -> None:
        self.slide = slide
        self.spool = SpoolReader(slide.spool, slide.planned) if slide.spool is not None else None
        if self.spool is not None:
            positions, self.fractions = load_grid(slide.pictures)
            self._level0 = np.rint(positions * slide.choice.downsample).astype(np.int64)

    def level0(self, sample: int) -> tuple[int, int]:
        """Position of a sample in level-0 pixels."""
        x, y = self._level0[sample]
        return int(x), int(y)

    def close(self) -> None:
        if self.spool is not None:
            self.spool.close()
