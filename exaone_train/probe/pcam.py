"""PatchCamelyon: 96×96 patches of lymph nodes with or without metastasis (Veeling et al., MICCAI 2018)."""

from __future__ import annotations

import importlib
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from exaone_train.errors import ProbeError
from exaone_train.probe.task import Rgb, Split, Task, count_remark

TITLE = "PCAM"
CLASSES = ("normal", "tumour")
COUNTS = {"train": 262_144, "valid": 32_768, "test": 32_768}


READ_AHEAD = 256


class Hdf5Images:
    """Pictures of a data set in an HDF5 file; neighbouring ones are read together, as they are compressed."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self._first = 0
        self._block: Rgb | None = None

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, row: int) -> Rgb:
        first = row - row % READ_AHEAD
        if self._block is None or first != self._first:
            self._first, self._block = first, np.asarray(self._data[first : first + READ_AHEAD], dtype=np.uint8)
        picture: Rgb = self._block[row - first]
        return picture


def pcam(folder: Path, seed: int = 0) -> Task:  # noqa: ARG001
    """The task as its release lies on disk: `camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5`.

    The label says whether the middle 32×32 px hold tumour. Slides are not told apart in the release.

    Raises:
        ProbeError: A file is missing or none of these, or h5py is not installed.
    """
    splits = {name: _split(folder, name) for name in COUNTS}
    remarks = [count_remark(TITLE, name, len(splits[name]), count) for name, count in COUNTS.items()]
    return Task(
        key="pcam",
        title=TITLE,
        classes=CLASSES,
        train=splits["train"],
        validation=splits["valid"],
        test=splits["test"],
        remarks=tuple(chain.from_iterable(remarks)),
    )


def _split(folder: Path, name: str) -> Split:
    images, labels = (_open(folder / f"camelyonpatch_level_2_split_{name}_{part}.h5", part) for part in "xy")
    if len(images) != len(labels):
        raise ProbeError(f"{TITLE} has {len(images):,} pictures and {len(labels):,} labels for {name}.")
    return Split(images=Hdf5Images(images), labels=np.asarray(labels, dtype=np.int64).reshape(-1))


def _open(path: Path, part: str) -> Any:
    if not path.is_file():
        hint = f"; unpack {path.name}.gz" if path.with_name(f"{path.name}.gz").is_file() else ""
        raise ProbeError(f"{TITLE} needs {path}, which is not there{hint}.")
    try:
        h5py = importlib.import_module("h5py")
    except ModuleNotFoundError as error:
        raise ProbeError(f"{TITLE} comes as HDF5, which h5py reads: install it (`pip install h5py`).") from error
    try:
        return h5py.File(path, "r")[part]
    except (OSError, KeyError) as error:
        raise ProbeError(f"{path} is no HDF5 file with a data set `{part}`.") from error
