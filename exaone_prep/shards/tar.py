"""A writer of plain USTAR archives (POSIX.1-1988) that always writes the same bytes for the same members."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

BLOCK_BYTES: Final = 512
_NAME_BYTES: Final = 100
_LARGEST_MEMBER: Final = 8**11 - 1


def _template() -> bytes:
    fields = (
        b"\0" * _NAME_BYTES,
        b"0000644\0",  # mode
        b"0000000\0",  # uid
        b"0000000\0",  # gid
        b"\0" * 12,  # size
        b"00000000000\0",  # mtime
        b" " * 8,  # checksum, counted as blanks
        b"0",  # a regular file
        b"\0" * 100,  # link name
        b"ustar\0",
        b"00",
        b"exaone".ljust(32, b"\0"),
        b"exaone".ljust(32, b"\0"),
        b"0000000\0",
        b"0000000\0",
        b"\0" * 155,
    )
    return b"".join(fields).ljust(BLOCK_BYTES, b"\0")


_TEMPLATE: Final = _template()
_TEMPLATE_SUM: Final = sum(_TEMPLATE)
_MIDDLE: Final = _TEMPLATE[_NAME_BYTES:124]
_AFTER_SIZE: Final = _TEMPLATE[136:148]
_AFTER_SUM: Final = _TEMPLATE[156:]
_ZEROS: Final = bytes(BLOCK_BYTES)


def header(name: str, size_bytes: int) -> bytes:
    """The 512-byte header of a member.

    Raises:
        ValueError: The name is empty, longer than 100 bytes or not ASCII, or the member is over 8 GiB.
    """
    encoded = name.encode("ascii")
    if not 0 < len(encoded) <= _NAME_BYTES:
        raise ValueError(f"a member's name has 1 to {_NAME_BYTES} bytes, this one {len(encoded)}: {name!r}")
    if not 0 <= size_bytes <= _LARGEST_MEMBER:
        raise ValueError(f"a member has at most {_LARGEST_MEMBER} bytes, this one {size_bytes}")
    size = b"%011o\0" % size_bytes
    checksum = b"%06o\0 " % (_TEMPLATE_SUM + sum(encoded) + sum(size))
    return encoded.ljust(_NAME_BYTES, b"\0") + _MIDDLE + size + _AFTER_SIZE + checksum + _AFTER_SUM


class Sink(Protocol):
    """What a tar is written to."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""


class TarWriter:
    """Writes members one after the other; knows offsets, size and SHA-256 of what it wrote."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def add(self, name: str, data: bytes) -> int:
        """Append a member; returns the offset of its data in the archive."""
        return self.add_all(((name, data),))[0]

    def add_all(self, members: Sequence[tuple[str, bytes]]) -> list[int]:
        """Append members in one go; returns the offsets of their data."""
        offsets: list[int] = []
        parts: list[bytes] = []
        end = self.size_bytes
        for name, data in members:
            size = len(data)
            padding = -size % BLOCK_BYTES
            offsets.append(end + BLOCK_BYTES)
            parts += (header(name, size), data, _ZEROS[:padding])
            end += BLOCK_BYTES + size + padding
        self._write(b"".join(parts))
        return offsets

    def close(self) -> str:
        """End the archive (two zero blocks); returns its SHA-256, hex. The sink stays open."""
        self._write(b"\0" * (2 * BLOCK_BYTES))
        return self._digest.hexdigest()

    def _write(self, data: bytes) -> None:
        self._sink.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)
