"""Small downstream data sets that lie on disk as the real releases do, and encoders that need no training."""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Rgb = NDArray[np.uint8]
Floats = NDArray[np.float32]


def picture(kind: int, seed: int, side_px: int = 32) -> Rgb:
    """A picture whose class is its hue, with noise: side×side×3."""
    random = np.random.default_rng((kind, seed))
    colour = np.array([[200, 120, 160], [110, 90, 170], [230, 225, 235], [150, 60, 90]])[kind % 4]
    brightness = 1 - 0.2 * (kind // 4)
    noisy = colour * brightness + random.normal(0, 12, (side_px, side_px, 3))
    pixels: Rgb = noisy.clip(0, 255).astype(np.uint8)
    return pixels


def save(path: Path, pixels: Rgb) -> Path:
    """Write a picture, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_mhist(folder: Path, train: int = 20, test: int = 10) -> Path:
    """`annotations.csv` and `images/`, as the release."""
    header = ["Image Name", "Majority Vote Label", "Number of Annotators who Selected SSA (Out of 7)", "Partition"]
    rows = []
    for number in range(train + test):
        kind = number % 2
        name = f"MHIST_{number:03}.png"
        save(folder / "images" / name, picture(kind, number))
        rows.append([name, ("HP", "SSA")[kind], 6 if kind else 1, "train" if number < train else "test"])
    with (folder / "annotations.csv").open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows([header, *rows])
    return folder


def write_crc100k(folder: Path, train: int = 10, test: int = 3, name: str = "NCT-CRC-HE-100K") -> Path:
    """A folder per class in either part, as the release."""
    for part, count in ((name, train), ("CRC-VAL-HE-7K", test)):
        for kind, tissue in enumerate(("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")):
            for number in range(count):
                letters = "".join(chr(65 + (number * 7 + place) % 26) for place in range(8))
                seed = number + (1000 if part != name else 0)
                save(folder / part / tissue / f"{tissue}-{letters}{number}.tif", picture(kind, seed))
    return folder


def write_til(folder: Path, patients: int = 6, each: int = 4) -> Path:
    """`images-tcga-tils-metadata.csv` and pictures by study, partition and label, as the release."""
    rows = [["partition", "study", "barcode", "label", "path", "md5"]]
    for patient in range(patients * 3):
        partition = ("train", "val", "test")[patient % 3]
        study = ("luad", "skcm")[patient % 2]
        barcode = f"TCGA-{patient:02}-A{patient:03}-01Z-00-DX1"
        for number in range(each):
            label = ("til-negative", "til-positive")[number % 2]
            path = f"images-tcga-tils/{study}/{partition}/{label}/{barcode}_{number}.png"
            save(folder / path, picture(number % 2, patient * 100 + number, 20))
            rows.append([partition, study, barcode, label, path, "0"])
    with (folder / "images-tcga-tils-metadata.csv").open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows(rows)
    return folder


def write_msi(folder: Path, prefix: str = "CRC_DX", layout: str = "{prefix}_{part}_{kind}/{kind}") -> Path:
    """A folder per split and class, patients told by the barcode in a file's name, as the release."""
    for part, first in (("TRAIN", 0), ("TEST", 50)):
        for number, kind in enumerate(("MSS", "MSIMUT")):
            for patient in range(first + 25 * number, first + 25 * number + 5):
                for patch in range(3):
                    name = f"blk-{patient:04}{patch}ABCDEFGH-TCGA-AA-{3500 + patient}-01Z-00-DX1.png"
                    path = folder / layout.format(prefix=prefix, part=part, kind=kind) / name
                    save(path, picture(number, patient * 10 + patch))
    return folder


@dataclass(frozen=True)
class MeanColour:
    """Mean and spread of each channel: the simplest encoder there is."""

    name: str = "mean colour"
    parameters: int = 0
    slides: int | None = 3
    provenance: Collection[str] | None = ()

    def normalise(self, images: Rgb) -> Rgb:
        """Nothing to do."""
        return images

    def embed(self, images: Rgb) -> Floats:
        """n×6."""
        scaled = images.astype(np.float32) / 255
        return np.concatenate([scaled.mean(axis=(1, 2)), scaled.std(axis=(1, 2))], axis=1)


@dataclass(frozen=True)
class RandomProjection(MeanColour):
    """A fixed random projection of a patch reduced to 8×8 px."""

    name: str = "random projection"
    parameters: int = 192 * 64

    def embed(self, images: Rgb) -> Floats:
        """n×64."""
        small = images[:, 14::28, 14::28].reshape(len(images), -1).astype(np.float32) / 255
        return (small @ np.random.default_rng(0).standard_normal((small.shape[1], 64))).astype(np.float32)


def mean_colour() -> MeanColour:
    """For `--encoder tests.downstream:mean_colour`."""
    return MeanColour()
