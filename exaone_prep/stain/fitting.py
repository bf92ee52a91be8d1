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
from exaone_prep.stain.engine import AngleQuery, ConcentrationQuery, Engine, Loaded, Moments
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
    sets = pixels.reshape(1, -1, 3)
    with (engine or engine_for("cpu")).load(sets) as loaded:
        return fit_loaded(loaded, sets.shape[1])[0]


def fit_loaded(loaded: Loaded, n_pixels: int) -> list[StainFit]:
    """The fit of each set of pixels that an engine has loaded, step by step for all of them together."""
    fittings = [_Fitting(n_pixels, moments) for moments in loaded.moments()]
    for fitting, angles in zip(fittings, loaded.pseudo_angles([each.plane() for each in fittings]), strict=True):
        fitting.take_angles(angles)
    queries = [each.stains() for each in fittings]
    for fitting, concentrations in zip(fittings, loaded.concentrations(queries), strict=True):
        fitting.take_concentrations(concentrations)
    return [fitting.fit() for fitting in fittings]


class _Fitting:
    """One fit under way: what it asks of an engine next, None where nothing more can be found."""

    def __init__(self, n_pixels: int, moments: Moments) -> None:
        self._n_pixels = n_pixels
        self._moments = moments
        self._reason: FitReason = ""
        self._eigenvalues = (0.0, 0.0, 0.0)
        self._angle_deg = 0.0
        self._axes: tuple[Vector, Vector] | None = None
        self._matrix: StainMatrix | None = None
        self._max_concentration: tuple[float, float] | None = None

    def plane(self) -> AngleQuery | None:
        """The plane of the two stains."""
        n_kept = self._moments.n_kept
        if n_kept < 2:
            self._reason = "too_few_pixels"
            return None
        self._eigenvalues, (first, second, _) = eigen_symmetric(covariance(self._moments))
        if self._eigenvalues[1] <= _MIN_PLANE * self._eigenvalues[0]:
            self._reason = "one_colour"
            return None
        self._axes = first, second
        return AngleQuery(first, second, (rank(ALPHA_PERCENT, n_kept), rank(100 - ALPHA_PERCENT, n_kept)))

    def take_angles(self, angles: tuple[float, float] | None) -> None:
        """The two extreme directions in it."""
        if angles is None or self._axes is None:
            return
        low, high = (unit(combine(x, self._axes[0], y, self._axes[1])) for x, y in map(direction, angles))
        h, e = (low, high) if low[0] > high[0] else (high, low)
        self._angle_deg = angle_deg(h, e)
        self._matrix = ((h[0], e[0]), (h[1], e[1]), (h[2], e[2]))

    def stains(self) -> ConcentrationQuery | None:
        """The two stains as a base."""
        if self._matrix is None:
            return None
        try:
            return ConcentrationQuery(pseudo_inverse(self._matrix), rank(_MAX_C_PERCENT, self._n_pixels))
        except ZeroDivisionError:
            self._reason = "one_colour"
            return None

    def take_concentrations(self, concentrations: tuple[float, float] | None) -> None:
        """How strong each gets."""
        if concentrations is None or self._matrix is None:
            return
        if all(isfinite(value) for row in (*self._matrix, concentrations) for value in row):
            self._max_concentration = concentrations
        else:
            self._reason = "non_finite"

    def fit(self) -> StainFit:
        """What was found, judged."""
        found = self._max_concentration is not None
        measured = StainFit(
            stain_matrix=self._matrix if found else None,
            max_concentration=self._max_concentration,
            diagnostics=FitDiagnostics(
                n_pixels=self._n_pixels,
                n_kept=self._moments.n_kept,
                angle_deg=self._angle_deg,
                eigenvalues=self._eigenvalues,
            ),
            status="failed",
            reason=self._reason,
        )
        return measured.judged(verdict_patch(measured))


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
