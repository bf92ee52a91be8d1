"""From the spools of a group to its shards, their indexes and the pictures of its slides, on local disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from exaone_prep.errors import SlideProblemError
from exaone_prep.job import Job, Tell
from exaone_prep.manifest import Manifest
from exaone_prep.pictures import write_slides_zip
from exaone_prep.plan import plan_group, save_plan
from exaone_prep.pool import WorkerLostError, WorkerPool
from exaone_prep.progress import Progress
from exaone_prep.reading import GroupSlide
from exaone_prep.shards.pack import PackedSlide, PackJob, ShardRecord
from exaone_prep.shards.sample import shard_name

_NO_THREADS: Final = pa.ipc.IpcReadOptions(use_threads=False)


@dataclass(frozen=True, kw_only=True)
class PicturesJob:
    """Write the pictures of a group's slides, beside the packing of its shards.

    Attributes:
        file: To be written.
        slides: Slide id, and the file that its survey left.
    """

    file: Path
    slides: tuple[tuple[str, Path], ...]

    def run(self, tell: Tell) -> None:
        """Do it."""
        write_slides_zip(self.file, self.slides)
        tell(0)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What is to be committed.

    Attributes:
        shards: Each with its tar.
        tables: Their indexes.
        pictures: Of the group's slides.
    """

    shards: list[tuple[ShardRecord, Path]]
    tables: list[pa.Table]
    pictures: Path


def pack(
    group: int, slides: Sequence[GroupSlide], folder: Path, settings: Manifest, pool: WorkerPool, progress: Progress
) -> Packed:
    """Pack the shards of a group into a folder, and draw the pictures of its slides beside.

    Raises:
        WorkerLostError, OSError: The attempt failed.
    """
    # Every surveyed slide takes part in the plan: what a slide loses while it is cut moves no other sample.
    packed = tuple(_packed(slide) for slide in slides if slide.survey is not None and slide.survey.planned > 0)
    planned = plan_group(
        [(slide.slide_id, slide.planned) for slide in packed],
        samples_per_shard=settings.shards.samples_per_shard,
        seed=settings.seed,
    )
    plan = folder / "plan.npy"
    save_plan(planned, plan)
    progress.start_stage("pack", len(planned.sample))
    packing = [
        PackJob(
            slides=packed,
            plan=plan,
            places=(int(planned.bounds[number]), int(planned.bounds[number + 1])),
            name=shard_name(group, number),
            codec=settings.codec,
            tar=folder / shard_name(group, number),
            index=folder / f"index-{number:03d}.arrow",
        )
        for number in range(planned.shards)
    ]
    drawn = [(slide.row.slide_id, slide.pictures) for slide in slides if slide.pictures.exists()]
    pictures = PicturesJob(file=folder / "pictures.zip", slides=tuple(drawn))
    jobs: list[Job] = [*packing, pictures]
    records: dict[int, Any] = {}
    for number, record in pool.map(jobs):
        if isinstance(record, SlideProblemError):  # the slides have been read by now
            raise WorkerLostError("A worker process died twice while it packed shards; is the memory sound?")
        records[number] = record
        if number < planned.shards:
            progress.patches_done += int(planned.bounds[number + 1] - planned.bounds[number])
    shards, tables = [], []
    for number, job in enumerate(packing):
        if records[number].samples:  # all its slides may have turned out unreadable
            shards.append((records[number], job.tar))
            with pa.memory_map(str(job.index)) as source:
                tables.append(pa.ipc.open_file(source, options=_NO_THREADS).read_all())
    return Packed(shards=shards, tables=tables, pictures=pictures.file)


def _packed(slide: GroupSlide) -> PackedSlide:
    survey = slide.known()
    assert survey.choice is not None
    return PackedSlide(
        slide_id=slide.row.slide_id,
        cohort=slide.row.cohort,
        patient_id=slide.row.patient_id,
        planned=survey.planned,
        choice=survey.choice,
        spool=slide.spool if slide.problem is None and slide.cut is not None else None,
    )
