"""Small disks that become full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, mib: int = 16) -> Iterator[Path]:
    """A file system of so many MiB at a new folder; skips the test, saying why, where none can be mounted."""
    with perhaps_mounted(folder, mib) as why_not:
        if why_not:
            pytest.skip(f"a file system cannot be mounted here: {why_not}")
        yield folder


@contextmanager
def perhaps_mounted(folder: Path, mib: int = 16) -> Iterator[str]:
    """A new folder, and there a file system of so many MiB if one can be mounted; yields why not, or nothing."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    try:
        yield done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else ""
    finally:
        if not done.returncode:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, left_bytes: int) -> Path:
    """A file that leaves so much room."""
    status = os.statvfs(disk)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(status.f_bavail * status.f_frsize - left_bytes))
    return ballast
