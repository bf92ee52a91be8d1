"""Felt-tip on tissue: colours of real pens, painted as strokes and as blobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tests.realdata import DATA, read_rgb

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]

T = TypeVar("T", bound=np.generic)

GRAIN_PX: Final = 4
"""Edges of marks lie on this grid: it makes them 16 times as quick."""

ARTEFACTS = DATA / "tiles" / "artefacts"


def ink_pixels(colour: str) -> Rgb:
    """All pixels under the mask of a real pen mark, N×3; `colour` is black, green or red."""
    under = read_rgb(ARTEFACTS / f"pen_{colour}_mask.png")[..., 0] > 127
    return read_rgb(ARTEFACTS / f"pen_{colour}.png")[under]


def strokes(tissue: Mask, share: float, *, width_px: int, seed: int) -> Mask:
    """Straight strokes across the tissue until they cover this share of it."""
    random = np.random.default_rng(seed)
    half, reach = width_px / 2 / GRAIN_PX, 3 * width_px / GRAIN_PX
    side = np.arange(-int(reach) - 1, int(reach) + 2)
    y, x = side[:, None], side[None, :]

    def stroke() -> Mask:
        angle = random.uniform(0, np.pi)
        across, along = y * np.cos(angle) - x * np.sin(angle), x * np.cos(angle) + y * np.sin(angle)
        return np.asarray((np.abs(across) < half) & (np.abs(along) < reach))

    return _marked(tissue, share, stroke, random)


def blobs(tissue: Mask, share: float, *, radius_px: int, seed: int) -> Mask:
    """Round dots on the tissue until they cover this share of it."""
    radius = radius_px / GRAIN_PX
    side = np.arange(-int(radius) - 1, int(radius) + 2)
    dot = side[:, None] ** 2 + side[None, :] ** 2 <= radius * radius
    return _marked(tissue, share, lambda: dot, np.random.default_rng(seed))


def _marked(tissue: Mask, share: float, mark: Callable[[], Mask], random: np.random.Generator) -> Mask:
    """Set marks on pixels of the tissue that are chosen at random, at the resolution of `GRAIN_PX`."""
    coarse = tissue[::GRAIN_PX, ::GRAIN_PX]
    places = np.argwhere(coarse)
    under = np.zeros_like(coarse)
    covered = 0
    while covered < share * len(places):
        shape = mark()
        row, column = (places[random.integers(len(places))] - shape.shape[0] // 2).tolist()
        top, left = max(row, 0), max(column, 0)
        place = under[top : row + shape.shape[0], left : column + shape.shape[1]]
        fresh = shape[top - row :, left - column :][: place.shape[0], : place.shape[1]] & ~place
        fresh &= coarse[top : row + shape.shape[0], left : column + shape.shape[1]]
        place |= fresh
        covered += int(fresh.sum())
    return _enlarged(under, tissue) & tissue


def _enlarged(coarse: NDArray[T], like: Mask) -> NDArray[T]:
    large = coarse.repeat(GRAIN_PX, axis=0).repeat(GRAIN_PX, axis=1)
    return large[: like.shape[0], : like.shape[1]]


def inked(rgb: Rgb, where: Mask, colour: str, *, seed: int) -> Rgb:
    """Pixels under ink take the colours of a real mark, all in their shares: the lightest at the rims, as they lie."""
    ink = ink_pixels(colour)
    random = np.random.default_rng(seed)
    depth = _enlarged(ndimage.distance_transform_edt(where[::GRAIN_PX, ::GRAIN_PX]), where)[where] * GRAIN_PX
    depth += random.normal(0, 2, len(depth))
    darkest_last = ink[np.argsort(-ink.astype(int).sum(axis=1), kind="stable")]
    order = np.empty(len(depth), dtype=np.int64)
    order[np.argsort(depth, kind="stable")] = np.arange(len(depth))
    painted = rgb.copy()
    painted[where] = darkest_last[order * len(ink) // max(len(depth), 1)]
    return painted
