"""Bytes of files, on disk or at a URL."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from exaone_train.errors import ShardError
from exaone_train.store import patiently, read, read_into

DATA = bytes(range(200))


@pytest.fixture(params=["path", "URL"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A file of 200 bytes."""
    if request.param == "path":
        (tmp_path / "file").write_bytes(DATA)
        yield str(tmp_path / "file")
    else:
        files = fsspec.filesystem("memory")
        files.pipe_file("/bucket/file", DATA)
        yield "memory://bucket/file"
        files.rm("/bucket", recursive=True)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited for, instead of waiting."""
    found: list[float] = []
    monkeypatch.setattr("exaone_train.store.time.sleep", found.append)
    return found


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = [error] * times

    def ask() -> str:
        if left:
            raise left.pop()
        return "answer"

    return ask


def test_a_file_is_read_whole(place: str) -> None:
    assert read(place) == DATA


@pytest.mark.parametrize(("begin", "size"), [(0, 200), (20, 30), (190, 30), (200, 5), (1000, 5)])
def test_a_range_is_read_as_far_as_the_file_goes(place: str, begin: int, size: int) -> None:
    memory = bytearray(b"x" * size)
    count = read_into(memoryview(memory), place, begin)
    assert count == len(DATA[begin : begin + size])
    assert bytes(memory[:count]) == DATA[begin : begin + size]


def test_a_file_that_is_not_there_is_told_at_once(place: str, waits: list[float]) -> None:
    with pytest.raises(FileNotFoundError):
        read(f"{place}-not")
    with pytest.raises(FileNotFoundError):
        read_into(memoryview(bytearray(5)), f"{place}-not", 3)
    assert waits == []


def test_a_fault_that_passes_is_waited_out(waits: list[float]) -> None:
    assert patiently("place", failing(3, OSError(errno.EIO, "once"))) == "answer"
    assert len(waits) == 3
    assert waits == sorted(waits)


def test_a_fault_that_lasts_is_a_sentence(waits: list[float]) -> None:
    with pytest.raises(ShardError, match=r"^place cannot be read: ConnectionError: a b\.$"):
        patiently("place", failing(9, ConnectionError("a\n b.")))
    assert len(waits) == 3


@pytest.mark.parametrize("error", [PermissionError("no"), ValueError("no"), ShardError("no"), KeyError("no")])
def test_what_waiting_cannot_mend_is_told_at_once(error: Exception, waits: list[float]) -> None:
    with pytest.raises(ShardError, match="no"):
        patiently("place", failing(1, error))
    assert waits == []
