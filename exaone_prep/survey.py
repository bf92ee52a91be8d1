"""The survey of a slide: tissue, patches and stain, found before anything is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exaone_prep import stain
from exaone_prep.catalog import CatalogRow
from exaone_prep.errors import SlideProblemError
from exaone_prep.grid import patch_grid, tissue_fractions
from exaone_prep.job import Tell
from exaone_prep.manifest import Manifest
from exaone_prep.overview import Overview, read_overview
from exaone_prep.pixels import PixelSource, choose_pixels, open_patches
from exaone_prep.slides import LevelChoice, SlideReader, choose_level, open_slide, resolve_mpp
from exaone_prep.stain.method import MethodFit, at_work, plug_in
from exaone_prep.stain_sample import take_sample
from exaone_prep.tissue import tissue_mask

OD_PIXELS: Final = 4096

FitMethod = Callable[[NDArray[np.uint8]], MethodFit]
"""Fits the stain method that is plugged in on pixels, uint8 (N, 3)."""


@dataclass(frozen=True, kw_only=True)
class SlideSurvey:
    """What the survey found, in small values; None where it did not get that far.

    Attributes:
        problem: Reason and sentence if the slide is to be quarantined.
        planned: Number of patches to be read.
        pixels: Where their pixels are taken from.
        tissue_mm2: Area of the tissue mask.
        fit: The slide's own stain.
        method_fit: The same by the stain method that is plugged in, if one is.
    """

    slide_id: str
    problem: SlideProblemError | None = None
    reader: str | None = None
    vendor: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    levels: int | None = None
    mpp: float | None = None
    mpp_source: str | None = None
    choice: LevelChoice | None = None
    objective_power: float | None = None
    icc_sha256: str | None = None
    properties: tuple[tuple[str, str], ...] = ()
    tissue_mm2: float | None = None
    tissue_threshold: int | None = None
    planned: int = 0
    pixels: PixelSource | None = None
    fit: stain.StainFit | None = None
    method_fit: MethodFit | None = None


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What a person looks at, and the patch grid, as arrays.

    Attributes:
        thumbnail: uint8 (H, W, 3), overview at about 8 µm/px.
        mask: bool (H, W), tissue.
        positions: int64 (N, 2), x and y of the planned patches in pixels of the level read.
        fractions: float64 (N,), tissue fraction of each.
        patches: uint8 (n, size, size, 3), a few raw patches.
        patch_numbers: int32 (n,), which of the planned ones these are.
        od_pixels: uint8 (m, 3), a sample of the pixels the stain was fitted on, as RGB.
    """

    thumbnail: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    positions: NDArray[np.int64]
    fractions: NDArray[np.float64]
    patches: NDArray[np.uint8]
    patch_numbers: NDArray[np.int32]
    od_pixels: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class SurveyJob:
    """Survey one slide and leave its pictures in a file.

    Attributes:
        row: The slide in the catalog.
        path: Where it lies on this machine.
        manifest: The settings.
        file: Receives the pictures (`.npz`), and the fit of a stain method that is plugged in; not written where the
            slide cannot be opened.
        stain_identity: The version that such a method must have; None: any.
    """

    row: CatalogRow
    path: Path
    manifest: Manifest
    file: Path
    stain_identity: str | None = None

    def run(self, tell: Tell) -> SlideSurvey:
        """See `survey_slide`.

        Raises:
            ManifestError, DatasetError, StainMethodDefectError: See `plug_in` and `PluggedMethod.fit`.
        """
        method_at_work(self.file).unlink(missing_ok=True)
        fit_method = self._fit_method if self.manifest.stain.plugged_in else None
        survey, pictures = survey_slide(self.row, self.path, self.manifest, fit_method)
        if pictures is not None:
            arrays = vars(pictures)
            if survey.method_fit is not None:
                arrays = arrays | {_METHOD_FIT: np.frombuffer(survey.method_fit.to_text().encode("ascii"), np.uint8)}
            with self.file.open("wb") as stream:
                np.savez(stream, **arrays)
        tell(0)
        return survey

    def _fit_method(self, pixels: NDArray[np.uint8]) -> MethodFit:
        settings = self.manifest.stain
        with at_work(method_at_work(self.file)):
            return plug_in(settings.method, settings.options, identity=self.stain_identity).fit(pixels)


_METHOD_FIT: Final = "method_fit"


def method_at_work(file: Path) -> Path:
    """A file beside the pictures that exists while a stain method that is plugged in works on their slide."""
    return file.with_suffix(".method")


def load_pictures(file: Path) -> Pictures:
    """Read what a `SurveyJob` left."""
    with np.load(file) as arrays:
        return Pictures(**{field.name: arrays[field.name] for field in fields(Pictures)})


def load_grid(file: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Positions and tissue fractions alone: cut and pack need no overview of many megabytes."""
    with np.load(file) as arrays:
        return arrays["positions"], arrays["fractions"]


def load_method_fit(file: Path) -> MethodFit:
    """The slide's fit by the stain method that is plugged in."""
    with np.load(file) as arrays:
        return MethodFit.from_text(arrays[_METHOD_FIT].tobytes().decode("ascii"))


def survey_slide(
    row: CatalogRow, path: Path, manifest: Manifest, fit_method: FitMethod | None = None
) -> tuple[SlideSurvey, Pictures | None]:
    """Survey a slide.

    A slide that cannot become patches is no exception here: what was found until then is returned with the problem.

    Args:
        row: The slide in the catalog.
        path: Where it lies on this machine.
        manifest: The settings.
        fit_method: Also called on the pixels that the slide's own stain is fitted on, unless the slide is not H&E.

    Raises:
        UnreachableError: The file cannot be reached; nothing is said about the slide.
    """
    survey = SlideSurvey(slide_id=row.slide_id)
    try:
        reader = open_slide(path, manifest.readers)
    except SlideProblemError as problem:
        return replace(survey, problem=problem), None
    pictures: Pictures | None = None
    try:
        for step, found in _survey_open(survey, row, path, reader, manifest, fit_method):
            survey, pictures = step, found or pictures
    except SlideProblemError as problem:
        survey = replace(survey, problem=problem)
    finally:
        reader.close()
    return survey, pictures


def _survey_open(
    survey: SlideSurvey,
    row: CatalogRow,
    path: Path,
    reader: SlideReader,
    manifest: Manifest,
    fit_method: FitMethod | None,
) -> Iterator[tuple[SlideSurvey, Pictures | None]]:
    """Yield the survey after each step, so that a problem in a later one loses nothing of the earlier."""
    info = reader.info
    survey = replace(
        survey,
        reader=info.reader,
        vendor=info.vendor,
        width_px=info.levels[0].width_px,
        height_px=info.levels[0].height_px,
        levels=len(info.levels),
        objective_power=info.objective_power,
        icc_sha256=info.icc_sha256,
        properties=tuple(sorted(info.properties.items())),
    )
    yield survey, None

    mpp = resolve_mpp(
        info.claimed_mpp,
        info.objective_power,
        slide_mpp=row.mpp_override,
        cohort_mpp=row.cohort_mpp,
        cohort_mpp_if_missing=row.mpp_if_missing,
    )
    survey = replace(survey, mpp=mpp.um_per_px, mpp_source=mpp.source)
    yield survey, None

    choice = choose_level(
        info.levels,
        mpp.um_per_px,
        target_mpp=manifest.patch.mpp,
        tolerance=manifest.patch.mpp_tolerance,
        size_px=manifest.patch.size_px,
    )
    survey = replace(survey, choice=choice)
    yield survey, None

    overview = read_overview(reader, slide_mpp=mpp.um_per_px, target_mpp=manifest.tissue.mpp)
    tissue = tissue_mask(overview.rgb, mpp=overview.mpp, settings=manifest.tissue, unreadable=overview.unreadable)
    pixel_mm2 = (overview.mpp / 1000) * (overview.mpp / 1000)
    positions, fractions = _planned(reader, choice, overview, tissue.mask, manifest)
    survey = replace(
        survey,
        tissue_mm2=int(tissue.mask.sum()) * pixel_mm2,
        tissue_threshold=tissue.threshold,
        planned=len(positions),
    )
    source = choose_pixels(reader, path, choice, positions, manifest.patch.reduce)
    survey = replace(survey, pixels=source)
    with open_patches(reader, path, choice, manifest.patch.size_px, source) as patches:
        sampled = take_sample(patches, positions, manifest, row.slide_id)
    pictures = Pictures(
        thumbnail=overview.rgb,
        mask=tissue.mask,
        positions=positions,
        fractions=fractions,
        patches=sampled.shown,
        patch_numbers=sampled.shown_numbers,
        od_pixels=sampled.pixels[:: max(1, -(-len(sampled.pixels) // OD_PIXELS))],
    )
    yield survey, pictures

    if not len(positions) and not tissue.background_dark:
        return
    fit = sampled.fit(background_dark=tissue.background_dark)
    if row.allow_non_he and fit.status == "not_he":
        # What the person wants built is normalised as well as it can be: only the gates of measuring count.
        fit = fit.judged(stain.verdict_patch(fit, min_kept=stain.MIN_KEPT_SLIDE))
    survey = replace(survey, fit=fit)
    yield survey, pictures
    if fit.status == "not_he":
        raise SlideProblemError("not_he", f"It does not look stained with H&E: {stain.SENTENCES[fit.reason]}.")
    if fit_method is not None:
        yield replace(survey, method_fit=fit_method(sampled.pixels)), pictures


def _planned(
    reader: SlideReader, choice: LevelChoice, overview: Overview, mask: NDArray[np.bool_], manifest: Manifest
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    level = reader.info.levels[choice.level]
    read_px = choice.read_size_px
    # The stride keeps its share of the patch side, whole pixels of the level.
    stride_px = max(1, round(read_px * manifest.patch.stride_px / manifest.patch.size_px))
    left, top, width, height = reader.info.bounds_px
    bounds = (
        round(left / level.downsample),
        round(top / level.downsample),
        int(width / level.downsample),
        int(height / level.downsample),
    )
    positions = patch_grid(
        level_width_px=level.width_px,
        level_height_px=level.height_px,
        bounds_px=bounds,
        read_size_px=read_px,
        stride_px=stride_px,
    )
    fractions = tissue_fractions(
        mask, positions, read_size_px=read_px, mask_px_per_level_px=level.downsample / overview.scale_px
    )
    kept = fractions >= manifest.tissue.min_fraction
    # With a limit of 0 every patch would pass, those without any tissue as well.
    kept &= fractions > 0
    return positions[kept], fractions[kept]
