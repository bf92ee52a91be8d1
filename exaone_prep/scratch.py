"""Local working space of one builder; what dead builders left is swept, what living ones use is not touched."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

OLD_S: Final = 24 * 3600.0
_OWNER: Final = "owner.json"


class Scratch:
    """A folder `<root>/<host>-<pid>-<token>` that goes with its builder."""

    def __init__(self, root: Path) -> None:
        sweep(root)
        host = socket.gethostname()
        self.path = root / f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        self.path.mkdir(parents=True)
        owner = {"host": host, "pid": os.getpid(), "started": _start_of(os.getpid())}
        (self.path / _OWNER).write_text(json.dumps(owner))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        _remove_empty(self.path.parent)

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A new, empty folder that goes with the block: its space is needed for what comes next."""
        path = self.path / name
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


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
