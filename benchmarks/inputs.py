"""Slides to measure on: a small one repeated side by side until it is large.

Painting a phantom of 16,384×16,384 px takes minutes, and a large real slide is nothing to carry about; what a patch
costs depends on its own pixels and on the size of the file, and both are real here. Made once, kept in
`build/benchmarks`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from report import DATA

from exaone_prep.phantom import PhantomSettings, write_phantoms
from exaone_prep.phantom.pyramid import Pyramid, write_pyramid
from exaone_prep.slides import open_slide

CACHE = Path(__file__).resolve().parents[1] / "build" / "benchmarks"
LARGE_PX = 16_384
REAL = DATA / "slides" / "cmu_small_region.svs"
_BASE_PX = 4096
_QUALITY = 85


def phantom_slide(side_px: int, mpp: float = 0.5) -> Path:
    """A generated slide without artefacts, made once."""
    folder = CACHE / (f"phantom-{side_px}" if mpp == 0.5 else f"phantom-{side_px}-{mpp}")
    found = sorted(folder.glob("lab-0/*.tiff"))
    if not found or not (folder / "truth.json").exists():
        settings = PhantomSettings(
            slides=1, labs=1, width_px=side_px, height_px=side_px, mpp=mpp, pen_fraction=0, blur_fraction=0
        )
        write_phantoms(folder, settings)
        found = sorted(folder.glob("lab-0/*.tiff"))
    return found[0]


def repeated_phantom(side_px: int, mpp: float = 0.5, *, number: int = 0, base_px: int = _BASE_PX) -> Path:
    """A generated slide repeated to a square, as a pyramid of JPEG tiles of 256 px by factors of 4.

    Args:
        side_px: Side of level 0.
        mpp: Its µm per pixel.
        number: Others begin elsewhere in the same tissue: slides of one group must differ.
        base_px: Side of what is repeated.
    """
    path = CACHE / f"repeated-{side_px}-of-{base_px}-at-{mpp}-{number}.tiff"
    if not path.exists():
        pixels = _pixels(phantom_slide(base_px, mpp))
        _write(path, np.roll(pixels, 384 * number, axis=0), side_px, mpp, tile_px=256)
    return path


def repeated_real(side_px: int) -> Path | None:
    """A piece of a real slide (skin, H&E, 0.499 µm/px), repeated; in tiles of 240 px as that slide has them.

    None where there is none.
    """
    if not REAL.exists():
        return None
    path = CACHE / f"repeated-{side_px}-of-real.tiff"
    if not path.exists():
        _write(path, _pixels(REAL), side_px, 0.499, tile_px=240)
    return path


def _pixels(slide: Path) -> NDArray[np.uint8]:
    reader = open_slide(slide, ["openslide"])
    try:
        level = reader.info.levels[0]
        return reader.read(0, 0, 0, level.width_px, level.height_px)
    finally:
        reader.close()


def _write(path: Path, pixels: NDArray[np.uint8], side_px: int, mpp: float, *, tile_px: int) -> None:
    height, width, _ = pixels.shape
    across = np.arange(side_px) % width

    def strip(top: int, bottom: int) -> NDArray[np.uint8]:
        rows: NDArray[np.uint8] = pixels[np.arange(top, bottom) % height]
        return rows[:, across]

    pyramid = Pyramid(
        width_px=side_px,
        height_px=side_px,
        tile_px=tile_px,
        levels=3,
        factor=4,
        subsampling="420",
        quality=_QUALITY,
        mpp=mpp,
        bigtiff=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    write_pyramid(part, pyramid, strip)
    part.rename(path)
