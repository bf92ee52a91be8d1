"""MHIST: hyperplastic polyps and sessile serrated adenomas (Wei et al., AIME 2021)."""

from __future__ import annotations

import csv
from itertools import chain
from pathlib import Path

import numpy as np

from exaone_train.errors import ProbeError
from exaone_train.probe.task import Files, Split, Task, count_remark, hold_out

TITLE = "MHIST"
CLASSES = ("HP", "SSA")
COUNTS = {"train": 2_175, "test": 977}
COLUMNS = ("Image Name", "Majority Vote Label", "Partition")


def mhist(folder: Path, seed: int = 0) -> Task:
    """The task as its release lies on disk: `annotations.csv` and `images/`.

    The release has no validation part: a fifth of the training pictures is held out by the seed. Patients are not told
    apart in the release.

    Raises:
        ProbeError: The table or a picture is missing, or it holds another label or partition.
    """
    table = folder / "annotations.csv"
    if not table.is_file():
        raise ProbeError(f"{TITLE} needs {table}, which is not there.")
    with table.open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or any(column not in rows[0] for column in COLUMNS):
        raise ProbeError(f"{table} has not the columns {', '.join(COLUMNS)}.")
    splits = {}
    for name in COUNTS:
        own = [row for row in rows if row["Partition"] == name]
        paths = tuple(folder / "images" / row["Image Name"] for row in own)
        if missing := [path for path in paths if not path.is_file()]:
            raise ProbeError(f"{TITLE} lacks {len(missing):,} pictures, such as {missing[0]}.")
        if strange := [row for row in own if row["Majority Vote Label"] not in CLASSES]:
            raise ProbeError(f"{table} has the label {strange[0]['Majority Vote Label']!r}, not HP or SSA.")
        labels = np.array([CLASSES.index(row["Majority Vote Label"]) for row in own], dtype=np.int64)
        splits[name] = Split(images=Files(paths), labels=labels)
    train, validation = hold_out(splits["train"], seed)
    remarks = [count_remark(TITLE, name, len(splits[name]), count) for name, count in COUNTS.items()]
    return Task(
        key="mhist",
        title=TITLE,
        classes=CLASSES,
        train=train,
        validation=validation,
        test=splits["test"],
        remarks=tuple(chain.from_iterable(remarks)),
    )
