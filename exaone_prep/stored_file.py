"""A stored file as Python reads one: seekable, by ranges, so that of a large archive only some members travel."""

from __future__ import annotations

import io
from typing import BinaryIO, Final, cast

from exaone_prep.storage import Storage

BUFFER_BYTES: Final = 1 << 20
"""Of one request: members that lie together come with one."""


def open_stored(storage: Storage, path: str) -> BinaryIO:
    """Open a file for reading.

    Raises:
        FileNotFoundError: There is none.
    """
    size = storage.size(path)
    if size is None:
        raise FileNotFoundError(path)
    return cast(BinaryIO, io.BufferedReader(_Ranges(storage, path, size), BUFFER_BYTES))


class _Ranges(io.RawIOBase):
    def __init__(self, storage: Storage, path: str, size: int) -> None:
        self._storage, self._path, self._size, self._at = storage, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        data = self._storage.read_range(self._path, self._at, length)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
