"""How far stain vectors and colours are apart: angles, CIELAB, variance between slides, normalised median intensity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]
Floats = NDArray[np.float64]

TISSUE_MAX: Final = 205
"""The lightest grey level of tissue in any channel: what Macenko's β = 0.15 keeps."""

_TO_XYZ: Final = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_LINEAR: Final = np.array([v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.arange(256) / 255])


def angle_deg(left: Sequence[float], right: Sequence[float]) -> float:
    """Angle between two vectors of any length, in degrees."""
    a, b = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    return math.degrees(math.atan2(float(np.linalg.norm(np.cross(a, b))), float(a @ b)))


def lab(pixels: Rgb) -> Floats:
    """CIELAB (CIE 1976) of sRGB under its own white, D65.

    Args:
        pixels: uint8 (..., 3).

    Returns:
        float64 (..., 3): L*, a*, b*. A distance of 1 is about what an eye can just tell.
    """
    xyz = _LINEAR[pixels] @ (_TO_XYZ / _TO_XYZ.sum(axis=1, keepdims=True)).T
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = (root[..., channel] for channel in range(3))
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def is_tissue(pixels: Rgb) -> NDArray[np.bool_]:
    """Pixels that are tissue as scanned: no channel above 205. uint8 (..., 3) to bool (...)."""
    found: NDArray[np.bool_] = pixels.max(axis=-1) <= TISSUE_MAX
    return found


def variance(colours: Floats) -> float:
    """Variance of colours (n, 3), summed over the channels: in CIELAB the mean squared ΔE from their mean."""
    return float(np.var(colours, axis=0, ddof=1).sum())


def median_intensity(pixels: Rgb) -> float:
    """Normalised median intensity: the median over the 95th percentile of the pixels' mean of red, green and blue.

    The field's usual measure of constancy of colour is its standard deviation over slides (A. Basavanhally,
    A. Madabhushi, EM-based segmentation-driven color standardization of digitized histopathology, SPIE 2013).
    """
    intensity = pixels.reshape(-1, 3).mean(axis=1)
    return float(np.median(intensity) / np.percentile(intensity, 95))
