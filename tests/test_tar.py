"""Our tars are plain USTAR, byte for byte what other writers make, and every reader takes them."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exaone_prep.shards.tar import BLOCK_BYTES, TarWriter, header

Members = list[tuple[str, bytes]]

names = st.text("abcXYZ0189-_.", min_size=1, max_size=100).filter(lambda name: name.strip(".") != "")
sizes = st.one_of(st.integers(0, 2000), st.sampled_from([511, 512, 513, 1024, 1536]))
members = st.lists(
    st.tuples(names, sizes.map(lambda size: bytes(i * 7 % 256 for i in range(size)))),
    max_size=8,
    unique_by=lambda member: member[0],
)

DEVICE = slice(329, 345)
"""Major and minor of a device: meaningless for files; GNU tar writes zeros as digits there, tarfile as bytes."""

CHECKSUM = slice(148, 156)


def archive_of(some: Members) -> tuple[bytes, list[int], TarWriter, str]:
    """The bytes of an archive, where the data of each member begins, the writer, and the checksum it gives."""
    sink = io.BytesIO()
    writer = TarWriter(sink)
    offsets = [writer.add(name, data) for name, data in some]
    sha256 = writer.close()
    return sink.getvalue(), offsets, writer, sha256


@given(members)
def test_members_come_back_through_tarfile(some: Members) -> None:
    data, _, _, _ = archive_of(some)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        found = archive.getmembers()
        assert [(m.name, archive.extractfile(m).read()) for m in found] == some  # type: ignore[union-attr]
    for member in found:
        assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
        assert (member.uname, member.gname) == ("exaone", "exaone")
        assert member.isreg()


@given(members)
def test_offsets_point_at_the_data_and_size_and_checksum_are_those_of_the_bytes(some: Members) -> None:
    data, offsets, writer, sha256 = archive_of(some)
    for (_, content), offset in zip(some, offsets, strict=True):
        assert data[offset : offset + len(content)] == content
        assert offset % BLOCK_BYTES == 0
    assert writer.size_bytes == len(data)
    assert len(data) % BLOCK_BYTES == 0
    assert data.endswith(b"\0" * 2 * BLOCK_BYTES)
    assert sha256 == hashlib.sha256(data).hexdigest()


@given(members)
def test_members_added_together_lie_as_if_added_one_by_one(some: Members) -> None:
    sink = io.BytesIO()
    writer = TarWriter(sink)
    half = len(some) // 2
    offsets = writer.add_all(some[:half]) + writer.add_all(some[half:])
    sha256 = writer.close()
    data, expected, _, checksum = archive_of(some)
    assert (sink.getvalue(), offsets, sha256) == (data, expected, checksum)


@given(names, st.one_of(st.integers(0, 10**6), st.sampled_from([2**20, 2**32, 8**11 - 1])))
def test_a_header_is_what_tarfile_writes(name: str, size_bytes: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uname, info.gname = size_bytes, 0o644, "exaone", "exaone"
    theirs = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    ours = bytearray(header(name, size_bytes))
    difference = sum(ours[DEVICE]) - sum(theirs[DEVICE])
    assert int(ours[CHECKSUM].split(b"\0")[0], 8) - int(theirs[CHECKSUM].split(b"\0")[0], 8) == difference
    for field in (DEVICE, CHECKSUM):
        ours[field] = theirs[field] = b""
    assert len(ours) == BLOCK_BYTES - 24
    assert ours == theirs


def test_an_archive_is_byte_for_byte_what_gnu_tar_writes(tmp_path: Path) -> None:
    some = [("a.jpg", b"x" * 700), ("b" * 96 + ".jpg", b""), ("slide-12-0.json", b"{}"), ("d.jpg", b"y" * 1024)]
    files = tmp_path / "files"
    files.mkdir()
    for name, data in some:
        (files / name).write_bytes(data)
        (files / name).chmod(0o644)
    options = ["--format=ustar", "--owner=exaone:0", "--group=exaone:0", "--mtime=@0", "--blocking-factor=1"]
    subprocess.run(["tar", "cf", tmp_path / "gnu.tar", *options, "-C", files, *(n for n, _ in some)], check=True)
    assert archive_of(some)[0] == (tmp_path / "gnu.tar").read_bytes()


def test_gnu_tar_lists_and_extracts_without_a_warning(tmp_path: Path) -> None:
    some = [("a" * 100, b"1" * 513), ("slide-0-256.jpg", bytes(range(256))), ("slide-0-256.json", b"{}")]
    (tmp_path / "ours.tar").write_bytes(archive_of(some)[0])
    listed = subprocess.run(["tar", "tf", tmp_path / "ours.tar"], check=True, capture_output=True, text=True)
    assert listed.stderr == ""
    assert listed.stdout.splitlines() == [name for name, _ in some]
    out = tmp_path / "out"
    out.mkdir()
    extracted = subprocess.run(["tar", "xf", tmp_path / "ours.tar", "-C", out], check=True, capture_output=True)
    assert extracted.stderr == b""
    assert {(path.name, path.read_bytes()) for path in out.iterdir()} == set(some)


@pytest.mark.parametrize(("name", "size_bytes"), [("", 1), ("n" * 101, 1), ("a", 8**11), ("a", -1), ("schnitt-ü", 1)])
def test_what_a_plain_header_cannot_hold_is_refused(name: str, size_bytes: int) -> None:
    with pytest.raises(ValueError, match=r"member|ascii"):
        header(name, size_bytes)


def test_the_same_members_give_the_same_bytes_whenever_they_are_written() -> None:
    some = [("a.jpg", b"abc"), ("a.json", b"{}")]
    assert archive_of(some)[0] == archive_of(some)[0]
    assert (
        hashlib.sha256(archive_of(some)[0]).hexdigest()
        == "a6ec2317c7b98b63bca3f70aaa05ffeccd7ccef5c49b775e63be36123f91dfd9"
    )
