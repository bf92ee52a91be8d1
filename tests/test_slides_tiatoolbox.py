"""The second reader: what OpenSlide cannot open, by the same contract."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from zarr.core.common import JSON

from exaone_prep.errors import ManifestError, SlideProblemError, UnreachableError
from exaone_prep.slides import UnreadableRegionError, open_slide
from tests.realdata import CMU, CMU_DICOM, TCGA, needs_real_data

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tiatoolbox") is None, reason="the extra `tiatoolbox` is not installed"
)

Rgb = NDArray[np.uint8]


@pytest.fixture(scope="module", autouse=True)
def tiatoolbox() -> None:
    """Import it once: it leaves a file open, its SWIG types have no module, and wsidicom uses deprecated names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        for module in ("tiatoolbox.wsicore.wsireader", "wsidicom"):
            importlib.import_module(module)


@pytest.fixture
def base() -> Rgb:
    return np.random.default_rng(0).integers(0, 256, (301, 401, 3), dtype=np.uint8)


def ome_pyramid(path: Path, base: Rgb, compression: str = "jpeg2000") -> tuple[Rgb, ...]:
    """An OME-TIFF with two further levels in SubIFDs, whose sizes are rounded up."""
    levels = (base, base[::2, ::2], base[::4, ::4])
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for index, level in enumerate(levels):
            tiff.write(
                level,
                subifds=2 if index == 0 else 0,
                subfiletype=int(index > 0),
                tile=(64, 64),
                photometric="rgb",
                compression=compression,
                metadata={"axes": "YXS", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25},
            )
    return levels


def test_an_ome_tiff_that_openslide_refuses_gives_every_levels_own_pixels(tmp_path: Path, base: Rgb) -> None:
    path = tmp_path / "slide.ome.tif"
    levels = ome_pyramid(path, base)
    with pytest.raises(SlideProblemError) as raised:
        open_slide(path, ("openslide",))
    assert raised.value.reason == "unreadable"

    reader = open_slide(path, ("openslide", "tiatoolbox"))
    info = reader.info
    assert (info.reader, info.vendor) == ("tiatoolbox", "ome-tiff")
    assert [(level.width_px, level.height_px, level.exact) for level in info.levels] == [
        (401, 301, True),
        (201, 151, True),
        (101, 76, True),
    ]
    assert [(claimed.x_um_per_px, claimed.y_um_per_px, claimed.source) for claimed in info.claimed_mpp] == [
        (0.25, 0.25, "vendor")
    ]
    for index, pixels in enumerate(levels):
        height, width = pixels.shape[:2]
        np.testing.assert_array_equal(reader.read(index, 0, 0, width, height), pixels)
        for x, y in ((1, 3), (37, 29), (width - 31, height - 17)):
            np.testing.assert_array_equal(reader.read(index, x, y, 31, 17), pixels[y : y + 17, x : x + 31])
    with pytest.raises(ValueError, match="outside"):
        reader.read(1, 190, 0, 31, 17)
    reader.close()
    # A closed reader opens again.
    np.testing.assert_array_equal(reader.read(2, 5, 5, 9, 9), levels[2][5:14, 5:14])
    reader.close()


def test_what_openslide_opens_stays_with_it_when_it_is_preferred(tmp_path: Path, base: Rgb) -> None:
    path = tmp_path / "slide.ome.tif"
    ome_pyramid(path, base, compression="zlib")
    first, second = open_slide(path, ("openslide", "tiatoolbox")), open_slide(path, ("tiatoolbox", "openslide"))
    assert (first.info.reader, second.info.reader) == ("openslide", "tiatoolbox")
    # OpenSlide does not see levels in SubIFDs; what both see is the same.
    assert (len(first.info.levels), len(second.info.levels)) == (1, 3)
    assert first.info.claimed_mpp[0] == second.info.claimed_mpp[0]
    np.testing.assert_array_equal(first.read(0, 11, 13, 200, 100), second.read(0, 11, 13, 200, 100))
    first.close()
    second.close()


def test_planes_of_colour_are_put_together(tmp_path: Path, base: Rgb) -> None:
    path = tmp_path / "planar.ome.tif"
    planes = np.ascontiguousarray(np.moveaxis(base, 2, 0))
    tifffile.imwrite(
        path, planes, ome=True, tile=(64, 64), photometric="rgb", planarconfig="separate", metadata={"axes": "SYX"}
    )
    reader = open_slide(path, ("tiatoolbox",))
    np.testing.assert_array_equal(reader.read(0, 20, 30, 90, 80), base[30:110, 20:110])
    assert reader.info.claimed_mpp == ()
    reader.close()


def test_an_ngff_image_is_read_by_level(tmp_path: Path, base: Rgb) -> None:
    path = tmp_path / "slide.zarr"
    levels = (base, base[::2, ::2])
    group = zarr.open_group(path, mode="w", zarr_format=2)
    for index, level in enumerate(levels):
        group.create_array(str(index), data=level, chunks=(64, 64, 3))
    axes: list[JSON] = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scale: list[JSON] = [{"type": "scale", "scale": [0.5, 0.5, 1.0]}]
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [*axes, {"name": "c", "type": "channel", "unit": None}],
            "datasets": [{"path": str(index), "coordinateTransformations": scale} for index in range(2)],
        }
    ]
    group.attrs["omero"] = {"name": "slide", "id": 1, "version": "0.4", "channels": [], "rdefs": {"model": "color"}}
    reader = open_slide(path, ("tiatoolbox",))
    assert reader.info.vendor == "ngff"
    assert [claimed.x_um_per_px for claimed in reader.info.claimed_mpp] == [0.5]
    for index, pixels in enumerate(levels):
        np.testing.assert_array_equal(reader.read(index, 33, 44, 60, 50), pixels[44:94, 33:93])
    reader.close()


def test_a_jp2_slide_is_read_by_resolution(tmp_path: Path, base: Rgb) -> None:
    glymur = importlib.import_module("glymur")
    if glymur.lib.openjp2.OPENJP2 is None:
        (tmp_path / "slide.jp2").write_bytes(b"no matter what")
        with pytest.raises(ManifestError, match="libopenjp2"):
            open_slide(tmp_path / "slide.jp2", ("tiatoolbox",))
        pytest.skip("the OpenJPEG library is not installed")
    path = tmp_path / "slide.jp2"
    image = glymur.Jp2k(path, data=base, numres=3, capture_resolution=[2e6, 2e6])
    reader = open_slide(path, ("tiatoolbox",))
    assert [claimed.x_um_per_px for claimed in reader.info.claimed_mpp] == [0.5]
    assert [level.downsample for level in reader.info.levels] == [1.0, 2.0]
    np.testing.assert_array_equal(reader.read(0, 37, 41, 60, 50), base[41:91, 37:97])
    half = image[::2, ::2]
    np.testing.assert_array_equal(reader.read(1, 201 - 31, 151 - 17, 31, 17), half[-17:, -31:])
    reader.close()


@needs_real_data
def test_both_readers_decode_real_slides_to_the_same_bytes() -> None:
    for path in (CMU, TCGA, CMU_DICOM):
        first, second = open_slide(path, ("openslide",)), open_slide(path, ("tiatoolbox",))
        np.testing.assert_array_equal(first.read(0, 700, 900, 300, 300), second.read(0, 700, 900, 300, 300))
        assert first.info.claimed_mpp == second.info.claimed_mpp
        assert first.info.icc_sha256 == second.info.icc_sha256
        first.close()
        second.close()


@needs_real_data
def test_a_level_that_openslide_cannot_address_is_exact_here() -> None:
    reader = open_slide(TCGA, ("tiatoolbox",))
    with tifffile.TiffFile(TCGA) as tiff:
        level_1 = tiff.pages[2].asarray()
    assert reader.info.levels[1].exact
    np.testing.assert_array_equal(reader.read(1, 1001, 703, 256, 256), level_1[703:959, 1001:1257])
    reader.close()


def test_a_damaged_tile_costs_its_region_and_nothing_else(tmp_path: Path, base: Rgb) -> None:
    path = tmp_path / "slide.ome.tif"
    ome_pyramid(path, base)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        offset, length = page.dataoffsets[8], page.databytecounts[8]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\x00" * length)
    reader = open_slide(path, ("tiatoolbox",))
    with pytest.raises(UnreadableRegionError, match="damaged there"):
        reader.read(0, 70, 70, 10, 10)
    np.testing.assert_array_equal(reader.read(0, 0, 0, 64, 64), base[:64, :64])
    path.unlink()
    with pytest.raises(UnreachableError):
        reader.read(0, 70, 70, 10, 10)
    reader.close()


def test_images_that_are_not_8_bit_rgb_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "fluorescence.ome.tif"
    tifffile.imwrite(path, np.zeros((5, 128, 128), np.uint16), ome=True, tile=(64, 64), metadata={"axes": "CYX"})
    with pytest.raises(SlideProblemError, match="8-bit RGB") as raised:
        open_slide(path, ("tiatoolbox",))
    assert raised.value.reason == "not_a_slide"


@pytest.mark.parametrize("name", ["notes.tif", "notes.dcm", "notes.txt", "jane-doe.png"])
def test_what_is_no_slide_is_refused_without_naming_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("not a slide\n" * 50)
    with pytest.raises(SlideProblemError) as raised:
        open_slide(path, ("openslide", "tiatoolbox"))
    assert raised.value.reason == "not_a_slide"
    assert path.stem not in str(raised.value)


def test_a_reader_that_is_not_installed_is_the_manifests_problem_not_the_slides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slide.tif"
    path.write_bytes(b"II*\x00" + bytes(100))
    for module in [name for name in sys.modules if name.split(".")[0] == "tiatoolbox"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "tiatoolbox", None)
    with pytest.raises(ManifestError, match=r"pip install 'exaone-prep\[tiatoolbox\]'"):
        open_slide(path, ("openslide", "tiatoolbox"))
