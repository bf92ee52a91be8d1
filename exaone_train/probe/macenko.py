"""Patches stained as an encoder's training data was: Macenko's method, a patch at a time, as EXAONEPath's users do it.

Macenko et al., ISBI 2009, in the variant of EXAONEPath's released `macenko.py`: OD = −ln((I + 1) / 240), pixels with a
channel below 0.15 left out, percentiles 1 and 99 of the angles by nearest rank, concentrations by least squares. A
patch whose stain cannot be found stays as it is. This is evaluation, in float64 with NumPy's own functions; data sets
are built with `exaone_prep`, which gives the same bits on every machine and is not needed here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]
Floats64 = NDArray[np.float64]

LIGHT = 240.0
BETA = 0.15


@dataclass(frozen=True, kw_only=True)
class Stain:
    """How a picture is stained.

    Attributes:
        vectors: 3×2, optical density per channel of haematoxylin and eosin.
        concentration: 2, their 99th percentile.
    """

    vectors: Floats64
    concentration: Floats64


BUILT_IN = Stain(
    vectors=np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]]), concentration=np.array([1.9705, 1.0308])
)
"""The reference of Veta's code, and of data sets built with `reference: macenko`."""


@dataclass(frozen=True, kw_only=True)
class PatchNormaliser:
    """Normalises patch by patch.

    Attributes:
        reference: How patches look afterwards.
    """

    reference: Stain = BUILT_IN

    def __call__(self, images: Rgb) -> Rgb:
        """Patches n×h×w×3, normalised."""
        return np.stack([self._one(image) for image in images])

    def _one(self, image: Rgb) -> Rgb:
        density = -np.log((image.reshape(-1, 3).astype(np.float64) + 1) / LIGHT)
        found = fit(density)
        if found is None:
            return image
        stain, concentrations = found
        concentrations *= (self.reference.concentration / stain.concentration)[:, None]
        levels = LIGHT * np.exp(-(self.reference.vectors @ concentrations))
        return levels.clip(0, 255).astype(np.uint8).T.reshape(image.shape)


def fit(density: Floats64) -> tuple[Stain, Floats64] | None:
    """The stain of pixels and how much of each they hold.

    Args:
        density: n×3 optical densities.

    Returns:
        The stain, and concentrations 2×n; None if there is none to be found.
    """
    kept = density[(density >= BETA).all(axis=1)]
    if len(kept) < 3:
        return None
    plane = np.linalg.eigh(np.cov(kept.T))[1][:, [2, 1]]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)
    projected = kept @ plane
    angles = np.arctan2(projected[:, 1], projected[:, 0])
    borders = [plane @ np.array([np.cos(angle), np.sin(angle)]) for angle in _nearest_rank(angles[None], (1, 99))[0]]
    first = int(borders[1][0] >= borders[0][0])
    vectors = np.stack([borders[first], borders[1 - first]], axis=1)
    if np.linalg.matrix_rank(vectors) < 2:
        return None
    concentrations = np.linalg.lstsq(vectors, density.T, rcond=None)[0]
    largest = _nearest_rank(concentrations, (99,))[:, 0]
    if not np.isfinite(largest).all() or (largest <= 0).any():
        return None
    return Stain(vectors=vectors, concentration=largest), concentrations


def _nearest_rank(values: Floats64, percents: tuple[int, ...]) -> Floats64:
    """Percentiles of each row: the k-th smallest, k = 1 + round(0.01·q·(n − 1)), half to even."""
    ranks = [round(0.01 * percent * (values.shape[1] - 1)) for percent in percents]
    return np.partition(values, ranks, axis=1)[:, ranks]
