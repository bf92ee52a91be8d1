"""Small slides that look stained with H&E, and builds of a few of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy import ndimage

from exaone_prep.commands.build import build_dataset
from exaone_prep.dataset import Dataset, create_dataset, open_dataset
from exaone_prep.manifest import Manifest, parse_manifest
from exaone_prep.phantom.pyramid import Pyramid, write_pyramid
from exaone_prep.pool import WorkerPool, nameless_log
from exaone_prep.site import Here

Rgb = NDArray[np.uint8]

WIDTH_PX, HEIGHT_PX = 1024, 768
_STAINS = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])


def tissue_rgb(seed: int = 0, *, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX) -> Rgb:
    """Nuclei on a pink ground with texture, glass around it; place, colour and strength differ with the seed."""
    random = np.random.default_rng(seed)
    shift = tuple(int(value) for value in random.integers(0, 4096, 2))
    amounts = np.roll(_amounts(width_px, height_px), shift, axis=(0, 1)) * random.uniform(0.9, 1.2, 2)
    y, x = np.mgrid[0:height_px, 0:width_px]
    amounts *= ((2 * x / width_px - 1) ** 4 + (2 * y / height_px - 1) ** 4 < 0.75)[..., None]
    stains = _STAINS + random.uniform(-0.03, 0.03, (3, 2))
    light: NDArray[np.float64] = 244 * np.exp(-(amounts @ stains.T)) + random.normal(0, 2, (height_px, width_px, 3))
    return light.clip(0, 255).astype(np.uint8)


@cache
def _amounts(width_px: int, height_px: int) -> NDArray[np.float64]:
    """Haematoxylin and eosin per pixel, H×W×2: the slow part, made once."""
    random = np.random.default_rng(0)
    shape = (height_px, width_px)
    ground = ndimage.gaussian_filter(random.standard_normal(shape), 12)
    ground += 0.1 * ndimage.gaussian_filter(random.standard_normal(shape), 1)
    nuclei = ndimage.gaussian_filter((random.random(shape) < 1 / 500).astype(float), 3.5) > 0.004
    haematoxylin = 0.12 + nuclei * (1.0 + 0.25 * random.standard_normal(shape))
    eosin = 0.55 + 0.2 * ground / ground.std()
    return np.stack([haematoxylin, eosin], axis=-1).clip(0.02, None)


def write_slide(path: Path, rgb: Rgb, *, mpp: float | None = 0.5, levels: int = 3, tile_px: int = 128) -> Path:
    """Write pixels as a pyramid of JPEG tiles that OpenSlide opens."""
    pyramid = Pyramid(
        width_px=rgb.shape[1],
        height_px=rgb.shape[0],
        tile_px=tile_px,
        levels=levels,
        factor=2,
        subsampling="420",
        quality=92,
        mpp=mpp,
        bigtiff=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_pyramid(path, pyramid, lambda top, bottom: rgb[top:bottom])
    return path


def small_slide(path: Path, seed: int = 0, *, mpp: float | None = 0.5) -> Path:
    """One slide of 1024×768 px (12 patches of 256 px, all but the corners mostly tissue) at `mpp`."""
    return write_slide(path, tissue_rgb(seed), mpp=mpp)


def small_slides(folder: Path, count: int, *, first_seed: int = 0) -> list[Path]:
    """Slides `slide-00.tiff`, `slide-01.tiff`, ... that all differ."""
    return [small_slide(folder / f"slide-{i:02d}.tiff", first_seed + i) for i in range(count)]


def manifest_of(folder: Path, **settings: Any) -> Manifest:
    """One cohort of all TIFFs in a folder, no validation split; `settings` are sections of the manifest."""
    document = {"name": "small", "cohorts": [{"name": "c", "slides": [f"{folder}/*.tiff"]}], "splits": {}, **settings}
    return parse_manifest(document, {}, where="m.yaml")


def build_small(manifest: Manifest, out: Path, *, workers: int = 1) -> Dataset:
    """Build a data set in this process (its workers are processes of their own, as always)."""
    dataset = create_dataset(out, manifest, base=out.parent)
    with nameless_log() as log, WorkerPool(workers, log) as pool:
        build_dataset(dataset, Here(pool=pool), Console(quiet=True))
    return open_dataset(out)
