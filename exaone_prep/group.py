"""One group's way: stage → survey → plan → cut → pack → commit. The unit of work, of retry and of commit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from exaone_prep import layout
from exaone_prep.catalog import CatalogRow, check_stamp
from exaone_prep.channel_sums import ChannelSums
from exaone_prep.commit import Commit
from exaone_prep.cut import CutJob, SlideCut
from exaone_prep.dataset import Dataset
from exaone_prep.environment import describe
from exaone_prep.errors import SlideProblemError
from exaone_prep.ledger import GroupRecord, IndexEntry, ShardEntry, Sums
from exaone_prep.pictures import write_slides_zip
from exaone_prep.plan import plan_group
from exaone_prep.pool import WorkerPool
from exaone_prep.progress import Progress
from exaone_prep.scratch import Scratch
from exaone_prep.shards.index import index_parquet, values_sha256
from exaone_prep.shards.pack import PackedSlide, PackJob, ShardRecord
from exaone_prep.shards.sample import shard_name
from exaone_prep.stage import stage
from exaone_prep.stain.method import defect
from exaone_prep.steps import reach
from exaone_prep.survey import SlideSurvey, SurveyJob, method_at_work
from exaone_prep.survey_table import survey_parquet, survey_row

_NO_THREADS: Final = pa.ipc.IpcReadOptions(use_threads=False)


@dataclass
class _Slide:
    """A slide on its way through the group."""

    row: CatalogRow
    number: int
    folder: Path
    path: Path | None = None
    survey: SlideSurvey | None = None
    cut: SlideCut | None = None
    problem: SlideProblemError | None = None

    @property
    def pictures(self) -> Path:
        return self.folder / f"slide-{self.number:04d}.npz"

    @property
    def spool(self) -> Path:
        return self.folder / f"slide-{self.number:04d}.spool"

    @property
    def to_cut(self) -> bool:
        """Whether there is anything to cut."""
        return self.problem is None and self.survey is not None and self.survey.planned > 0

    def known(self) -> SlideSurvey:
        return self.survey or SlideSurvey(slide_id=self.row.slide_id)


@dataclass
class GroupBuilder:
    """Builds groups of one data set with one pool of workers.

    Attributes:
        dataset: The data set.
        pool: Child processes that decode.
        scratch: Local working space.
        progress: Is kept up to date.
    """

    dataset: Dataset
    pool: WorkerPool
    scratch: Scratch
    progress: Progress = field(default_factory=Progress)

    def build(self, group: int) -> GroupRecord:
        """Build and commit a group; what another builder has committed meanwhile is compared, not redone.

        Raises:
            UnreachableError, SlideChangedError, WorkerLostError, OSError: The attempt failed; nothing is lost.
            StainMethodDefectError: Likewise, by the fault of the stain method that is plugged in.
            StorageConflictError: Another environment made other bytes.
        """
        started = time.time()
        rows = self.dataset.groups[group]
        self.progress.start_group(group, len(rows))
        with self.scratch.folder(f"group-{group:06d}") as folder, self.dataset.names.hiding(rows):
            slides = [_Slide(row, number, folder) for number, row in enumerate(rows)]
            self._stage(slides, folder)
            self._survey(slides)
            reach("group-surveyed")
            self._cut(slides)
            reach("group-cut")
            self._still_the_same(slides)
            shards, tables = self._pack(group, slides, folder)
            reach("group-packed")
            return self._commit(group, slides, shards, tables, folder, started)

    def _stage(self, slides: Sequence[_Slide], folder: Path) -> None:
        staged = folder / "staged"
        staged.mkdir()
        for slide in slides:
            if slide.row.problem is not None:
                slide.problem = SlideProblemError(*slide.row.problem)
            else:
                slide.path = stage(slide.row, self.dataset.names.uris[slide.row.slide_id], staged)

    def _survey(self, slides: Sequence[_Slide]) -> None:
        some = [slide for slide in slides if slide.problem is None]
        self.progress.start_stage("survey")
        jobs = [
            SurveyJob(
                row=slide.row,
                path=_path(slide),
                manifest=self.dataset.manifest,
                file=slide.pictures,
                stain_identity=self.dataset.stain_identity,
            )
            for slide in some
        ]
        for number, answer in self.pool.map(jobs):
            slide = some[number]
            if isinstance(answer, SlideProblemError):
                slide.problem = answer
            else:
                slide.survey = answer
                slide.problem = answer.problem
            self.progress.slides_done += 1
        self._blame_the_method(some)

    def _cut(self, slides: Sequence[_Slide]) -> None:
        # The largest first: the last slide to end should be a short one.
        some = sorted(
            (slide for slide in slides if slide.to_cut), key=lambda slide: (-slide.known().planned, slide.number)
        )
        self.progress.start_stage("cut", sum(slide.known().planned for slide in some))
        jobs = [self._cut_job(slide) for slide in some]

        def tell(number: int, patches: int) -> None:
            self.progress.slide = some[number].row.slide_id
            self.progress.tell(number, patches)

        for number, answer in self.pool.map(jobs, tell):
            slide = some[number]
            self.progress.tell(number, slide.known().planned)
            self.progress.slides_done += 1
            if isinstance(answer, SlideProblemError):
                slide.problem = answer
            else:
                slide.cut = answer
                self.progress.spool_bytes += answer.bytes
        self._blame_the_method(some)

    def _blame_the_method(self, slides: Sequence[_Slide]) -> None:
        """A process that dies in code of a plugged-in stain method says nothing about the slide."""
        for slide in slides:
            crashed = slide.problem is not None and slide.problem.reason == "crashed"
            if crashed and method_at_work(slide.pictures).exists():
                name, identity = self.dataset.manifest.stain.method, self.dataset.stain_identity
                raise defect(name, identity, f"it took its process along, twice, at slide {slide.row.slide_id}")

    def _cut_job(self, slide: _Slide) -> CutJob:
        survey = slide.known()
        assert survey.choice is not None
        assert survey.reader is not None
        assert survey.pixels is not None
        assert survey.fit is not None
        return CutJob(
            path=_path(slide),
            manifest=self.dataset.manifest,
            reference=self.dataset.reference,
            choice=survey.choice,
            reader=survey.reader,
            pixels=survey.pixels,
            fit=survey.fit,
            pictures=slide.pictures,
            spool=slide.spool,
            stain_identity=self.dataset.stain_identity,
            device=self.dataset.stain_device,
        )

    def _still_the_same(self, slides: Sequence[_Slide]) -> None:
        for slide in slides:
            if slide.path is not None:
                check_stamp(slide.row, slide.path)

    def _pack(
        self, group: int, slides: Sequence[_Slide], folder: Path
    ) -> tuple[list[tuple[ShardRecord, Path]], list[pa.Table]]:
        # Every surveyed slide takes part in the plan: what a slide loses while it is cut moves no other sample.
        packed = tuple(_packed(slide) for slide in slides if slide.survey is not None and slide.survey.planned > 0)
        settings = self.dataset.manifest
        planned = plan_group(
            [(slide.slide_id, slide.planned) for slide in packed],
            samples_per_shard=settings.shards.samples_per_shard,
            seed=settings.seed,
        )
        self.progress.start_stage("pack", len(planned.sample))
        jobs = [
            PackJob(
                slides=packed,
                number=number,
                name=shard_name(group, number),
                codec=settings.codec,
                samples_per_shard=settings.shards.samples_per_shard,
                seed=settings.seed,
                tar=folder / shard_name(group, number),
                index=folder / f"index-{number:03d}.arrow",
            )
            for number in range(planned.shards)
        ]
        records: dict[int, ShardRecord] = {}
        for number, record in self.pool.map(jobs):
            records[number] = record
            self.progress.patches_done += int(planned.bounds[number + 1] - planned.bounds[number])
        shards, tables = [], []
        for number, job in enumerate(jobs):
            if records[number].samples:  # all its slides may have turned out unreadable
                shards.append((records[number], job.tar))
                with pa.memory_map(str(job.index)) as source:
                    tables.append(pa.ipc.open_file(source, options=_NO_THREADS).read_all())
        return shards, tables

    def _commit(
        self,
        group: int,
        slides: Sequence[_Slide],
        shards: Sequence[tuple[ShardRecord, Path]],
        tables: Sequence[pa.Table],
        folder: Path,
        started: float,
    ) -> GroupRecord:
        self.progress.start_stage("commit")
        split = slides[0].row.split
        rows = [survey_row(slide.known(), slide.row.cohort, slide.cut, slide.problem) for slide in slides]
        for row in rows:
            row["sentence"] = self.dataset.names.hide(row["sentence"], [slide.row for slide in slides])
        commit = Commit(self.dataset, folder)
        for shard, tar in shards:
            commit.put_shard(layout.shard(split, shard.name), tar)
            reach("shard-linked")
        reach("shards-put")
        for shard, _ in shards:
            commit.check_shard(layout.shard(split, shard.name), shard)
        reach("shards-checked")
        index = commit.put(layout.index(split, group), index_parquet(tables))
        reach("index-put")
        survey = commit.put(layout.survey(group), survey_parquet(rows))
        reach("survey-put")
        pictures = commit.put_file(layout.slides(group), self._pictures(slides, folder))
        reach("slides-put")
        cuts = [slide.cut for slide in slides if slide.cut is not None]
        record = GroupRecord(
            content_id=self.dataset.catalog.content_id,
            group=group,
            split=split,
            shards=tuple(ShardEntry(**vars(shard)) for shard, _ in shards),
            index=IndexEntry(
                rows=sum(table.num_rows for table in tables), values_sha256=values_sha256(tables), **index.model_dump()
            ),
            survey=survey,
            slides=pictures,
            outcomes=dict(sorted(Counter(row["outcome"] for row in rows).items())),
            planned=sum(slide.known().planned for slide in slides),
            samples=sum(shard.samples for shard, _ in shards),
            dropped=_total(cut.dropped for cut in cuts),
            stain_statuses=_total(cut.statuses for cut in cuts),
            channels=_channels(cuts),
            built={
                "started": started,
                "ended": time.time(),
                "workers": self.pool.workers,
                **describe(self.dataset.versions),
            },
        )
        reach("ledger-before")
        record = commit.close(record)
        reach("ledger-after")
        self.progress.groups_done += 1
        self.progress.samples_total += record.samples
        self.progress.bytes_total += record.shard_bytes
        return record

    def _pictures(self, slides: Sequence[_Slide], folder: Path) -> Path:
        file = folder / "pictures.zip"
        write_slides_zip(file, [(slide.row.slide_id, slide.pictures) for slide in slides if slide.pictures.exists()])
        return file


def _path(slide: _Slide) -> Path:
    assert slide.path is not None
    return slide.path


def _packed(slide: _Slide) -> PackedSlide:
    survey = slide.known()
    assert survey.choice is not None
    return PackedSlide(
        slide_id=slide.row.slide_id,
        cohort=slide.row.cohort,
        patient_id=slide.row.patient_id,
        planned=survey.planned,
        choice=survey.choice,
        pictures=slide.pictures,
        spool=slide.spool if slide.problem is None and slide.cut is not None else None,
    )


def _total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _channels(cuts: Sequence[SlideCut]) -> Sums:
    total = ChannelSums()
    for cut in cuts:
        total.merge(cut.sums)
    return Sums(
        pixels=total.pixels,
        sums=(total.sums[0], total.sums[1], total.sums[2]),
        squares=(total.squares[0], total.squares[1], total.squares[2]),
    )
