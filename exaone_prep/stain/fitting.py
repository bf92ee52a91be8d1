"""Finding the stain of pixels: Macenko's method, in an order of operations that every engine shares."""

from __future__ import annotations

from math import isfinite
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exaone_prep.stain.algebra import (
    Matrix3,
    StainMatrix,
    Vector,
    angle_deg,
    combine,
    eigen_symmetric,
    pseudo_inverse,
    unit,
)
from exaone_prep.stain.density import FIXED_POINT_BITS
from exaone_prep.stain.device import engine_for
from exaone_prep.stain.engine import Engine, Moments, Pixels
from exaone_prep.stain.gates import verdict_patch
from exaone_prep.stain.stain_fit import FitDiagnostics, FitReason, StainFit

ALPHA_PERCENT: Final = 1
"""The stain vectors are the 1st and the 99th percentile of the angles in the plane of the two stains."""

_MAX_C_PERCENT: Final = 99
_MIN_PLANE: Final = 1e-9
"""Below this ratio of the second to the first eigenvalue the colours lie on one line and span no plane."""


def fit(pixels: NDArray[np.uint8], *, engine: Engine | None = None) -> StainFit:
    """Measure haematoxylin and eosin in pixels (Macenko et al., ISBI 2009; `docs/stain.md` has every step).

    The result does not depend on the order of the pixels, nor on the CPU, bit for bit.

    Args:
        pixels: uint8 RGB, (N, 3), or any shape that ends in 3.
        engine: What does the work per pixel; the fastest on the CPU by default. The result is the same with all.

    Returns:
        A fit that is `ok`, or `failed` with a reason, by `verdict_patch`; a slide's must pass `verdict_slide` too.

    Raises:
        ValueError: If the array is not uint8 or does not end in 3.
    """
    if pixels.dtype != np.uint8 or pixels.ndim < 2 or pixels.shape[-1] != 3:
        raise ValueError(f"Pixels must be uint8 with 3 channels last, not {pixels.dtype} {pixels.shape}.")
    flat = pixels.reshape(-1, 3)
    loaded = (engine or engine_for("cpu")).load(flat)
    moments = loaded.moments()
    diagnostics = FitDiagnostics(n_pixels=len(flat), n_kept=moments.n_kept)
    if moments.n_kept < 2:
        return _without_stain(diagnostics, "too_few_pixels")
    eigenvalues, (first, second, _) = eigen_symmetric(covariance(moments))
    diagnostics = FitDiagnostics(n_pixels=len(flat), n_kept=moments.n_kept, eigenvalues=eigenvalues)
    if eigenvalues[1] <= _MIN_PLANE * eigenvalues[0]:
        return _without_stain(diagnostics, "one_colour")
    return _in_plane(loaded, diagnostics, first, second)


def _in_plane(loaded: Pixels, diagnostics: FitDiagnostics, first: Vector, second: Vector) -> StainFit:
    ranks = (rank(ALPHA_PERCENT, diagnostics.n_kept), rank(100 - ALPHA_PERCENT, diagnostics.n_kept))
    vectors = []
    for angle in loaded.pseudo_angles(first, second, ranks):
        x, y = direction(angle)
        vectors.append(unit(combine(x, first, y, second)))
    low, high = vectors
    h, e = (low, high) if low[0] > high[0] else (high, low)
    diagnostics = FitDiagnostics(
        n_pixels=diagnostics.n_pixels,
        n_kept=diagnostics.n_kept,
        angle_deg=angle_deg(h, e),
        eigenvalues=diagnostics.eigenvalues,
    )
    matrix: StainMatrix = ((h[0], e[0]), (h[1], e[1]), (h[2], e[2]))
    try:
        inverse = pseudo_inverse(matrix)
    except ZeroDivisionError:
        return _without_stain(diagnostics, "one_colour")
    max_concentration = loaded.concentrations(inverse, rank(_MAX_C_PERCENT, diagnostics.n_pixels))
    if not all(isfinite(value) for value in (*h, *e, *max_concentration)):
        return _without_stain(diagnostics, "non_finite")
    return _judged(
        StainFit(stain_matrix=matrix, max_concentration=max_concentration, diagnostics=diagnostics, status="failed")
    )


def _without_stain(diagnostics: FitDiagnostics, reason: FitReason) -> StainFit:
    return _judged(
        StainFit(stain_matrix=None, max_concentration=None, diagnostics=diagnostics, status="failed", reason=reason)
    )


def _judged(fit: StainFit) -> StainFit:
    return fit.judged(verdict_patch(fit))


def rank(percent: int, count: int) -> int:
    """Rank, from 0, of a percentile by nearest rank: round(0.01 · percent · (count − 1)), half to even."""
    return round(0.01 * percent * (count - 1))


def covariance(moments: Moments) -> Matrix3:
    """Covariance of the optical densities of the kept pixels, each entry one correctly rounded quotient."""
    n = moments.n_kept
    s, p = moments.sums, moments.products
    scale = n * (n - 1) << 2 * FIXED_POINT_BITS

    def entry(product: int, a: int, b: int) -> float:
        return (n * p[product] - s[a] * s[b]) / scale

    rr, rg, rb, gg, gb, bb = (
        entry(i, a, b) for i, (a, b) in enumerate(((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)))
    )
    return ((rr, rg, rb), (rg, gg, gb), (rb, gb, bb))


def direction(pseudo_angle: float) -> tuple[float, float]:
    """A point (x, y) with |x| + |y| = 1 in the direction that a pseudo-angle stands for."""
    if abs(pseudo_angle) <= 1.0:
        return 1.0 - abs(pseudo_angle), pseudo_angle
    y = (2.0 if pseudo_angle > 0.0 else -2.0) - pseudo_angle
    return abs(y) - 1.0, y
