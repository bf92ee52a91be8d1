"""`exaone-prep inspect` draws the stain of one slide beside its map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exaone_prep.stain_cloud import EOSIN, HAEMATOXYLIN
from exaone_prep.stain_picture import PATCH_PX
from tests.commandline import Ended, run_here
from tests.realdata import DATA, needs_real_data
from tests.smallslides import Rgb, small_slide, tissue_rgb, write_slide


def inspected(slide: Path, folder: Path, *more: str) -> tuple[Ended, Rgb]:
    target = folder / "stain.png"
    ended = run_here("inspect", slide, "--picture", folder / "map.png", "--stain-picture", target, *more).succeeded()
    with Image.open(target) as image:
        assert image.format == "PNG"
        return ended, np.asarray(image.convert("RGB"))


def patch_columns(page: Rgb) -> int:
    """How many columns of patches a page shows: those of four that are not blank."""
    lowest = page[570:][-PATCH_PX:]
    if len(lowest) < PATCH_PX:
        return 0
    step = (page.shape[1] - 48) // 4
    return sum(
        bool(lowest[:, 24 + column * step : 24 + column * step + 200].std(axis=(0, 1)).min() > 10)
        and not (lowest[100:, 24 + column * step :][:, :200] == 255).all()
        for column in range(4)
    )


def drawn(page: Rgb, colour: tuple[int, int, int]) -> int:
    return int((page == colour).all(axis=-1).sum())


@pytest.fixture(scope="module")
def unnamed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Path]:
    """How `inspect slides/a.tiff` with an odd reference ended, and the folder it was called in."""
    reference = "stain.reference={stain_matrix: [[.56, .90], [.72, .31], [.41, .31]], max_concentration: [1.9, 1]}"
    folder = tmp_path_factory.mktemp("unnamed")
    slide = small_slide(folder / "slides" / "a.tiff")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return run_here("inspect", slide, "--set", reference).succeeded(), folder


def test_pictures_without_a_name_have_the_slides_and_lie_where_one_is(unnamed: tuple[Ended, Path]) -> None:
    ended, folder = unnamed
    assert sorted(file.name for file in folder.glob("*.png")) == ["a-inspect.png", "a-stain.png"]
    assert "picture of the stain: a-stain.png" in ended.err


def test_the_stain_picture_shows_patches_before_after_and_split(unnamed: tuple[Ended, Path]) -> None:
    page = np.asarray(Image.open(unnamed[1] / "a-stain.png").convert("RGB"))
    assert patch_columns(page) == 4
    assert page.shape[0] > 4 * PATCH_PX


def test_the_stains_have_the_colours_of_the_reference_that_was_asked_for(unnamed: tuple[Ended, Path]) -> None:
    page = np.asarray(Image.open(unnamed[1] / "a-stain.png").convert("RGB"))
    red, green, blue = page[-PATCH_PX:-30, -24 - PATCH_PX : -24].mean(axis=(0, 1))
    assert red < min(green, blue) - 20, "this reference's eosin is cyan"


def test_where_a_build_does_not_normalise_nothing_is_shown_as_normalised(
    unnamed: tuple[Ended, Path], tmp_path: Path
) -> None:
    _, page = inspected(unnamed[1] / "slides" / "a.tiff", tmp_path, "--set", "stain.method=none")
    assert patch_columns(page) == 1
    assert drawn(page, HAEMATOXYLIN) > 300, "the stain is measured all the same"


def is_cloud_without_stages(page: Rgb) -> bool:
    """Whether arrows and a cloud are there, and nothing to the right of the patches as they are."""
    # Without the words along its borders. Arrows have colour, axes and dots have a little, a cloud has none.
    panel = page[96 + 25 : 96 + 300, 24 + 70 : 24 + 345].astype(int)
    grey = (panel.max(axis=-1) - panel.min(axis=-1) < 8) & (panel.max(axis=-1) < 225)
    return min(drawn(page, HAEMATOXYLIN), drawn(page, EOSIN), int(grey.sum())) > 40 and patch_columns(page) <= 1


def test_a_fluorescent_slide_shows_its_cloud_and_no_normalised_patch(tmp_path: Path) -> None:
    tissue = tissue_rgb(1)
    blue = np.zeros_like(tissue)
    blue[..., 2] = 255 - tissue[..., 0]
    ended, page = inspected(write_slide(tmp_path / "blue.tiff", blue), tmp_path)
    assert "the background is dark" in ended.out
    assert is_cloud_without_stages(page)


@needs_real_data
def test_a_slide_with_wrong_colours_shows_its_cloud_and_no_normalised_patch(tmp_path: Path) -> None:
    slide = sorted((DATA / "slides" / "dicom_cmu1_small_region").glob("level-0-*"))[0]
    ended, page = inspected(slide, tmp_path)
    assert "clearly negative component" in ended.out
    assert is_cloud_without_stages(page)


def test_a_slide_without_tissue_gets_no_picture_of_its_stain(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "glass.tiff", np.full((768, 1024, 3), 242, np.uint8))
    target = tmp_path / "stain.png"
    run_here("inspect", slide, "--picture", tmp_path / "map.png", "--stain-picture", target).succeeded()
    assert not target.exists()
    assert (tmp_path / "map.png").exists()
