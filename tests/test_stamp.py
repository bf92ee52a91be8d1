"""A content stamp is cheap, blind to place, and sees change."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exaone_prep.catalog import CatalogRow, check_stamp, stamp_slide
from exaone_prep.errors import SlideChangedError, UnreachableError
from tests.realdata import CMU, CMU_DICOM, needs_real_data

LARGE_BYTES = 2_000_000


def random_bytes(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def row(stamp: str, *, uri: str | None = "/slides/a.svs") -> CatalogRow:
    return CatalogRow(
        slide_id="a",
        cohort="c",
        patient_id="p",
        patient_source="slide",
        split="train",
        group=0,
        stamp=stamp,
        size_bytes=1,
        uri=uri,
        mpp_override=None,
        cohort_mpp=None,
        mpp_if_missing=None,
        allow_non_he=False,
    )


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://stamps"
    fsspec.filesystem("memory").store.clear()


def test_the_same_bytes_have_the_same_stamp_wherever_they_lie(tmp_path: Path, memory: str) -> None:
    content = random_bytes(LARGE_BYTES)
    (tmp_path / "a.svs").write_bytes(content)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "other name.tiff").write_bytes(content)
    with fsspec.open(f"{memory}/a.svs", "wb") as file:
        file.write(content)
    stamps = {
        stamp_slide(place)
        for place in (str(tmp_path / "a.svs"), str(tmp_path / "b" / "other name.tiff"), f"{memory}/a.svs")
    }
    assert len(stamps) == 1
    assert stamps.pop().size_bytes == LARGE_BYTES


@given(size=st.integers(1, 300_000), where=st.floats(0, 1, exclude_max=True))
def test_of_a_small_file_every_byte_counts(tmp_path_factory: pytest.TempPathFactory, size: int, where: float) -> None:
    size = min(size, 4 * 65_536)
    path = tmp_path_factory.mktemp("small") / "a.svs"
    content = bytearray(random_bytes(size))
    path.write_bytes(content)
    before = stamp_slide(str(path))
    content[int(where * size)] ^= 1
    path.write_bytes(content)
    assert stamp_slide(str(path)).text != before.text


@pytest.mark.parametrize("position", [0, 65_535, LARGE_BYTES - 1, LARGE_BYTES - 65_536, LARGE_BYTES // 17 * 8 + 100])
def test_a_change_in_head_tail_or_a_block_is_seen(tmp_path: Path, position: int) -> None:
    content = bytearray(random_bytes(LARGE_BYTES))
    path = tmp_path / "a.svs"
    path.write_bytes(content)
    before = stamp_slide(str(path))
    content[position] ^= 255
    path.write_bytes(content)
    assert stamp_slide(str(path)).text != before.text


@pytest.mark.parametrize(
    "header",
    [struct.pack("<2sHI", b"II", 42, 200_001), struct.pack(">2sHHHQ", b"MM", 43, 8, 0, 200_001)],
    ids=["TIFF", "BigTIFF"],
)
def test_a_rewritten_directory_is_seen_wherever_it_lies(tmp_path: Path, header: bytes) -> None:
    content = bytearray(header + random_bytes(LARGE_BYTES))
    path = tmp_path / "a.tif"
    changed = []
    for first in (header, bytes(len(header))):  # with and without a TIFF header that points there
        content[: len(header)] = first
        path.write_bytes(content)
        before = stamp_slide(str(path)).text
        content[200_001 + 1_000] ^= 255
        path.write_bytes(content)
        changed.append(stamp_slide(str(path)).text != before)
    assert changed == [True, False]


def test_a_directory_beyond_the_end_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 2**32 - 1) + random_bytes(LARGE_BYTES))
    assert stamp_slide(str(path)).text.startswith("sampled:")


def test_a_truncated_file_is_seen(tmp_path: Path) -> None:
    content = bytes(LARGE_BYTES)
    (tmp_path / "a.svs").write_bytes(content)
    (tmp_path / "b.svs").write_bytes(content[:-1])
    assert stamp_slide(str(tmp_path / "a.svs")).text != stamp_slide(str(tmp_path / "b.svs")).text


def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.svs")
    (tmp_path / "folder.svs").mkdir()
    (tmp_path / "empty.svs").touch()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.svs"))
        kinds = {name: stamp_slide(str(tmp_path / f"{name}.svs")) for name in ("pipe", "folder", "s", "empty")}
    device = stamp_slide("/dev/null")
    assert {name: stamp.text for name, stamp in kinds.items()} == {
        "pipe": "none:not_a_file",
        "folder": "none:not_a_file",
        "s": "none:not_a_file",
        "empty": "none:empty_file",
    }
    for stamp, word in ((kinds["pipe"], "pipe"), (kinds["s"], "socket"), (device, "device"), (kinds["empty"], "zero")):
        assert stamp.problem is not None
        assert word in stamp.problem[1]
        assert stamp.size_bytes == 0


def test_an_mrxs_is_stamped_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a.mrxs").write_bytes(b"index")
    (tmp_path / "a" / "Slidedat.ini").write_bytes(b"ini")
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"data")
    before = stamp_slide(str(tmp_path / "a.mrxs"))
    assert before.size_bytes == len(b"indexinidata")
    moved = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "a", moved / "b")
    shutil.copy(tmp_path / "a.mrxs", moved / "b.mrxs")
    assert stamp_slide(str(moved / "b.mrxs")) == before
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"dat4")
    assert stamp_slide(str(tmp_path / "a.mrxs")).text != before.text


def test_a_folder_of_very_many_files_is_stamped_by_all_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "a.zarr"
    folder.mkdir()
    for i in range(200):
        (folder / f"{i:03d}").write_bytes(b"chunk")
    before = stamp_slide(str(folder))
    (folder / "101").write_bytes(b"longer chunk")
    assert stamp_slide(str(folder)).text != before.text


@needs_real_data
def test_a_dicom_series_is_stamped_over_all_its_files(tmp_path: Path) -> None:
    copy = tmp_path / "series"
    shutil.copytree(CMU_DICOM, copy, copy_function=shutil.copyfile)
    copy.chmod(0o755)
    files = sorted(copy.iterdir())
    before = stamp_slide(str(files[0]))
    assert before.size_bytes == sum(file.stat().st_size for file in files)
    assert before == stamp_slide(str(sorted(CMU_DICOM.iterdir())[0]))
    files[-1].unlink()
    with pytest.raises(SlideChangedError, match="a "):
        check_stamp(row(before.text), files[0])


@needs_real_data
def test_a_real_slide_keeps_its_stamp_and_loses_it_with_one_tag(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(CMU.read_bytes())
    frozen = row(stamp_slide(str(CMU)).text)
    check_stamp(frozen, path)
    content = bytearray(path.read_bytes())
    position = content.index(b"MPP = 0.4990")
    content[position + 6 : position + 7] = b"1"
    path.write_bytes(content)
    with pytest.raises(SlideChangedError, match=r"Slide a at .* no longer has the content"):
        check_stamp(frozen, path)


def test_an_md5_of_a_table_is_believed_first_and_checked_over_the_whole_file(tmp_path: Path) -> None:
    content = bytearray(random_bytes(LARGE_BYTES))
    path = tmp_path / "a.svs"
    path.write_bytes(content)
    right = hashlib.md5(content).hexdigest()
    assert stamp_slide(str(path), md5=right).text == f"md5:{right}"
    check_stamp(row(f"md5:{right}"), path)
    content[100_000] ^= 1  # between the samples
    path.write_bytes(content)
    with pytest.raises(SlideChangedError, match="md5"):
        check_stamp(row(f"md5:{right}"), path)


def test_an_md5_is_checked_on_a_url(memory: str) -> None:
    content = random_bytes(100_000)
    with fsspec.open(f"{memory}/a.svs", "wb") as file:
        file.write(content)
    check_stamp(row(f"md5:{hashlib.md5(content).hexdigest()}"), f"{memory}/a.svs")
    with pytest.raises(SlideChangedError):
        check_stamp(row(f"md5:{'0' * 32}"), f"{memory}/a.svs")


def test_an_empty_file_that_was_filled_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    path.touch()
    check_stamp(row("none:empty_file"), path)
    path.write_bytes(b"slide")
    with pytest.raises(SlideChangedError):
        check_stamp(row("none:empty_file"), path)


@pytest.mark.parametrize("stamp", ["sampled:0", f"md5:{'0' * 32}"])
@pytest.mark.parametrize("place", ["gone.svs", "memory://stamps/gone.svs"])
def test_a_slide_that_is_gone_is_unreachable_not_changed(tmp_path: Path, place: str, stamp: str) -> None:
    where = place if "://" in place else str(tmp_path / place)
    with pytest.raises(UnreachableError, match=r"Slide a .*gone\.svs"):
        check_stamp(row(stamp), where)


def test_hashed_rows_tell_no_path(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError) as unreachable:
        check_stamp(row("sampled:0", uri=None), tmp_path / "Jane Doe.svs")
    (tmp_path / "Jane Doe.svs").write_bytes(b"x")
    with pytest.raises(SlideChangedError) as changed:
        check_stamp(row("sampled:0", uri=None), tmp_path / "Jane Doe.svs")
    for caught in (unreachable, changed):
        assert "Jane" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
