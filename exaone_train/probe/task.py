"""A downstream data set: labelled pictures in splits that are kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from exaone_train.errors import ProbeError

Rgb = NDArray[np.uint8]
Ints = NDArray[np.int64]
Names = NDArray[np.str_]
Unit = Literal["image", "slide", "patient"]

VALIDATION_SHARE = 0.2


class Images(Protocol):
    """Pictures that are read when they are needed."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Rgb:
        """H×W×3."""
        ...


@dataclass(frozen=True)
class Files:
    """Pictures in files of their own.

    Attributes:
        paths: By row.
    """

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Rgb:
        path = self.paths[row]
        try:
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise ProbeError(f"The picture {path} cannot be decoded.") from error


@dataclass(frozen=True)
class Chosen:
    """Some of the pictures.

    Attributes:
        images: Of them.
        rows: Which.
    """

    images: Images
    rows: Ints

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Rgb:
        return self.images[int(self.rows[row])]


@dataclass(frozen=True, kw_only=True)
class Split:
    """A part of a data set.

    Attributes:
        images: n.
        labels: n numbers of classes.
        groups: n; whose picture each is (a slide or a patient), or None where that is not known.
    """

    images: Images
    labels: Ints
    groups: Names | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, chosen: Ints) -> Split:
        """Some rows of it."""
        return Split(
            images=Chosen(self.images, chosen),
            labels=self.labels[chosen],
            groups=None if self.groups is None else self.groups[chosen],
        )


@dataclass(frozen=True, kw_only=True)
class Task:
    """A data set and how it is split.

    Attributes:
        key: Of the task: `pcam`, `mhist`, ….
        title: As in the published table.
        classes: By number.
        train: To fit on.
        validation: To choose the regularisation on.
        test: Looked at once.
        unit: What `groups` are.
        tcga: Whether its pictures come from TCGA, as much of what encoders are trained on.
        remarks: Why a figure on the data as they lie here does not compare with others, a sentence each.
        notes: What else has to be known of the release, a sentence each.
        shares_groups: Whether the release itself has groups in several parts; a note says so then.
    """

    key: str
    title: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    unit: Unit = "image"
    tcga: bool = False
    remarks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shares_groups: bool = False

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            split: Split = getattr(self, name)
            missing = [kind for number, kind in enumerate(self.classes) if not (split.labels == number).any()]
            if missing:
                raise ProbeError(f"{self.title} has no picture of {', '.join(missing)} for {name}.")
        for name in ("train", "validation"):
            both = shared(getattr(self, name), self.test)
            if both and not self.shares_groups:
                raise ProbeError(f"{self.title} has {self.unit} {both[0]} both for {name} and for test.")


def shared(one: Split, other: Split) -> list[str]:
    """Groups that two splits have in common, sorted; none where they are not known."""
    if one.groups is None or other.groups is None:
        return []
    return sorted(set(one.groups.tolist()) & set(other.groups.tolist()))


def hold_out(split: Split, seed: int, share: float = VALIDATION_SHARE) -> tuple[Split, Split]:
    """Two parts of a split: to fit on, and for validation about a share of each class, whole groups where known.

    Args:
        split: To be divided.
        seed: Of chance.
        share: Of the rows that go to validation.

    Returns:
        What stays, and what is held out.
    """
    random = np.random.default_rng(seed)
    out = np.zeros(len(split), dtype=bool)
    groups = split.groups if split.groups is not None else np.arange(len(split)).astype(np.str_)
    _, first, number = np.unique(groups, return_index=True, return_inverse=True)
    size = np.bincount(number)
    for one in np.unique(split.labels):
        own = random.permutation(np.flatnonzero(split.labels[first] == one))  # a group goes by its first picture
        if len(own) < 2:
            continue
        before = np.cumsum(size[own]) - size[own]
        chosen = own[before < share * size[own].sum()]
        out |= np.isin(number, chosen[: len(own) - 1])
    return split.rows(np.flatnonzero(~out)), split.rows(np.flatnonzero(out))


def listed(folder: Path, endings: Sequence[str]) -> tuple[Path, ...]:
    """Files of a folder with one of some endings, by name."""
    return tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in endings))


def count_remark(title: str, split: str, found: int, expected: int) -> tuple[str, ...]:
    """A sentence if a split has another number of pictures than its release."""
    if found == expected:
        return ()
    return (f"{title} has {found:,} pictures for {split}, its release {expected:,}: figures do not compare.",)
