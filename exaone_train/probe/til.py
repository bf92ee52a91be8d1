"""TIL detection: 100×100 patches of 23 cancers of TCGA with or without lymphocytes (Abousamra et al. 2022)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from exaone_train.errors import ProbeError
from exaone_train.probe.leak import patient_of
from exaone_train.probe.task import Files, Split, Task, count_remark, shared

TITLE = "TIL Det."
CLASSES = ("til-negative", "til-positive")
TOTAL = 304_097
TABLE = "images-tcga-tils-metadata.csv"
COLUMNS = ("partition", "study", "barcode", "label", "path")
PARTITIONS = ("train", "val", "test")


def til(folder: Path, seed: int = 0) -> Task:  # noqa: ARG001
    """The task as its release lies on disk (Zenodo 6604094, `TCGA-TILs.tar.gz`), with its own three partitions.

    `images-tcga-tils-metadata.csv` names each picture's partition, study, barcode, label and path; pictures are below
    `images-tcga-tils/`. Where the table lists pictures of a study `pancancer` beside those of single ones, these alone
    are taken, so that none counts twice.

    Raises:
        ProbeError: The table or a picture is missing, or it holds another label.
    """
    root = folder if (folder / TABLE).is_file() else folder / "TCGA-TILs"
    table = root / TABLE
    if not table.is_file():
        raise ProbeError(f"{TITLE} needs {folder / TABLE}, which is not there.")
    with table.open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or any(column not in rows[0] for column in COLUMNS):
        raise ProbeError(f"{table} has not the columns {', '.join(COLUMNS)}.")
    if any(row["study"] == "pancancer" for row in rows):
        rows = [row for row in rows if row["study"] == "pancancer"]
    if strange := [row for row in rows if row["label"] not in CLASSES]:
        raise ProbeError(f"{table} has the label {strange[0]['label']!r}, not {' or '.join(CLASSES)}.")
    splits = [_split(root, [row for row in rows if row["partition"] == name]) for name in PARTITIONS]
    found = sum(map(len, splits))
    both = sorted({*shared(splits[0], splits[2]), *shared(splits[1], splits[2])})
    notes = (
        (f"{TITLE}: {len(both):,} patients are in the release's test and in its training or validation part.",)
        if both
        else ()
    )
    return Task(
        key="til",
        title=TITLE,
        classes=CLASSES,
        train=splits[0],
        validation=splits[1],
        test=splits[2],
        unit="patient",
        tcga=True,
        remarks=count_remark(TITLE, "all parts", found, TOTAL),
        notes=notes,
        shares_groups=True,
    )


def _split(root: Path, rows: list[dict[str, str]]) -> Split:
    paths = tuple(root / row["path"] for row in rows)
    if missing := [path for path in paths if not path.is_file()]:
        raise ProbeError(f"{TITLE} lacks {len(missing):,} pictures, such as {missing[0]}.")
    return Split(
        images=Files(paths),
        labels=np.array([CLASSES.index(row["label"]) for row in rows], dtype=np.int64),
        groups=np.array([patient_of(row["barcode"]) or row["barcode"] for row in rows], dtype=np.str_),
    )
