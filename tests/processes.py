"""Processes of a test, by a mark in their environment: with all they have started, and what has lost its parent."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path
from typing import Final

MARK: Final = "EXAONE_PREP_TEST_MARK"
"""Environment variable, which children inherit."""

KINDS: Final = {
    "driver": r"exaone_prep\.cli build",
    "pool worker": r"exaone_prep\.worker import main",
    "group builder": r"exaone_prep\.cluster\.builder import main",
    "dask worker": r"-m dask worker",
    "dask scheduler": r"-m dask scheduler",
    "prefect server": r"-m prefect server start",
    "flow": r"prefect\.(flow_)?engine|_workspace_runtime_bootstrap\.py engine",
}
"""What the command line of each kind of process holds."""


def marked(mark: str) -> dict[int, str]:
    """Command lines of the living processes with a mark, by their numbers."""
    wanted, found = f"{MARK}={mark}".encode(), {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ends meanwhile
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found[int(process.name)] = _words(process)
    return found


def of_kind(mark: str, kind: str) -> list[int]:
    """Numbers of the marked processes of a kind, sorted."""
    return sorted(pid for pid, words in marked(mark).items() if re.search(KINDS[kind], words))


def children_of(pid: int, kind: str = "") -> set[int]:
    """Living processes that a process has started, by whichever of its threads; of one kind, if that is given.

    A kind tells them from what a process runs for an instant: a Dask worker, when it starts, `uname`.
    """
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z" and re.search(KINDS[kind] if kind else "", _words(process)):
                found.add(int(process.name))
    return found


def kill(pid: int) -> bool:
    """SIGKILL; whether the process was still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def kill_all(mark: str) -> None:
    """SIGKILL to all marked processes, and to those that they start meanwhile."""
    while found := marked(mark):
        for pid in found:
            kill(pid)
        time.sleep(0.1)


def _words(process: Path) -> str:
    """The command line of a process, by its folder in `/proc`."""
    return (process / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
