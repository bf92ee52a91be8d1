"""CRC-100K: nine tissues of colorectal cancer (Kather et al., PLoS Medicine 2019; NCT-CRC-HE-100K, CRC-VAL-HE-7K)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from exaone_train.errors import ProbeError
from exaone_train.probe.task import Files, Split, Task, count_remark, hold_out, listed

TITLE = "CRC-100K"
CLASSES = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
TRAIN, TRAIN_AS_SCANNED, TEST = "NCT-CRC-HE-100K", "NCT-CRC-HE-100K-NONORM", "CRC-VAL-HE-7K"
COUNTS = {TRAIN: 100_000, TEST: 7_180}


def crc100k(folder: Path, seed: int = 0) -> Task:
    """The task as its release lies on disk: a folder per class in `NCT-CRC-HE-100K/` and in `CRC-VAL-HE-7K/`.

    Patients of the training part are not told apart in the release; a fifth of its pictures is held out by the seed.
    Where only `NCT-CRC-HE-100K-NONORM/` is there, it is taken, and said to be.

    Raises:
        ProbeError: A folder is missing.
    """
    as_scanned = not (folder / TRAIN).is_dir() and (folder / TRAIN_AS_SCANNED).is_dir()
    train_folder = TRAIN_AS_SCANNED if as_scanned else TRAIN
    train, test = _split(folder / train_folder), _split(folder / TEST)
    remarks = count_remark(TITLE, "train", len(train), COUNTS[TRAIN]) + count_remark(
        TITLE, "test", len(test), COUNTS[TEST]
    )
    if as_scanned:
        remarks += (f"{TITLE} is trained on {TRAIN_AS_SCANNED}, whose colours are those of the scanner.",)
    kept, validation = hold_out(train, seed)
    return Task(
        key="crc100k", title=TITLE, classes=CLASSES, train=kept, validation=validation, test=test, remarks=remarks
    )


def _split(folder: Path) -> Split:
    paths: list[Path] = []
    labels: list[int] = []
    for number, kind in enumerate(CLASSES):
        if not (folder / kind).is_dir():
            raise ProbeError(f"{TITLE} needs the folder {folder / kind}, which is not there.")
        own = listed(folder / kind, (".tif", ".tiff", ".png", ".jpg"))
        paths += own
        labels += [number] * len(own)
    return Split(images=Files(tuple(paths)), labels=np.array(labels, dtype=np.int64))
