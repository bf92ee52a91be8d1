"""Where a data set lies. Two verbs matter: `read`, and `put_new`, which makes a name appear whole or not at all.

Locally a file is written beside its final place, synced, and linked to its name: `os.link` fails where the name
exists, so two builders can never overwrite each other. On object stores one conditional PUT does the same
(`exaone_prep.object_storage`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from exaone_prep.checksum import sha256_of
from exaone_prep.errors import PrepError, StorageConflictError
from exaone_prep.scratch import OLD_S

READS_AT_ONCE = 16
"""Of small files; they wait for the store, not for the processor."""

_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP})


class Storage(Protocol):
    """A data set directory. Paths are relative, with forward slashes."""

    @property
    def url(self) -> str:
        """Where it is, for messages and for workers that open it again."""

    @property
    def local(self) -> Path | None:
        """The folder, if it is one on this machine's file systems."""

    def read(self, path: str) -> bytes:
        """The whole of a file; `FileNotFoundError` if there is none."""

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`."""

    def size(self, path: str) -> int | None:
        """Bytes of a file, None if there is none."""

    def sha256(self, path: str) -> str:
        """Checksum of what lies there, read back."""

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder, sorted; empty if there is no such folder."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every file in a folder, by name, from one listing; empty if there is no such folder."""

    def put_new(self, path: str, file: Path) -> bool:
        """Make the bytes of a local file appear under a new name, whole or not at all.

        Returns:
            Whether the name is new; otherwise what lies there was read back, and is equal.

        Raises:
            StorageConflictError: The name exists with other bytes. Equal bytes are fine.
        """

    def replace(self, path: str, data: bytes) -> None:
        """Write anew. Only for what no reader relies on: heartbeats, derived tables, the last verification."""

    def remove(self, path: str) -> None:
        """Take a heartbeat away; nothing happens if there is none."""


def open_storage(url: str | Path) -> Storage:
    """The data set directory at a local path or an fsspec URL."""
    text = str(url)
    scheme = urlsplit(text).scheme
    if scheme in {"", "file"}:
        return LocalStorage(Path(text.removeprefix("file://")))
    from exaone_prep.object_storage import ObjectStorage

    return ObjectStorage(text)


def read_all(storage: Storage, paths: Sequence[str]) -> Iterator[bytes]:
    """The files in their order, several on their way at a time: object stores answer late rather than slowly."""
    with ThreadPoolExecutor(max_workers=READS_AT_ONCE) as threads:
        yield from threads.map(storage.read, paths)


def put_bytes(storage: Storage, path: str, data: bytes, scratch: Path) -> None:
    """`put_new` for bytes in memory, by way of a file in `scratch`."""
    file = scratch / f"{secrets.token_hex(8)}.part"
    with file.open("xb") as stream:
        stream.write(data)
    try:
        storage.put_new(path, file)
    finally:
        file.unlink(missing_ok=True)


class LocalStorage:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100 (resolve() would follow links that users choose)
        self._swept: set[Path] = set()

    @property
    def url(self) -> str:
        return str(self.root)

    @property
    def local(self) -> Path | None:
        return self.root

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        with (self.root / path).open("rb") as stream:
            stream.seek(offset)
            return stream.read(length)

    def size(self, path: str) -> int | None:
        try:
            return (self.root / path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sha256(self, path: str) -> str:
        return sha256_of(self.root / path)

    def names(self, folder: str) -> list[str]:
        return sorted(self.sizes(folder))

    def sizes(self, folder: str) -> dict[str, int]:
        found = {}
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.root / folder) as entries:
            for entry in entries:
                # Heartbeats come and go while they are listed.
                with contextlib.suppress(FileNotFoundError):
                    if not entry.name.startswith(".") and entry.is_file():
                        found[entry.name] = entry.stat().st_size
        return found

    def put_new(self, path: str, file: Path) -> bool:
        final = self.root / path
        self._prepare(final.parent)
        _sync(file)
        new = True
        try:
            os.link(file, final)
        except FileExistsError:
            self._compare(path, final, file)
            new = False
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise PrepError(
                    f"The file system of {self.url} has no hard links, by which a name appears whole or not at all; "
                    "choose another place for the data set."
                ) from error
            if error.errno != errno.EXDEV:
                raise
            # Another file system: copy beside the final name first, so that the link is atomic.
            partial = _partial_of(final)
            try:
                shutil.copyfile(file, partial)
                _sync(partial)
                try:
                    os.link(partial, final)
                except FileExistsError:
                    self._compare(path, final, file)
                    new = False
            finally:
                partial.unlink(missing_ok=True)
        _sync(final.parent)
        return new

    def _prepare(self, folder: Path) -> None:
        """Make a folder, and once sweep what dead builders left in it."""
        _make_folders(folder)
        if folder not in self._swept:
            self._swept.add(folder)
            _sweep_partials(folder)

    def _compare(self, path: str, final: Path, file: Path) -> None:
        if final.stat().st_size != file.stat().st_size or sha256_of(final) != sha256_of(file):
            raise StorageConflictError(f"{path} exists in {self.url} with other bytes than this build makes")

    def replace(self, path: str, data: bytes) -> None:
        final = self.root / path
        self._prepare(final.parent)
        partial = _partial_of(final)
        try:
            partial.write_bytes(data)
            _sync(partial)
            partial.replace(final)
        finally:
            partial.unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)


def _make_folders(folder: Path) -> None:
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        _sync(new.parent)


def _partial_of(final: Path) -> Path:
    return final.parent / f".{final.name}.{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.partial"


def _sweep_partials(folder: Path) -> None:
    """Remove partial files of builders that are dead on this host, or that are over a day old."""
    for entry in folder.glob(".*.partial"):
        with contextlib.suppress(OSError):  # swept by another builder, or not ours to remove
            if _owner_is_dead(entry.name) or time.time() - entry.stat().st_mtime > OLD_S:
                entry.unlink()


def _owner_is_dead(partial: str) -> bool:
    named = re.search(rf"\.{re.escape(socket.gethostname())}-(\d+)-[0-9a-f]{{8}}\.partial$", partial)
    return named is not None and not Path(f"/proc/{named[1]}").exists()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
