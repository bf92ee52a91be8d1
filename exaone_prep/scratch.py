"""Local working space of one builder; what dead builders left is swept, what living ones use is not touched."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from exaone_prep.errors import PrepError

TEMPORARY: Final = Path(tempfile.gettempdir()) / "exaone-prep"
"""For what must not lie beside the shards, and for data sets that are not on this machine."""

OLD_S: Final = 24 * 3600.0
LOOK_FOR_ROOM_EVERY_S: Final = 1.0
_OWNER: Final = "owner.json"
_CLAIMED: Final = "claimed"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
NEXT_TO_NOTHING_BYTES: Final = 1 << 20


class ScratchTooSmallError(PrepError):
    """A group needs more of the scratch than the limit allows, even with nothing else there."""


class ScratchFullError(Exception):
    """There is no room now: whoever had the group's folder must give it back, wait, and begin the group anew.

    Attributes:
        free_bytes: How much must be free on the disk before that makes sense; 0 where only the limit is in the way.
    """

    def __init__(self, free_bytes: int = 0) -> None:
        super().__init__("the scratch is full")
        self.free_bytes = free_bytes


class Scratch:
    """A folder `<root>/<host>-<pid>-<token>` that goes with its builder.

    Attributes:
        root: Where builders have their folders.
        path: This builder's.
        limit_bytes: Of what all builders under the root may need together; None: what the disk holds.
    """

    def __init__(self, root: Path, limit_bytes: int | None = None) -> None:
        """Make the folder, and sweep those of dead builders.

        Args:
            root: Where builders have their folders.
            limit_bytes: See the attribute.
        """
        self.root = root
        self.limit_bytes = limit_bytes
        self._claims: dict[str, int] = {}
        sweep(root)
        host = socket.gethostname()
        self.path = root / f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        owner = {"host": host, "pid": os.getpid(), "started": _start_of(os.getpid())}
        try:
            self.path.mkdir(parents=True)
            (self.path / _OWNER).write_text(json.dumps(owner))
        except OSError:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        _remove_empty(self.path.parent)

    def claim(self, name: str, need_bytes: int) -> bool:
        """Set what something of this builder needs, if that fits beside all other needs; a lesser need always fits.

        Builders ask one after the other, and each counts with what the others claimed or, if that is more, hold.

        Args:
            name: For which it is.
            need_bytes: In place of what was claimed under this name.

        Returns:
            Whether it is granted; if not, the earlier claim stands.
        """
        if self.limit_bytes is None:
            return True
        with self._alone():
            own = sum(self._claims.values()) - self._claims.get(name, 0)
            fits = own + need_bytes + self._held_by_others() <= self.limit_bytes
            if fits or need_bytes <= self._claims.get(name, 0):
                self._set(name, need_bytes)
                return True
        return False

    def release(self, name: str) -> None:
        """Give a claim back."""
        if self.limit_bytes is not None:
            with self._alone():
                self._set(name, 0)

    def _set(self, name: str, need_bytes: int) -> None:
        self._claims[name] = need_bytes
        claimed = self.path / _CLAIMED
        # Missing on a disk without a free byte, which the next one to write will notice.
        with contextlib.suppress(OSError):
            claimed.write_text(str(sum(self._claims.values())))

    def _held_by_others(self) -> int:
        total = 0
        for folder in self.root.iterdir():
            if folder == self.path or not folder.is_dir():
                continue
            try:
                claimed = int((folder / _CLAIMED).read_text())
            except (OSError, ValueError):  # it has no limit
                claimed = 0
            total += max(claimed, used_bytes(folder))
        return total

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let builders claim one after the other."""
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # Without locks two builders may claim the same room; then the disk itself is what makes one wait.
            with contextlib.suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def free_bytes(self) -> int:
        """What the disk has left."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def is_full(self, error: OSError) -> bool:
        """Whether an error of writing here means a full disk: NumPy, for one, does not say."""
        return error.errno in _FULL or (error.errno is None and self.free_bytes() < NEXT_TO_NOTHING_BYTES)

    def alone_is_full(self, error: OSError) -> bool:
        """Whether an error of writing, here or elsewhere, comes from this disk."""
        return self.is_full(error) and self.free_bytes() < NEXT_TO_NOTHING_BYTES

    def shares_disk_with(self, folder: Path | None) -> bool:
        """Whether a local folder lies on the same file system."""
        return _share_disk(folder, self.path)

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A new, empty folder that goes with the block: its space is needed for what comes next."""
        path = self.path / name
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def open_scratch(
    root: Path,
    limit_bytes: int | None,
    data: Path | None,
    *,
    say: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> Scratch:
    """A scratch; on a full disk, if that is not the data set's, only once there is room for its first file.

    Args:
        root: Where builders have their folders.
        limit_bytes: See `Scratch`.
        data: Folder of the data set, None for a remote one.
        say: Called once, if there is anything to wait for.
        check: Asked while it waits; what it raises ends that.

    Raises:
        OSError: The folder cannot be made or written.
    """
    said = False
    while True:
        try:
            return Scratch(root, limit_bytes)
        except OSError as error:
            if error.errno not in _FULL or _share_disk(data, root):
                raise
        if not said:
            said = True
            say(f"The disk of the scratch {root} is full: waiting for room.")
        check()
        time.sleep(LOOK_FOR_ROOM_EVERY_S)


def sweep(root: Path) -> None:
    """Remove folders of builders that are dead on this host, or that are over a day old."""
    try:
        folders = [entry for entry in root.iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return
    for folder in folders:
        if _abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)
    _remove_empty(root)


def used_bytes(folder: Path) -> int:
    """What the files below a folder take on disk; what goes meanwhile does not count."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512  # noqa: PTH118 (thousands of files)
    return total


def _share_disk(data: Path | None, scratch: Path) -> bool:
    if data is None or not data.exists():
        return False
    there = next(folder for folder in (scratch, *scratch.absolute().parents) if folder.exists())
    return data.stat().st_dev == there.stat().st_dev


def _remove_empty(root: Path) -> None:
    with contextlib.suppress(OSError):  # another builder works there
        root.rmdir()


def _abandoned(folder: Path) -> bool:
    try:
        age_s = time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return False  # swept by another builder
    try:
        owner = json.loads((folder / _OWNER).read_text())
    except (FileNotFoundError, ValueError):
        return age_s > OLD_S  # just being made, or the remains of a sweep
    if owner["host"] == socket.gethostname():
        return bool(_start_of(owner["pid"]) != owner["started"])
    return age_s > OLD_S


def _start_of(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; tells a process from a later one with its number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rsplit(")", 1)[1].split()[19]
