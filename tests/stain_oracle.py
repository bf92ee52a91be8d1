"""Macenko's method written a second time, in float64 with NumPy's own functions, to check the first against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

REFERENCE_STAIN = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
REFERENCE_MAX_CONCENTRATION = np.array([1.9705, 1.0308])

HAEMATOXYLIN = np.array([0.65, 0.70, 0.29])
EOSIN = np.array([0.07, 0.99, 0.11])
DAB = np.array([0.27, 0.57, 0.78])
"""Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 2001."""


@dataclass(frozen=True)
class OracleFit:
    """Columns haematoxylin, eosin; the 99th percentile of each concentration."""

    stain_matrix: Floats
    max_concentration: Floats


def optical_density(pixels: NDArray[np.uint8]) -> Floats:
    od: Floats = -np.log((pixels.reshape(-1, 3).astype(np.float64) + 1.0) / 240.0)
    return od


def nearest_rank(values: Floats, percent: float) -> float:
    k = 1 + round(0.01 * percent * (values.size - 1))
    return float(np.sort(values)[k - 1])


def fit(pixels: NDArray[np.uint8]) -> OracleFit:
    od = optical_density(pixels)
    kept = od[~np.any(od < 0.15, axis=1)]
    _, vectors = np.linalg.eigh(np.cov(kept.T))
    plane = vectors[:, [2, 1]]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)
    projected = kept @ plane
    phi = np.arctan2(projected[:, 1], projected[:, 0])
    low, high = (plane @ np.array([np.cos(p), np.sin(p)]) for p in (nearest_rank(phi, 1), nearest_rank(phi, 99)))
    stain = np.stack([low, high] if low[0] > high[0] else [high, low], axis=1)
    concentrations = np.linalg.lstsq(stain, od.T, rcond=None)[0]
    return OracleFit(stain, np.array([nearest_rank(row, 99) for row in concentrations]))


def apply(patch: NDArray[np.uint8], stain: Floats, max_concentration: Floats) -> NDArray[np.uint8]:
    concentrations = np.linalg.pinv(stain) @ optical_density(patch).T
    scaled = concentrations * (REFERENCE_MAX_CONCENTRATION / max_concentration)[:, None]
    levels: Floats = 240.0 * np.exp(-(REFERENCE_STAIN @ scaled))
    return levels.clip(0, 255).astype(np.uint8).T.reshape(patch.shape)


def angle_deg(a: Floats, b: Floats) -> float:
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def stained(
    first: Floats, second: Floats, *, side_px: int = 256, seed: int = 0, amounts: tuple[float, float] = (1.0, 0.7)
) -> NDArray[np.uint8]:
    """A side×side×3 image by Beer and Lambert: random amounts of two stains on a bright background, some noise."""
    rng = np.random.default_rng(seed)
    concentrations = rng.gamma(2.0, 0.5, size=(side_px * side_px, 2)) * np.array(amounts)
    directions = np.stack([first / np.linalg.norm(first), second / np.linalg.norm(second)])
    levels: Floats = 240.0 * np.exp(-concentrations @ directions) + rng.normal(0, 1.5, size=(side_px * side_px, 3))
    return levels.round().clip(0, 255).astype(np.uint8).reshape(side_px, side_px, 3)
