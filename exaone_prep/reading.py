"""The slides of a group on their way from their place into the spool: staged, surveyed and cut, each as it comes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exaone_prep.attempt_log import AttemptLog
from exaone_prep.catalog import CatalogRow
from exaone_prep.cut import CutJob, SlideCut
from exaone_prep.dataset import Dataset
from exaone_prep.errors import SlideProblemError
from exaone_prep.job_queue import JobQueue
from exaone_prep.need import SlideNeed, estimated, known
from exaone_prep.pool import WorkerPool
from exaone_prep.progress import Progress
from exaone_prep.room import Room
from exaone_prep.stage import Staging
from exaone_prep.stain.method import defect
from exaone_prep.survey import SlideSurvey, SurveyJob, method_at_work

_SURVEY: Final = 0
_CUT: Final = 1


@dataclass
class GroupSlide:
    """A slide on its way through the group."""

    row: CatalogRow
    number: int
    folder: Path
    path: Path | None = None
    survey: SlideSurvey | None = None
    cut: SlideCut | None = None
    problem: SlideProblemError | None = None
    surveyed: bool = False

    @property
    def pictures(self) -> Path:
        """What the survey leaves."""
        return self.folder / f"slide-{self.number:04d}.npz"

    @property
    def spool(self) -> Path:
        """What the cut leaves."""
        return self.folder / f"slide-{self.number:04d}.spool"

    @property
    def to_cut(self) -> bool:
        """Whether there is anything to cut."""
        return self.problem is None and self.survey is not None and self.survey.planned > 0

    def known(self) -> SlideSurvey:
        """The survey, an empty one where there is none."""
        return self.survey or SlideSurvey(slide_id=self.row.slide_id)


@dataclass
class Reading:
    """Surveys and cuts slides as they arrive: whatever is not there yet holds up no other.

    Attributes:
        dataset: The data set.
        pool: Child processes that decode.
        progress: Counts, for whoever shows them.
        staging: Brings the slides.
        room: The group's claim on the scratch.
        log: Gets a line per slide and step.
        slides: Of the group, in its order.
        on_surveyed: Called once no slide is left to survey.
    """

    dataset: Dataset
    pool: WorkerPool
    progress: Progress
    staging: Staging
    room: Room
    log: AttemptLog
    slides: list[GroupSlide]
    on_surveyed: Callable[[], None]

    def run(self) -> None:
        """Bring all slides as far as they come.

        Raises:
            UnreachableError, SlideChangedError, WorkerLostError, OSError: The attempt failed.
            ScratchTooSmallError, ScratchFullError: See `Room.check`; raised before anything is cut, mostly.
            StainMethodDefectError: By the fault of the stain method that is plugged in.
        """
        self._held: list[GroupSlide] = []
        some = [slide for slide in self.slides if slide.problem is None]
        self._to_survey = len(some)
        self.progress.start_stage("survey" if len(self.staging.remote) < len(some) else "stage")
        with JobQueue(awaited=len(some)) as queue:

            def arrived(number: int, path: Path) -> None:
                self.slides[number].path = path
                queue.arrive(number, self._survey_job(self.slides[number]), (_SURVEY, number))

            self.staging.deliver(arrived, queue.fail)
            if not some:
                self._all_surveyed(queue)
            with closing(self.pool.run(queue, self._tell)) as answers:
                for number, answer in answers:
                    slide = self.slides[number]
                    if slide.surveyed:
                        self._cut(slide, answer)
                    else:
                        self._survey(slide, answer, queue)
        self.staging.finish()

    def _tell(self, number: int, patches: int) -> None:
        self.progress.slide = self.slides[number].row.slide_id
        self.progress.tell(number, patches)

    def _survey(self, slide: GroupSlide, answer: Any, queue: JobQueue) -> None:
        slide.surveyed = True
        if isinstance(answer, SlideProblemError):
            slide.problem = answer
            self._blame_the_method(slide)
        else:
            slide.survey = answer
            slide.problem = answer.problem
        self._note(slide, f"surveyed: {slide.known().planned} patches planned")
        pictures = slide.pictures.stat().st_size if slide.pictures.exists() else 0
        self.progress.stage = "survey"
        self.progress.slides_done += 1
        if slide.to_cut:
            self.progress.patches += slide.known().planned
            settings = self.dataset.manifest
            need = estimated(
                planned=slide.known().planned,
                size_px=settings.patch.size_px,
                codec=settings.codec,
                staged=self.room.needs[slide.number].staged,
                pictures=pictures,
            )
            self._held.append(slide)
        else:
            self.staging.done_with(slide.number)
            need = SlideNeed(pictures=pictures)
        self.room.needs[slide.number] = need
        self._to_survey -= 1
        if not self._to_survey:
            self._all_surveyed(queue)
        elif self.room.covers_the_need():
            self._cut_held(queue)

    def _all_surveyed(self, queue: JobQueue) -> None:
        self.room.check()
        self.on_surveyed()
        self._cut_held(queue)
        self.progress.stage = "cut"
        self.progress.slides_done = sum(slide.cut is not None for slide in self.slides)

    def _cut_held(self, queue: JobQueue) -> None:
        for slide in self._held:
            # The largest first: the last slide to end should be a short one.
            queue.put(slide.number, self._cut_job(slide), (_CUT, -slide.known().planned, slide.number))
        self._held.clear()

    def _cut(self, slide: GroupSlide, answer: Any) -> None:
        self.progress.tell(slide.number, slide.known().planned)
        if not self._to_survey:
            self.progress.slides_done += 1
        pictures = self.room.needs[slide.number].pictures
        if isinstance(answer, SlideProblemError):
            slide.problem = answer
            self._blame_the_method(slide)
            slide.spool.unlink(missing_ok=True)
            self.room.needs[slide.number] = SlideNeed(pictures=pictures)
        else:
            slide.cut = answer
            self.progress.spool_bytes += answer.bytes
            self.room.needs[slide.number] = known(kept=answer.kept, spool=answer.bytes, pictures=pictures)
        self._note(slide, f"cut: {slide.cut.kept if slide.cut is not None else 0} patches kept")
        self.staging.done_with(slide.number)
        self.room.covers_the_need()

    def _note(self, slide: GroupSlide, message: str) -> None:
        if slide.problem is None:
            self.log.write(message, slide=slide.row.slide_id)
        else:
            sentence = f"{slide.problem.reason}: {slide.problem}"
            self.log.write(sentence, level="warning", slide=slide.row.slide_id)

    def _blame_the_method(self, slide: GroupSlide) -> None:
        """A process that dies in code of a plugged-in stain method says nothing about the slide."""
        crashed = slide.problem is not None and slide.problem.reason == "crashed"
        if crashed and method_at_work(slide.pictures).exists():
            name, identity = self.dataset.manifest.stain.method, self.dataset.stain_identity
            raise defect(name, identity, f"it took its process along, twice, at slide {slide.row.slide_id}")

    def _survey_job(self, slide: GroupSlide) -> SurveyJob:
        assert slide.path is not None
        return SurveyJob(
            row=slide.row,
            path=slide.path,
            manifest=self.dataset.manifest,
            file=slide.pictures,
            stain_identity=self.dataset.stain_identity,
        )

    def _cut_job(self, slide: GroupSlide) -> CutJob:
        survey = slide.known()
        assert slide.path is not None
        assert survey.choice is not None
        assert survey.reader is not None
        assert survey.pixels is not None
        assert survey.fit is not None
        return CutJob(
            path=slide.path,
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
