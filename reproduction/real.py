"""The same encoders on real patches: few, of four slides, and kept apart from what generated slides show."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from exaone_prep.stain import fit, normalize
from exaone_train.collapse.table import FeatureTable
from exaone_train.encoder import Encoder
from reproduction.design import MACENKO, NONE, ROOT

DATA: Final = Path(os.environ.get("EXAONE_PREP_TEST_DATA", ROOT.parent / "shared" / "data"))
_PX: Final = 32
"""Side of what encoders are shown: at about 0.24 µm/px patches of 256 px show 62 µm, which are 31 px at 2 µm/px."""
_SLIDE_LETTERS: Final = 9
"""The slide's name leads the name of a file."""


@dataclass(frozen=True, kw_only=True)
class RealPatches:
    """Patches of CAMELYON16.

    Attributes:
        images: Per name of a data set, uint8 n×32×32×3.
        slide_id: n.
        label: n; normal or tumor.
    """

    images: dict[str, NDArray[np.uint8]]
    slide_id: NDArray[np.str_]
    label: NDArray[np.str_]

    def table(self, encoder: Encoder, shown: str) -> FeatureTable:
        """Features of the patches as they would be in a data set of that name, at the scale that encoders know."""
        encoder.size_px = _PX
        return FeatureTable(
            name=shown, features=encoder.embed(self.images[shown]), slide_id=self.slide_id, label=self.label
        )


def read_real_patches() -> RealPatches | None:
    """All of them, reduced by area to the scale of the data sets; as they are, and normalised by one fit per slide.

    Returns:
        None where there are none.
    """
    files = sorted((DATA / "tiles" / "camelyon16_patches").rglob("*.png"))
    if not files:
        return None
    patches = np.stack([_reduced(file) for file in files])
    slide_id = np.array([file.name[:_SLIDE_LETTERS] for file in files])
    normalised = np.empty_like(patches)
    for slide in np.unique(slide_id):
        rows = slide_id == slide
        normalised[rows] = normalize(patches[rows], fit=fit(patches[rows])).patches
    images = {NONE.shown: patches, MACENKO.shown: normalised}
    return RealPatches(images=images, slide_id=slide_id, label=np.array([file.parent.name for file in files]))


def _reduced(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB").resize((_PX, _PX), Image.Resampling.BOX))
