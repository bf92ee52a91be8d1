"""The tasks by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from exaone_train.errors import ProbeError
from exaone_train.probe.crc100k import crc100k
from exaone_train.probe.folder import folder_task
from exaone_train.probe.mhist import mhist
from exaone_train.probe.msi import msi_crc, msi_stad
from exaone_train.probe.pcam import pcam
from exaone_train.probe.task import Task
from exaone_train.probe.til import til

LOADERS: dict[str, Callable[[Path, int], Task]] = {
    "pcam": pcam,
    "mhist": mhist,
    "crc100k": crc100k,
    "til": til,
    "msi_crc": msi_crc,
    "msi_stad": msi_stad,
    "folder": folder_task,
}


def open_task(written: str, seed: int) -> Task:
    """A task from `TASK=FOLDER`.

    Raises:
        ProbeError: There is no such task or folder, or the data do not lie there as their release does.
    """
    key, equals, place = written.partition("=")
    if not equals or key not in LOADERS:
        raise ProbeError(f"The task {written!r} is not written as TASK=FOLDER with one of {', '.join(LOADERS)}.")
    if not Path(place).is_dir():
        raise ProbeError(f"There is no folder {place} for the task {key}.")
    return LOADERS[key](Path(place), seed)
