"""MSI in colorectal and gastric cancer: tumour patches of TCGA (Kather et al., Nat. Med. 2019; Zenodo 2530835)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exaone_train.errors import ProbeError
from exaone_train.probe.leak import patient_of
from exaone_train.probe.task import Files, Split, Task, count_remark, hold_out, listed

CLASSES = ("MSS", "MSIMUT")


@dataclass(frozen=True, kw_only=True)
class Organ:
    """One of the two tasks.

    Attributes:
        key: Of the task.
        title: As in the published table.
        prefix: Of the release's folders.
        total: Pictures in the release.
    """

    key: str
    title: str
    prefix: str
    total: int


CRC = Organ(key="msi_crc", title="MSI CRC", prefix="CRC_DX", total=192_312)
STAD = Organ(key="msi_stad", title="MSI STAD", prefix="STAD", total=218_578)


def msi_crc(folder: Path, seed: int = 0) -> Task:
    """The colorectal task; see `msi`."""
    return msi(folder, CRC, seed)


def msi_stad(folder: Path, seed: int = 0) -> Task:
    """The gastric task; see `msi`."""
    return msi(folder, STAD, seed)


def msi(folder: Path, organ: Organ, seed: int) -> Task:
    """The task as its release lies on disk: `<prefix>_<TRAIN|TEST>_<MSS|MSIMUT>/`, as its zips are called.

    Each zip holds a folder of the class's name, so that pictures are at `CRC_DX_TRAIN_MSS/MSS/…png`, or, unpacked into
    one folder per split, at `CRC_DX_TRAIN/MSS/…png`; without the inner folder is fine too. File names hold the TCGA
    barcode. The release keeps patients apart between training and test; a fifth of the training patients is held out
    for validation by the seed. Patches are labelled by their patient, so that single ones may well look otherwise.

    Raises:
        ProbeError: A folder is missing, or a picture's name has no barcode.
    """
    train, test = (_split(folder, organ, part) for part in ("TRAIN", "TEST"))
    kept, validation = hold_out(train, seed)
    return Task(
        key=organ.key,
        title=organ.title,
        classes=CLASSES,
        train=kept,
        validation=validation,
        test=test,
        unit="patient",
        tcga=True,
        remarks=count_remark(organ.title, "train and test", len(train) + len(test), organ.total),
    )


def _split(folder: Path, organ: Organ, part: str) -> Split:
    paths: list[Path] = []
    labels: list[int] = []
    for number, kind in enumerate(CLASSES):
        name = f"{organ.prefix}_{part}"
        places = [folder / f"{name}_{kind}" / kind, folder / name / kind, folder / f"{name}_{kind}"]
        place = next((place for place in places if place.is_dir()), None)
        if place is None:
            raise ProbeError(f"{organ.title} needs the folder {places[0]}, which is not there.")
        own = listed(place, (".png", ".jpg", ".tif"))
        paths += own
        labels += [number] * len(own)
    patients = [patient_of(path.name) for path in paths]
    if None in patients:
        raise ProbeError(f"The picture {paths[patients.index(None)]} has no TCGA barcode in its name.")
    return Split(
        images=Files(tuple(paths)),
        labels=np.array(labels, dtype=np.int64),
        groups=np.array(patients, dtype=np.str_),
    )
