"""One group's way: stage → survey → plan → cut → pack → commit. The unit of work, of retry and of commit."""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from exaone_prep import layout
from exaone_prep.attempt_log import AttemptLog
from exaone_prep.channel_sums import ChannelSums
from exaone_prep.commit import Commit
from exaone_prep.control import Control
from exaone_prep.cut import SlideCut
from exaone_prep.dataset import Dataset
from exaone_prep.environment import describe
from exaone_prep.errors import SlideProblemError
from exaone_prep.faults import words_of
from exaone_prep.ledger import GroupRecord, IndexEntry, ShardEntry, Sums
from exaone_prep.need import SlideNeed, guessed, in_words
from exaone_prep.packing import Packed, pack
from exaone_prep.pool import WorkerPool
from exaone_prep.progress import Progress
from exaone_prep.reading import GroupSlide, Reading
from exaone_prep.room import Room
from exaone_prep.scratch import (
    LOOK_FOR_ROOM_EVERY_S,
    NEXT_TO_NOTHING_BYTES,
    Scratch,
    ScratchFullError,
    ScratchTooSmallError,
    sweep,
    used_bytes,
)
from exaone_prep.shards.index import index_parquet, values_sha256
from exaone_prep.stage import Staging
from exaone_prep.steps import reach
from exaone_prep.survey_table import survey_parquet, survey_row

_CHECKS_AT_ONCE: Final = 4


@dataclass
class _Ahead:
    """Slides of a later group that are staged already."""

    group: int
    staging: Staging
    room: Room

    def drop(self) -> None:
        self.staging.end()
        self.room.release()


@dataclass
class GroupBuilder:
    """Builds groups of one data set with one pool of workers.

    Attributes:
        dataset: The data set.
        pool: Child processes that decode.
        scratch: Local working space.
        progress: Is kept up to date.
        say: Called with what the person should know of, such as a wait.
        control: Says when to wait or to end.
        log: Of the latest attempt.
    """

    dataset: Dataset
    pool: WorkerPool
    scratch: Scratch
    progress: Progress = field(default_factory=Progress)
    say: Callable[[str], None] = lambda _: None
    control: Control | None = None
    log: AttemptLog | None = None
    _attempts: Counter[int] = field(default_factory=Counter)
    _needs: dict[int, list[SlideNeed]] = field(default_factory=dict)
    _ahead: _Ahead | None = None

    def __post_init__(self) -> None:
        self.pool.check = self._check

    def build(self, group: int, then: int | None = None) -> GroupRecord:
        """Build and commit a group; what another builder has committed meanwhile is compared, not redone.

        It starts once the data set is not paused and the scratch has room for it. Where the scratch turns out too full
        it waits, and begins anew.

        Args:
            group: Its number.
            then: The group whose remote slides may be fetched while this one is packed and committed.

        Raises:
            UnreachableError, SlideChangedError, WorkerLostError, OSError: The attempt failed; nothing is lost.
            ScratchTooSmallError: The limit of the scratch is below what the group needs.
            StainMethodDefectError: The attempt failed by the fault of the stain method that is plugged in.
            StorageConflictError: Another environment made other bytes.
            BuildStoppedError: It was asked to end; nothing of the group is left on this machine.
        """
        if self.control is not None:
            self.control.wait_while_paused(lambda: self._pause(group))
        log = self.log = self._begin_log(group)
        try:
            return self._build(group, then, log)
        except Exception as error:
            log.take_over()
            log.write(words_of(error), level="error")
            raise

    def _build(self, group: int, then: int | None, log: AttemptLog) -> GroupRecord:
        while True:
            room = self._room(group)
            try:
                self._wait_for_limit(group, room)
                return self._attempt(group, then, room, log)
            except ScratchFullError as full:
                self._needs[group] = room.needs
                then = None
                self.close()
                room.release()
                self._wait_for_disk(group, full.free_bytes)
            finally:
                room.release()

    def close(self) -> None:
        """Give up what was staged ahead."""
        if self._ahead is not None:
            self._ahead.drop()
            self._ahead = None

    def _begin_log(self, group: int) -> AttemptLog:
        self._attempts[group] += 1
        name = Path(layout.attempt(group, self._attempts[group])).stem
        rows, names = self.dataset.groups[group], self.dataset.names
        file = self.scratch.path / "log" / f"{name}.jsonl"
        return AttemptLog(file, group, self.pool.log, lambda text: names.hide(text, rows))

    def _room(self, group: int) -> Room:
        uris = self.dataset.names.uris
        rows = self.dataset.groups[group]
        needs = [guessed(row, uris[row.slide_id]) if row.problem is None else SlideNeed() for row in rows]
        if group in self._needs:  # better known from an earlier attempt, but for the copies that went
            needs = [replace(known, staged=need.staged) for need, known in zip(needs, self._needs[group], strict=True)]
        return Room(self.scratch, group, needs)

    def _wait_for_limit(self, group: int, room: Room) -> None:
        if self._ahead is not None and self._ahead.group != group:
            self.close()
        if not room.claim_for_start():
            # Two builders that hold copies and wait for each other's room would wait forever.
            self.close()
            sentence = f"needs about {in_words(room.need_bytes)}, and others hold too much of the limit"
            self._wait(group, sentence, room.claim_for_start)

    def _wait_for_disk(self, group: int, free_bytes: int) -> None:
        if self.scratch.free_bytes() < free_bytes:
            sentence = f"the disk is full; {in_words(free_bytes)} must be free"
            self._wait(group, sentence, lambda: self.scratch.free_bytes() >= free_bytes)

    def _wait(self, group: int, sentence: str, there_is_room: Callable[[], bool]) -> None:
        self.progress.start_group(group, len(self.dataset.groups[group]))
        self.progress.stage = "wait"
        self.say(f"Group {group} waits for room on the scratch {self.scratch.root}: {sentence}.")
        if self.log is not None:
            self.log.write(f"waits: {sentence}", level="warning")
        while not there_is_room():
            self._check()
            time.sleep(LOOK_FOR_ROOM_EVERY_S)
            sweep(self.scratch.root)

    def _pause(self, group: int) -> None:
        self.progress.start_group(group, len(self.dataset.groups[group]))
        self.progress.stage = "pause"
        self.say(f"The data set is paused. Go on with: exaone-prep resume {self.dataset.storage.url}")

    def _check(self) -> None:
        if self.control is not None:
            self.control.check()

    def _attempt(self, group: int, then: int | None, room: Room, log: AttemptLog) -> GroupRecord:
        started = time.time()
        rows = self.dataset.groups[group]
        log.write(f"begins: {len(rows)} slides")
        self.progress.start_group(group, len(rows))
        with self._folder(group, room) as folder, self.dataset.names.hiding(rows):
            slides = [GroupSlide(row, number, folder) for number, row in enumerate(rows)]
            for slide in slides:
                if slide.row.problem is not None:
                    slide.problem = SlideProblemError(*slide.row.problem)
            with self._full_scratch_waits(folder, room, self.scratch.is_full):
                with self._staging(group) as staging:
                    self._read(slides, staging, room, log)
                log.take_over()
                reach("group-cut")
                if then is not None:
                    self._fetch_ahead(then, room)
                packed = self._pack(group, slides, folder)
                log.write(f"packed: {len(packed.shards)} shards")
                reach("group-packed")
            with self._full_scratch_waits(folder, room, self.scratch.alone_is_full):
                record = self._commit(group, slides, packed, folder, started)
        log.write(f"committed: {record.samples} samples in {len(record.shards)} shards, {record.shard_bytes} bytes")
        return record

    @contextmanager
    def _folder(self, group: int, room: Room) -> Iterator[Path]:
        name = f"group-{group:06d}"
        with ExitStack() as stack:
            with self._full_scratch_waits(self.scratch.path / name, room, self.scratch.is_full):
                folder = stack.enter_context(self.scratch.folder(name))
            yield folder

    def _read(self, slides: list[GroupSlide], staging: Staging, room: Room, log: AttemptLog) -> None:
        Reading(
            dataset=self.dataset,
            pool=self.pool,
            progress=self.progress,
            staging=staging,
            room=room,
            log=log,
            slides=slides,
            on_surveyed=lambda: reach("group-surveyed"),
        ).run()

    @contextmanager
    def _staging(self, group: int) -> Iterator[Staging]:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.staging.failed:
            ahead.staging.end()
            ahead = None
        staging = self._stage(group) if ahead is None else ahead.staging
        try:
            yield staging
        finally:
            staging.end()

    def _stage(self, group: int) -> Staging:
        folder = self.scratch.path / f"staged-{group:06d}"
        return Staging(self.dataset.groups[group], self.dataset.names.uris, folder)

    def _fetch_ahead(self, group: int, present: Room) -> None:
        try:
            room = self._room(group)
        except ScratchTooSmallError:  # to be said when it is that group's turn
            return
        copies = sum(need.staged for need in room.needs)
        if not copies or self.scratch.free_bytes() < present.need_bytes + copies or not room.claim_for_copies():
            return
        self._ahead = _Ahead(group, self._stage(group), room)

    @contextmanager
    def _full_scratch_waits(self, folder: Path, room: Room, is_full: Callable[[OSError], bool]) -> Iterator[None]:
        """Tell a full scratch from other errors of the system.

        Where it shares its disk with the data set it is none: what fills that disk are shards, which stay.
        """
        try:
            yield
        except OSError as error:
            shared = self.scratch.shares_disk_with(self.dataset.storage.local)
            if not is_full(error) or (shared and self._ahead is None):
                raise
            free = self.scratch.free_bytes()
            # Whoever filled the disk may have given it back by now; waiting for still more might be waiting for ever.
            given_back = error.errno != errno.EDQUOT and free > NEXT_TO_NOTHING_BYTES
            wanted = 0 if shared or given_back else _wanted_bytes(free + used_bytes(folder), room)
            raise ScratchFullError(wanted) from error

    def _pack(self, group: int, slides: Sequence[GroupSlide], folder: Path) -> Packed:
        return pack(group, slides, folder, self.dataset.manifest, self.pool, self.progress)

    def _commit(
        self,
        group: int,
        slides: Sequence[GroupSlide],
        packed: Packed,
        folder: Path,
        started: float,
    ) -> GroupRecord:
        self.progress.start_stage("commit")
        split = slides[0].row.split
        rows = [survey_row(slide.known(), slide.row.cohort, slide.cut, slide.problem) for slide in slides]
        for row in rows:
            row["sentence"] = self.dataset.names.hide(row["sentence"], [slide.row for slide in slides])
        commit = Commit(self.dataset, folder)
        new = []
        for shard, tar in packed.shards:
            self._check()
            if commit.put_shard(layout.shard(split, shard.name), tar):
                new.append(shard)
            reach("shard-linked")
        reach("shards-put")
        with ThreadPoolExecutor(max_workers=_CHECKS_AT_ONCE) as threads:
            list(threads.map(lambda shard: commit.check_shard(layout.shard(split, shard.name), shard), new))
        reach("shards-checked")
        self._check()
        index = commit.put(layout.index(split, group), index_parquet(packed.tables))
        reach("index-put")
        survey = commit.put(layout.survey(group), survey_parquet(rows))
        reach("survey-put")
        pictures = commit.put_file(layout.slides(group), packed.pictures)
        reach("slides-put")
        cuts = [slide.cut for slide in slides if slide.cut is not None]
        record = GroupRecord(
            content_id=self.dataset.catalog.content_id,
            group=group,
            split=split,
            shards=tuple(ShardEntry(**vars(shard)) for shard, _ in packed.shards),
            index=IndexEntry(
                rows=sum(table.num_rows for table in packed.tables),
                values_sha256=values_sha256(packed.tables),
                **index.model_dump(),
            ),
            survey=survey,
            slides=pictures,
            outcomes=dict(sorted(Counter(row["outcome"] for row in rows).items())),
            planned=sum(slide.known().planned for slide in slides),
            samples=sum(shard.samples for shard, _ in packed.shards),
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


def _wanted_bytes(had_bytes: int, room: Room) -> int:
    """How much must be free before another attempt makes sense, where one ended on so much."""
    more = max(had_bytes + had_bytes // 10, NEXT_TO_NOTHING_BYTES)
    # The need is estimated too high rather than too low; waiting for all of it might be waiting for ever.
    return max(more, min(room.need_bytes, 2 * had_bytes))


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
