"""Generated slides, and which tissue each patch shows by their truth."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from exaone_prep.phantom import PhantomSettings, write_phantoms
from reproduction.design import LABS, ReproductionError, Size

_LEVELS = 3
"""The smallest is the one that is read: 0.5 µm/px, reduced to a quarter."""


def write_slides(folder: Path, size: Size, workers: int) -> None:
    """Generate the slides of a size, unless they are there; without ink or blur, which are no question here.

    Raises:
        ReproductionError: Others are there.
    """
    settings = PhantomSettings(
        slides=size.slides,
        labs=LABS,
        seed=size.corpus_seed,
        levels=_LEVELS,
        slides_per_patient=1,
        pen_fraction=0,
        blur_fraction=0,
    )
    written = folder / "truth.json"
    if not written.exists():
        write_phantoms(folder, settings, workers=workers)
    elif json.loads(written.read_text(encoding="utf-8"))["settings"] != asdict(settings):
        raise ReproductionError(f"{folder} holds slides of other settings: give another folder to work in.")


@dataclass(frozen=True)
class Truth:
    """What lies where on generated slides.

    Attributes:
        folder: Of the slides.
        mpp: µm per pixel of level 0.
        cell_px: Side of a cell of the maps in level-0 px.
        compartments: Names of the numbers in the maps, from 1 on.
        labs: By slide.
    """

    folder: Path
    mpp: float
    cell_px: int
    compartments: tuple[str, ...]
    labs: dict[str, str]

    def tissue(self, slide_id: str, x: int, y: int, side_px: int) -> str:
        """The compartment that most of a square belongs to, or what comes first of those equally large.

        Args:
            slide_id: The slide.
            x: Left side in level-0 px.
            y: Upper side in level-0 px.
            side_px: In level-0 px.
        """
        cells = _map(self.folder / "truth" / f"{slide_id}.png")
        left, top, side = (round(value / self.cell_px) for value in (x, y, side_px))
        found = np.bincount(cells[top : top + side, left : left + side].ravel(), minlength=len(self.compartments) + 1)
        return self.compartments[int(found[1:].argmax())]


def read_truth(folder: Path) -> Truth:
    """The truth that lies beside generated slides."""
    written = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    labs = {Path(slide["slide"]).stem: slide["lab"] for slide in written["slides"]}
    return Truth(folder, written["settings"]["mpp"], written["cell_px"], tuple(written["compartments"]), labs)


@lru_cache(maxsize=64)
def _map(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture)
