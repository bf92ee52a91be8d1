"""Slides that are damaged, unreachable, or none at all: three things that are kept apart."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile

from exaone_prep.errors import PrepError, SlideProblemError, UnreachableError
from exaone_prep.slides import SlideReader, UnreadableRegionError, open_slide
from tests.realdata import CMU, CMU_DICOM, needs_real_data
from tests.slidefiles import gradients, jpeg_slide


def opened(path: Path) -> SlideReader:
    return open_slide(path, ("openslide",))


def damaged(path: Path) -> None:
    """A slide whose tile at (64, 64) is no JPEG any more."""
    offset, length = jpeg_slide(path, gradients())[7]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\x00" * length)


def test_a_damaged_tile_costs_its_region_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "damaged.tif"
    jpeg_slide(tmp_path / "sound.tif", gradients())
    damaged(path)
    reader, sound = opened(path), opened(tmp_path / "sound.tif")
    for _ in range(2):
        with pytest.raises(UnreadableRegionError, match="damaged there"):
            reader.read(0, 70, 70, 16, 16)
        for x, y in ((0, 0), (128, 64), (64, 128), (320, 256)):
            np.testing.assert_array_equal(reader.read(0, x, y, 64, 64), sound.read(0, x, y, 64, 64))
    reader.close()
    sound.close()


def test_a_read_that_fails_because_the_file_is_gone_is_not_the_slides_fault(tmp_path: Path) -> None:
    path = tmp_path / "damaged.tif"
    damaged(path)
    reader = opened(path)
    path.unlink()
    with pytest.raises(UnreachableError):
        reader.read(0, 70, 70, 16, 16)
    with pytest.raises(UnreachableError):
        reader.read(0, 0, 0, 16, 16)
    damaged(path)
    assert reader.read(0, 0, 0, 16, 16).shape == (16, 16, 3)
    reader.close()


def test_a_read_that_fails_once_is_tried_again_on_a_new_handle(tmp_path: Path) -> None:
    path = tmp_path / "mended.tif"
    damaged(path)
    reader = opened(path)
    shutil.copy(path, tmp_path / "other.tif")
    jpeg_slide(tmp_path / "other.tif", gradients())
    (tmp_path / "other.tif").replace(path)
    # The open handle still holds the damaged file; a new one finds the sound one.
    sound = opened(path)
    np.testing.assert_array_equal(reader.read(0, 64, 64, 64, 64), sound.read(0, 64, 64, 64, 64))
    reader.close()
    sound.close()


def test_a_closed_reader_opens_again_when_it_is_read(tmp_path: Path) -> None:
    jpeg_slide(tmp_path / "slide.tif", gradients())
    reader = opened(tmp_path / "slide.tif")
    before = reader.read(0, 10, 10, 20, 20)
    reader.close()
    reader.close()
    np.testing.assert_array_equal(reader.read(0, 10, 10, 20, 20), before)
    reader.close()


def a_truncated_svs(path: Path) -> None:
    path.write_bytes(CMU.read_bytes()[:900_000])


def a_tiff_of_unknown_compression(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), tile=(32, 32), photometric="rgb", compression="jpegxl")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b""), "empty_file"),
        (lambda path: path.write_text("not a slide\n" * 100), "not_a_slide"),
        (lambda path: path.mkdir(), "not_a_slide"),
        (os.mkfifo, "not_a_file"),
        pytest.param(a_truncated_svs, "not_a_slide", marks=needs_real_data),
        (a_tiff_of_unknown_compression, "unreadable"),
    ],
    ids=["empty", "text", "folder", "pipe", "truncated", "unknown-compression"],
)
def test_what_cannot_become_a_slide_is_refused_with_a_reason(
    tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    path = tmp_path / "jane-doe.svs"
    make(path)
    with pytest.raises(SlideProblemError) as raised:
        opened(path)
    assert raised.value.reason == reason
    assert_one_nameless_sentence(raised.value, path)


def assert_one_nameless_sentence(error: PrepError, path: Path) -> None:
    """File names are often patients' names: the caller adds what may be shown."""
    sentence = str(error)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert path.stem not in sentence
    assert str(path.parent) not in sentence


def test_a_missing_slide_is_unreachable(tmp_path: Path) -> None:
    path = tmp_path / "jane-doe.svs"
    with pytest.raises(UnreachableError, match="No such file") as raised:
        opened(path)
    assert_one_nameless_sentence(raised.value, path)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything, so become someone who may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that others may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_a_slide_one_may_not_read_is_unreachable(public_folder: Path) -> None:
    path = public_folder / "slide.tif"
    jpeg_slide(path, gradients())
    path.chmod(0)
    with as_nobody(), pytest.raises(UnreachableError, match="denied"):
        opened(path)


def test_a_folder_one_may_not_list_is_unreachable(public_folder: Path) -> None:
    folder = public_folder / "series"
    folder.mkdir(mode=0)
    with as_nobody(), pytest.raises(UnreachableError, match="denied"):
        opened(folder)


def test_a_read_that_fails_with_the_storage_is_not_the_slides_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "damaged.tif"
    damaged(path)

    def failing(*arguments: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    reader = opened(path)
    monkeypatch.setattr(os, "pread", failing)
    with pytest.raises(UnreachableError, match="Input/output error"):
        reader.read(0, 70, 70, 16, 16)
    reader.close()


@pytest.fixture
def series(public_folder: Path) -> Path:
    for file in CMU_DICOM.iterdir():
        shutil.copyfile(file, public_folder / file.name)
    return public_folder


@needs_real_data
@pytest.mark.parametrize("opened_by", ["", "level-1-frames-0-9.dcm"])
def test_a_dicom_series_is_never_opened_without_a_file_one_may_not_read(series: Path, opened_by: str) -> None:
    (series / "level-0-frames-0-30.dcm").chmod(0)
    with as_nobody(), pytest.raises(UnreachableError, match="denied"):
        opened(series / opened_by)


@needs_real_data
def test_a_dicom_series_that_opens_again_without_a_level_is_not_read(series: Path, tmp_path: Path) -> None:
    reader = opened(series / "level-1-frames-0-9.dcm")
    reader.close()
    shutil.move(series / "level-0-frames-0-30.dcm", tmp_path / "elsewhere")
    with pytest.raises(UnreachableError, match="no longer opens as it was"):
        reader.read(0, 0, 0, 16, 16)
    shutil.move(tmp_path / "elsewhere", series / "level-0-frames-0-30.dcm")
    assert reader.read(0, 0, 0, 16, 16).shape == (16, 16, 3)
    reader.close()
