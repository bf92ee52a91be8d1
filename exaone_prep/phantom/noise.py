"""Seeded random fields whose bits do not depend on the CPU: integers, box blurs, ranks, and plain products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.float32]

TEXTURE_PX = 1024
"""Side of a texture; a power of two, so that wrapping round is a bit mask."""


def generator(*key: int) -> np.random.Generator:
    """A random generator for one purpose; equal keys give equal streams."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def unit_vector(turn: float) -> tuple[float, float]:
    """Cosine and sine of a fraction of a full turn, by Taylor series (the C library's differ between CPUs).

    Args:
        turn: Fraction of a full turn, any value.

    Returns:
        Cosine and sine, to about 1e-13.
    """
    quarters = round(turn * 4)
    angle = (turn * 4 - quarters) * 1.5707963267948966
    square = angle * angle
    cosine = sine = 1.0
    for order in range(18, 0, -2):
        cosine = 1.0 - cosine * square / (order * (order - 1))
        sine = 1.0 - sine * square / (order * (order + 1))
    sine *= angle
    return ((cosine, sine), (-sine, cosine), (-cosine, -sine), (sine, -cosine))[quarters % 4]


def ranked(values: NDArray[np.float64] | Field) -> Field:
    """Replace values by their rank, scaled to [0, 1): a threshold t then cuts off exactly a share t of the area."""
    order = np.argsort(values, axis=None, kind="stable")
    ranks = np.empty(values.size, np.float32)
    ranks[order] = np.arange(values.size, dtype=np.float32) / np.float32(values.size)
    return ranks.reshape(values.shape)


def soft(values: NDArray[np.float64] | Field, size_cells: int | tuple[int, int], *, wrap: bool = False) -> Field:
    """Blur nearly like a Gaussian, by three box filters of the given side."""
    mode = "wrap" if wrap else "nearest"
    smooth = values.astype(np.float64)
    for _ in range(3):
        smooth = ndimage.uniform_filter(smooth, size_cells, mode=mode)
    return smooth.astype(np.float32)


def cloud(rng: np.random.Generator, shape: tuple[int, int], wavelength_cells: float, octaves: int = 2) -> Field:
    """A smooth random field of about the given wavelength, in [-1, 1], around 0.

    Args:
        rng: Where the randomness comes from.
        shape: Rows and columns.
        wavelength_cells: Size of the largest features, in cells of the field.
        octaves: How many scales are added, each half as large and half as strong as the one before.

    Returns:
        float32, of the given shape.
    """
    total = np.zeros(shape, np.float32)
    weight = 1.0
    for octave in range(octaves):
        spacing = max(wavelength_cells / 2**octave / 2, 1.0)
        knots = rng.random((int(shape[0] / spacing) + 5, int(shape[1] / spacing) + 5), np.float32) * 2 - 1
        # The mean of neighbours and a linear slope between them is a spline without overshoot.
        knots = soft(knots, 2) * np.float32(2.2)
        rows = np.arange(shape[0], dtype=np.float64) / spacing + 1.5
        columns = np.arange(shape[1], dtype=np.float64) / spacing + 1.5
        total += np.float32(weight) * bilinear(knots, rows, columns)
        weight *= 0.5
    return np.clip(total, -1, 1, out=total)


def bilinear(field: Field, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Field:
    """Values of a field on the grid of the given rows and columns (in cells; clamped at the border)."""
    top, down = _split(rows, field.shape[0])
    left, right = _split(columns, field.shape[1])
    first, last = int(top[0]), int(top[-1]) + 2
    band = field[first:last]
    wide = band[:, left]
    wide = wide + (band[:, np.minimum(left + 1, field.shape[1] - 1)] - wide) * right
    above = wide[top - first]
    below: Field = wide[np.minimum(top - first + 1, wide.shape[0] - 1)]
    below -= above
    below *= down[:, None]
    below += above
    return below


def bilinear_at(field: Field, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Field:
    """Values of a field at single points (in cells; clamped at the border); rows and columns are of one length."""
    top, down = _split(rows, field.shape[0])
    left, right = _split(columns, field.shape[1])
    bottom = np.minimum(top + 1, field.shape[0] - 1)
    beside = np.minimum(left + 1, field.shape[1] - 1)
    above = field[top, left] + (field[top, beside] - field[top, left]) * right
    below: Field = field[bottom, left] + (field[bottom, beside] - field[bottom, left]) * right
    below -= above
    below *= down
    below += above
    return below


def _split(positions: NDArray[np.float64], size: int) -> tuple[NDArray[np.intp], Field]:
    inside = np.clip(positions, 0, size - 1)
    whole = inside.astype(np.intp)
    return whole, (inside - whole).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Textures:
    """Square textures that wrap round, `TEXTURE_PX` a side, uint8 ranks (255 = highest).

    Attributes:
        fibre: Thin fibres along the columns.
        bundle: Bundles of fibres along the columns.
        grain: Features of about 1 µm.
        mottle: Features of about 3 µm.
        patchy: Features of about 12 µm.
        noise: float32, about normal with variance 1, white.
    """

    fibre: NDArray[np.uint8]
    bundle: NDArray[np.uint8]
    grain: NDArray[np.uint8]
    mottle: NDArray[np.uint8]
    patchy: NDArray[np.uint8]
    noise: Field


@lru_cache(maxsize=2)
def textures(seed: int, mpp: float) -> Textures:
    """Render the textures for slides of one resolution.

    Args:
        seed: Of the whole set of slides.
        mpp: µm per pixel of level 0.
    """
    rng = generator(seed, 1)

    def odd(length_um: float) -> int:
        return max(int(length_um / mpp / 2) * 2 + 1, 1)

    def texture(*sizes_um: tuple[float, float, float]) -> NDArray[np.uint8]:
        total = np.zeros((TEXTURE_PX, TEXTURE_PX), np.float32)
        for across_um, along_um, weight in sizes_um:
            white = rng.integers(0, 4096, total.shape).astype(np.float64)
            layer = ranked(soft(white, (odd(across_um), odd(along_um)), wrap=True))
            total += np.float32(weight) * layer
        return (ranked(total) * 256).astype(np.uint8)

    bytes_ = rng.integers(0, 256, (12, TEXTURE_PX, TEXTURE_PX), dtype=np.uint8)
    noise = bytes_.sum(axis=0, dtype=np.int32).astype(np.float32) - np.float32(12 * 127.5)
    return Textures(
        fibre=texture((0.6, 7.0, 0.7), (1.1, 11.0, 1.0), (2.2, 16.0, 0.9), (1.1, 1.1, 0.25)),
        bundle=texture((3.5, 22.0, 1.0), (7.5, 36.0, 1.2), (2.2, 6.0, 0.3)),
        grain=texture((1.1, 1.1, 1.0)),
        mottle=texture((2.6, 2.6, 1.0)),
        patchy=texture((9.0, 9.0, 1.0), (4.0, 4.0, 0.3)),
        noise=noise / np.float32(256.0),
    )
