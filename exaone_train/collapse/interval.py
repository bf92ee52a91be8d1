"""Measures that are sums over patches divided by sums over patches, and their intervals over slides.

Patches of one slide resemble each other, so that slides are drawn, with replacement, and never patches: the cluster
bootstrap (Davison and Hinkley 1997, section 3.8) with percentiles as limits. Neighbours stay those of the whole table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats64 = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Share:
    """A measure Σa / Σb with its parts per slide.

    Attributes:
        above: Per slide, Σa.
        below: Per slide, Σb.
    """

    above: Floats64
    below: Floats64

    @property
    def value(self) -> float:
        """Σa / Σb; nan where Σb is 0."""
        below = self.below.sum()
        return float(self.above.sum() / below) if below else float("nan")

    def drawn(self, weights: Floats64) -> Floats64:
        """The measure for each draw of slides, r×slides weights; nan for draws of which nothing can be said."""
        above, below = weights @ self.above, weights @ self.below
        drawn: Floats64 = np.full(len(weights), np.nan)
        return np.divide(above, below, out=drawn, where=below > 0)


def sums(values: NDArray[np.number] | NDArray[np.bool_], slide: Ints, slides: int) -> Floats64:
    """Σ of a value per patch, for each slide."""
    return np.bincount(slide, values.astype(np.float64), slides).astype(np.float64)


def mean_over_patches(values: NDArray[np.floating] | NDArray[np.bool_], slide: Ints, slides: int) -> Share:
    """The mean of a value per patch; patches whose value is nan do not count."""
    counted = ~np.isnan(values.astype(np.float64))
    return Share(above=sums(values[counted], slide[counted], slides), below=sums(counted, slide, slides))


def draws(slides: int, resamples: int, seed: int) -> Floats64:
    """How often each slide is drawn: resamples×slides; the same for every measure of the same slides."""
    random = np.random.default_rng(seed)
    return random.multinomial(slides, np.full(slides, 1 / slides), size=resamples).astype(np.float64)


def limits(drawn: Floats64) -> tuple[float, float]:
    """The 95 % interval of what was drawn; nan if nothing of it is a number."""
    numbers = drawn[np.isfinite(drawn)]
    if not len(numbers):
        return float("nan"), float("nan")
    low, high = np.quantile(numbers, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
