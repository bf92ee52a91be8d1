"""Small slides, written for a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]


def gradients() -> Rgb:
    """320×384×3 of slow changes, which JPEG keeps well."""
    y, x = np.mgrid[0:320, 0:384]
    return np.stack([x * 255 // 384, y * 255 // 320, (x + y) * 255 // 704], axis=2).astype(np.uint8)


def jpeg_slide(path: Path, rgb: Rgb) -> list[tuple[int, int]]:
    """Write a JPEG TIFF with tiles of 64×64 at 0.5 µm/px; return offset and length of each tile."""
    tifffile.imwrite(
        path,
        rgb,
        tile=(64, 64),
        photometric="ycbcr",
        compression="jpeg",
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        return list(zip(page.dataoffsets, page.databytecounts, strict=True))
