"""Generated slides: valid files, known stains, and the same bytes every time."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide
import pytest
import simplejpeg
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from exaone_prep.errors import ManifestError
from exaone_prep.manifest import load_manifest
from exaone_prep.phantom import PhantomSettings, PhantomSlide, write_phantoms
from exaone_prep.phantom.cells import populate
from exaone_prep.phantom.layout import TISSUES, lay_out
from exaone_prep.phantom.noise import bilinear, bilinear_at, cloud, generator, ranked, textures, unit_vector
from exaone_prep.phantom.nuclei import library
from exaone_prep.phantom.optics import scanner_of, stains_of, transmission_table, true_direction
from exaone_prep.phantom.paint import Scene, paint
from exaone_prep.phantom.pyramid import Pyramid, block_mean, write_pyramid
from exaone_prep.phantom.tiff import Subsampling

SMALL = PhantomSettings(
    slides=5, labs=5, width_px=2560, height_px=2048, pen_fraction=0.0, blur_fraction=0.0, slides_per_patient=1
)
TINY = PhantomSettings(
    slides=1, labs=1, width_px=900, height_px=700, tile_px=128, levels=3, pen_fraction=0.0, blur_fraction=0.0
)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Generated slides and where they lie."""

    path: Path
    slides: list[PhantomSlide]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    out = tmp_path_factory.mktemp("phantoms")
    return Corpus(out, write_phantoms(out, SMALL))


@pytest.fixture(scope="module")
def scene() -> Scene:
    layout = lay_out((7,), width_px=1536, height_px=1280, mpp=0.5, tissue="solid", pens=0, unsharp=True)
    sprites = library(0, 0.5)
    return Scene(
        layout=layout,
        cells=populate(layout, sprites, (7,)),
        textures=textures(0, 0.5),
        library=sprites,
        stains=stains_of(0, 0),
        scanner=scanner_of(0, 0),
        offset=(3, 5),
    )


def level_pixels(path: Path, level: int = 0) -> NDArray[np.uint8]:
    with openslide.OpenSlide(str(path)) as slide:
        region = slide.read_region((0, 0), level, slide.level_dimensions[level])
    return np.asarray(region)[..., :3]


def angle(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    cosine = float(one @ other) / math.sqrt(float(one @ one) * float(other @ other))
    return math.degrees(math.acos(min(1.0, cosine)))


def macenko(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Stain directions as Macenko et al. (ISBI 2009) find them, in float64."""
    od = -np.log((pixels.reshape(-1, 3).astype(np.float64) + 1) / 240)
    od = od[(od >= 0.15).all(axis=1)]
    _, vectors = np.linalg.eigh(np.cov(od.T))
    plane = vectors[:, [2, 1]] * np.where(vectors[:, [2, 1]].sum(axis=0) < 0, -1, 1)
    angles = np.arctan2(*(od @ plane).T[::-1])
    low, high = (plane @ [np.cos(a), np.sin(a)] for a in np.percentile(angles, [1, 99]))
    return (low, high) if low[0] > high[0] else (high, low)


def tissue_patches(pixels: NDArray[np.uint8], side: int = 256) -> Iterator[NDArray[np.uint8]]:
    for top in range(0, pixels.shape[0] - side + 1, side):
        for left in range(0, pixels.shape[1] - side + 1, side):
            patch = pixels[top : top + side, left : left + side]
            if (np.ptp(patch, axis=2) > 20).mean() > 0.5:
                yield patch


@pytest.mark.parametrize(
    ("subsampling", "tile_px", "factor", "bigtiff"),
    [("420", 128, 2, False), ("422", 256, 4, True), ("444", 1024, 2, False), ("420", 144, 4, False)],
)
def test_openslide_reads_size_levels_and_mpp(
    tmp_path: Path, subsampling: Subsampling, tile_px: int, factor: int, bigtiff: bool
) -> None:
    chosen = dataclasses.replace(
        TINY, subsampling=subsampling, tile_px=tile_px, level_factor=factor, bigtiff=bigtiff, mpp=0.25
    )
    slide = write_phantoms(tmp_path, chosen)[0]
    with openslide.OpenSlide(str(tmp_path / slide.slide)) as opened:
        properties = opened.properties
        assert properties["openslide.vendor"] == "generic-tiff"
        assert float(properties["openslide.mpp-x"]) == pytest.approx(0.25)
        assert float(properties["openslide.mpp-y"]) == pytest.approx(0.25)
        assert properties["openslide.level[0].tile-width"] == str(tile_px)
        assert opened.level_dimensions == tuple((900 // factor**k, 700 // factor**k) for k in range(3))
    with tifffile.TiffFile(tmp_path / slide.slide) as file:
        assert file.is_bigtiff == bigtiff
        expected = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}[subsampling]
        pages = [page for page in file.pages if isinstance(page, tifffile.TiffPage)]
        assert [page.tags["YCbCrSubSampling"].value for page in pages] == [expected] * 3
        assert simplejpeg.decode_jpeg_header(first_tile(tmp_path / slide.slide, file))[3] == subsampling


def first_tile(path: Path, file: tifffile.TiffFile) -> bytes:
    page = file.pages.first
    start = int(page.dataoffsets[0])
    return path.read_bytes()[start : start + int(page.databytecounts[0])]


def test_pyramid_holds_the_pixels_and_their_block_means(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:531, 0:777]
    picture = np.stack([rows // 3, columns // 4, (rows + columns) // 6], axis=2).astype(np.uint8)
    pyramid = Pyramid(
        width_px=777,
        height_px=531,
        tile_px=128,
        levels=9,
        factor=2,
        subsampling="444",
        quality=98,
        mpp=0.5,
        bigtiff=False,
    )
    path = tmp_path / "slide.tiff"
    write_pyramid(path, pyramid, lambda top, bottom: picture[top:bottom])
    expected = picture
    with openslide.OpenSlide(str(path)) as slide:
        assert slide.level_dimensions == ((777, 531), (388, 265), (194, 132), (97, 66), (48, 33), (24, 16))
        for level in range(6):
            found = level_pixels(path, level)
            assert np.abs(found.astype(int) - expected).max() <= 6
            expected = block_mean(expected, 2)


@pytest.mark.parametrize("factor", [2, 4])
def test_block_mean_is_the_mean_rounded_half_up(factor: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (41, 38, 3), dtype=np.uint8)
    height, width = 41 // factor, 38 // factor
    blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    np.testing.assert_array_equal(block_mean(pixels, factor), np.floor(blocks.mean(axis=(1, 3)) + 0.5))


def test_same_settings_give_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed, workers in (("one", 0, 1), ("two", 0, 2), ("other", 1, 1)):
        textures.cache_clear()
        library.cache_clear()
        write_phantoms(tmp_path / name, dataclasses.replace(TINY, seed=seed), workers=workers)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 5
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
    slide = "lab-0/lab0-p0000-s00.tiff"
    assert (tmp_path / "one" / slide).read_bytes() != (tmp_path / "other" / slide).read_bytes()


def test_macenko_finds_the_true_stains(corpus: Corpus) -> None:
    errors = []
    for slide in corpus.slides:
        patches = list(tissue_patches(level_pixels(corpus.path / slide.slide)))
        assert len(patches) >= 5
        fitted = macenko(np.stack(patches))
        errors += [
            angle(fit, np.array(true)) for fit, true in zip(fitted, (slide.haematoxylin, slide.eosin), strict=True)
        ]
    assert np.median(errors) < 2
    assert max(errors) < 5


@given(lab=st.integers(0, 200), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_true_stains_of_every_lab_look_like_haematoxylin_and_eosin(lab: int, seed: int) -> None:
    stains, scanner = stains_of(lab, seed), scanner_of(lab, seed)
    haematoxylin = np.array(true_direction(stains.haematoxylin, [1.0, 1.5], scanner))
    eosin = np.array(true_direction(stains.eosin, [0.5, 0.8], scanner))
    assert 12 < angle(haematoxylin, eosin) < 35
    assert haematoxylin[0] > eosin[0] > 0
    assert eosin.argmax() == 1
    assert float(haematoxylin @ haematoxylin) == pytest.approx(1)


def test_true_direction_is_the_stain_itself_for_a_perfect_scanner() -> None:
    perfect = dataclasses.replace(scanner_of(0, 0), glass=(239.0,) * 3, crosstalk=0.0, tone=(0.0,) * 3)
    stain = stains_of(0, 0).haematoxylin
    assert angle(np.array(true_direction(stain, [0.8, 1.0], perfect)), np.array(stain)) < 0.4


def test_tissue_covers_what_the_truth_says_and_the_rest_is_glass(corpus: Corpus) -> None:
    for slide in corpus.slides:
        assert 0.27 <= slide.shares["tissue"] <= 0.6
        parts = sum(share for name, share in slide.shares.items() if name != "tissue")
        assert parts == pytest.approx(slide.shares["tissue"])
        pixels = level_pixels(corpus.path / slide.slide, 3)
        stained = (np.ptp(pixels, axis=2) > 25).mean()
        white = slide.shares["fat"] + slide.shares["gland"] + 0.1
        assert slide.shares["tissue"] - white < stained < slide.shares["tissue"] + 0.03
        glass = np.median(pixels[:8].reshape(-1, 3), axis=0)
        assert (glass >= 234).all()


def test_every_lab_has_every_tissue_equally_often(tmp_path: Path) -> None:
    chosen = dataclasses.replace(TINY, slides=10, labs=2, width_px=256, height_px=256)
    slides = write_phantoms(tmp_path, chosen)
    for lab in ("lab-0", "lab-1"):
        assert sorted(slide.tissue for slide in slides if slide.lab == lab) == sorted(TISSUES)
    assert len({slide.patient_id for slide in slides}) == 6


def test_manifest_table_and_truth_describe_the_files(corpus: Corpus) -> None:
    manifest = load_manifest(corpus.path / "data_manifest.yaml")
    assert [cohort.name for cohort in manifest.cohorts] == [f"lab-{lab}" for lab in range(5)]
    matched = {path for cohort in manifest.cohorts for glob in cohort.slides for path in corpus.path.glob(glob)}
    assert matched == {corpus.path / slide.slide for slide in corpus.slides}
    with (corpus.path / "slides.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["slide"], row["patient_id"], row["tissue"]) for row in rows] == [
        (slide.slide, slide.patient_id, slide.tissue) for slide in corpus.slides
    ]
    truth = json.loads((corpus.path / "truth.json").read_text(encoding="utf-8"))
    for said, slide in zip(truth["slides"], corpus.slides, strict=True):
        assert said["eosin"] == pytest.approx(slide.eosin, abs=1e-6)
        assert said["scanner"] == slide.scanner


def test_truth_says_what_lies_where(corpus: Corpus) -> None:
    truth = json.loads((corpus.path / "truth.json").read_text(encoding="utf-8"))
    assert truth["cell_px"] == 8
    for slide in corpus.slides:
        with Image.open((corpus.path / "truth" / Path(slide.slide).name).with_suffix(".png")) as picture:
            cells = np.asarray(picture)
        pixels = level_pixels(corpus.path / slide.slide).astype(int)
        shares = {name: (cells == number).mean() for number, name in enumerate(truth["compartments"], 1)}
        assert shares == pytest.approx({name: slide.shares[name] for name in shares})
        of_pixels = np.kron(cells, np.ones((8, 8), np.uint8))[: pixels.shape[0], : pixels.shape[1]]
        glass, stroma = (np.ptp(pixels[of_pixels == number], axis=1) for number in (0, 6))
        assert truth["compartments"][5] == "stroma"
        assert glass.mean() < 10 < 25 < stroma.mean()


def test_missing_mpp_leaves_no_resolution_in_the_file(tmp_path: Path) -> None:
    slide = write_phantoms(tmp_path, dataclasses.replace(TINY, missing_mpp_fraction=1.0))[0]
    assert slide.missing_mpp
    with openslide.OpenSlide(str(tmp_path / slide.slide)) as opened:
        assert "openslide.mpp-x" not in opened.properties
        assert "tiff.XResolution" not in opened.properties


def test_truncated_slide_lacks_its_end(tmp_path: Path) -> None:
    slide = write_phantoms(tmp_path, dataclasses.replace(TINY, truncated_fraction=1.0))[0]
    assert slide.truncated
    with pytest.raises(openslide.OpenSlideError, match="Short read"):
        openslide.OpenSlide(str(tmp_path / slide.slide))


def test_pen_marks_are_the_only_change_they_make(tmp_path: Path) -> None:
    plain, marked = (
        level_pixels(
            tmp_path
            / name
            / write_phantoms(tmp_path / name, dataclasses.replace(TINY, height_px=1400, pen_fraction=share))[0].slide
        ).astype(int)
        for name, share in (("plain", 0.0), ("marked", 1.0))
    )
    darker = (plain - marked).max(axis=2) > 60
    unchanged = (np.abs(plain - marked).max(axis=2) <= 8).mean()
    assert darker.mean() > 0.005
    assert unchanged > 0.2
    ink = marked[darker]
    assert (ink[:, 1] > ink[:, 0]).mean() > 0.95


def test_out_of_focus_slide_is_less_sharp(tmp_path: Path) -> None:
    roughness = []
    for share in (0.0, 1.0):
        chosen = dataclasses.replace(TINY, width_px=1600, height_px=1400, blur_fraction=share)
        slide = write_phantoms(tmp_path / str(share), chosen)[0]
        green = level_pixels(tmp_path / str(share) / slide.slide)[..., 1].astype(float)
        roughness.append(ndimage.laplace(green).var())
    assert roughness[1] < 0.95 * roughness[0]


def test_blocks_join_without_seams(scene: Scene) -> None:
    whole = paint(scene, 256, 128, 256, 384)
    halves = [paint(scene, 256, 128, 256, 128), paint(scene, 256, 256, 256, 256)]
    assert np.ptp(whole) > 100
    np.testing.assert_array_equal(np.concatenate(halves, axis=1), whole)


def test_nuclei_are_bluer_and_darker_than_what_surrounds_them(scene: Scene) -> None:
    image = paint(scene, 0, 0, 1280, 1536)
    nuclei = scene.cells.nuclei
    inside = (nuclei.rows > 0) & (nuclei.rows < 1280) & (nuclei.columns > 0) & (nuclei.columns < 1536)
    at_nuclei = image[nuclei.rows[inside], nuclei.columns[inside]].astype(int)
    tissue = image[np.ptp(image, axis=2) > 25].astype(int)
    assert inside.sum() > 500
    assert np.median(at_nuclei[:, 0]) < np.median(tissue[:, 0]) - 25
    assert (at_nuclei[:, 2] > at_nuclei[:, 0]).mean() > 0.85


@pytest.mark.parametrize(
    "wrong",
    [
        {"slides": 0},
        {"labs": 0},
        {"seed": -1},
        {"width_px": 100},
        {"mpp": 0.0},
        {"tile_px": 200},
        {"tile_px": 2048},
        {"levels": 0},
        {"level_factor": 3},
        {"subsampling": "411"},
        {"slides_per_patient": 0},
        {"pen_fraction": 1.5},
    ],
)
def test_impossible_settings_are_refused_with_a_sentence(wrong: dict[str, int | float | str]) -> None:
    with pytest.raises(ManifestError, match=r"^The slide generator .*\.$"):
        PhantomSettings(**wrong)  # type: ignore[arg-type]


def test_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ManifestError, match="cannot be written"):
        write_phantoms(tmp_path / "file" / "below", TINY)


@given(turn=st.floats(-3, 3))
def test_unit_vector_is_cosine_and_sine(turn: float) -> None:
    expected = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    assert unit_vector(turn) == pytest.approx(expected, abs=1e-12)


def test_transmission_table_is_the_exponential() -> None:
    expected = np.exp(-np.arange(512 * 8 + 1) / 512)
    np.testing.assert_allclose(transmission_table(), expected, rtol=1e-6)


def test_bilinear_interpolation_agrees_with_scipy() -> None:
    field = np.random.default_rng(1).random((13, 17)).astype(np.float32)
    rows, columns = np.linspace(-1, 13, 40), np.linspace(-2, 18, 50)
    grid = np.meshgrid(rows, columns, indexing="ij")
    expected = ndimage.map_coordinates(field, grid, order=1, mode="nearest")
    np.testing.assert_allclose(bilinear(field, rows, columns), expected, atol=1e-5)
    points = bilinear_at(field, grid[0].ravel(), grid[1].ravel())
    np.testing.assert_allclose(points, expected.ravel(), atol=1e-5)


def test_ranked_field_cuts_off_exact_shares() -> None:
    field = ranked(cloud(generator(3), (64, 50), 9))
    for share in (0.1, 0.37, 0.9):
        assert (field < share).mean() == pytest.approx(share, abs=1 / field.size + 1e-6)
