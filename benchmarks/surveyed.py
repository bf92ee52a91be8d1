"""A slide after its survey: what the floor, the stages and the other tools are measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exaone_prep import stain
from exaone_prep.dataset import Dataset, create_dataset
from exaone_prep.errors import SlideProblemError
from exaone_prep.manifest import Manifest, parse_manifest
from exaone_prep.pixels import PixelSource
from exaone_prep.slides import LevelChoice
from exaone_prep.survey import SlideSurvey, SurveyJob, load_grid


@dataclass(frozen=True, kw_only=True)
class Surveyed:
    """A slide, how it will be read, and what is planned of it.

    Attributes:
        path: The slide.
        dataset: One of this slide alone, with a frozen catalog.
        positions: int64 (N, 2), upper left corners of the planned patches, in pixels of the level.
        pictures: File that the survey left.
    """

    path: Path
    dataset: Dataset
    survey: SlideSurvey
    choice: LevelChoice
    pixels: PixelSource
    fit: stain.StainFit
    positions: NDArray[np.int64]
    pictures: Path

    @property
    def manifest(self) -> Manifest:
        """The settings."""
        return self.dataset.manifest


def manifest_of(*slides: Path, fit: str = "slide") -> Manifest:
    """The defaults, for some slides."""
    document = {
        "name": "benchmark",
        "cohorts": [{"name": "benchmark", "slides": [str(slide.resolve()) for slide in slides]}],
        "splits": {},
        "stain": {"fit": fit},
    }
    return parse_manifest(document, {}, where="benchmark")


def survey(slide: Path, folder: Path) -> Surveyed:
    """Survey the slide in this process.

    Raises:
        SlideProblemError: It would be quarantined, or has no patch.
    """
    dataset = create_dataset(folder / "catalog", manifest_of(slide), base=folder)
    job = SurveyJob(row=dataset.catalog.rows[0], path=slide, manifest=dataset.manifest, file=folder / "pictures.npz")
    found = job.run(lambda _: None)
    if found.problem is not None:
        raise found.problem
    if found.choice is None or found.fit is None or found.pixels is None or not found.planned:
        raise SlideProblemError("not_a_slide", "The slide has no patch to measure on.")
    return Surveyed(
        path=slide,
        dataset=dataset,
        survey=found,
        choice=found.choice,
        pixels=found.pixels,
        fit=found.fit,
        positions=load_grid(job.file)[0],
        pictures=job.file,
    )


def middle_rows(positions: NDArray[np.int64], least: int) -> NDArray[np.int64]:
    """Whole rows of patches around the middle of the slide, at least so many patches if there are."""
    rows = np.unique(positions[:, 1])
    first = last = len(rows) // 2
    while True:
        some: NDArray[np.int64] = positions[(positions[:, 1] >= rows[first]) & (positions[:, 1] <= rows[last])]
        if len(some) >= least or (first == 0 and last == len(rows) - 1):
            return some
        first, last = max(0, first - 1), min(len(rows) - 1, last + 1)
