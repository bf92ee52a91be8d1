"""`exaone-prep pause` and `exaone-prep resume`."""

from __future__ import annotations

import sys

from exaone_prep import control
from exaone_prep.dataset import open_dataset
from exaone_prep.errors import DatasetError
from exaone_prep.publish import read_build


def pause_command(url: str) -> None:
    """Ask builders to wait, and say how to go on.

    Raises:
        DatasetError: There is no data set, or nothing left to build.
    """
    storage = open_dataset(url).storage
    if read_build(storage) is not None:
        raise DatasetError(f"{storage.url} is complete: there is nothing to pause.")
    control.pause(storage)
    sys.stdout.write(f"paused: builders finish their group and wait. Go on with: exaone-prep resume {storage.url}\n")


def resume_command(url: str) -> None:
    """Let builders go on.

    Raises:
        DatasetError: There is no data set.
    """
    storage = open_dataset(url).storage
    was_paused = control.is_paused(storage)
    control.resume(storage)
    sys.stdout.write("resumed: builders go on within seconds\n" if was_paused else "it was not paused\n")
