"""How sure a difference between two arms is: it varies with the slides that are looked at, and with the seeds.

All runs are measured on the same draws of slides. What slides add is what the cluster bootstrap over them makes of the
mean over seeds. What seeds add is the spread of their figures; of a difference, that of the differences seed by seed,
since runs of one seed see the same crops of the same patches. The two are added, and limits are those of Student's t
with the degrees of freedom of Satterthwaite (1946).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t

from exaone_train.collapse.interval import LEVEL, Floats64
from exaone_train.collapse.measured import Measured

POWER = 0.8
"""Chance that a difference of the smallest detectable size is told apart from none."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What makes a figure vary, apart from how many slides and seeds there are.

    Attributes:
        of_slides: Standard error over slides (or what else is drawn) times the root of their number.
        of_seeds: Standard deviation between seeds; 0 where there is one alone and nothing is known of it.
    """

    of_slides: float
    of_seeds: float

    def error(self, slides: int, seeds: int) -> tuple[float, float]:
        """Standard error and its degrees of freedom; nan of one slide, which tells nothing of others."""
        if slides < 2:
            return math.nan, math.nan
        slide, seed = self.of_slides**2 / slides, self.of_seeds**2 / seeds
        if not slide + seed:
            return 0.0, float(slides - 1)
        of_seeds = seed**2 / (seeds - 1) if seed else 0.0
        return (slide + seed) ** 0.5, (slide + seed) ** 2 / (slide**2 / (slides - 1) + of_seeds)

    def detectable(self, slides: int, seeds: int) -> float:
        """The smallest true difference that is told apart from none with a chance of 80 %."""
        error, freedom = self.error(slides, seeds)
        return float((t.ppf((1 + LEVEL) / 2, freedom) + t.ppf(POWER, freedom)) * error)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure of an arm, or a difference of two.

    Attributes:
        value: Mean over seeds.
        spread: Around it.
        slides: That tell anything of it; laboratories where these are drawn.
        seeds: The figure of each.
    """

    value: float
    spread: Spread
    slides: int
    seeds: tuple[float, ...]

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %, over slides and seeds; nan where there is one slide alone."""
        error, freedom = self.spread.error(self.slides, len(self.seeds))
        reach = float(t.ppf((1 + LEVEL) / 2, freedom)) * error
        return self.value - reach, self.value + reach

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves 0 out."""
        low, high = self.interval
        return low > 0 or high < 0

    def to_json(self) -> dict[str, Any]:
        """Of plain values; limits that are none are null."""
        low, high = (None if math.isnan(limit) else limit for limit in self.interval)
        return {"value": self.value, "low": low, "high": high, "seeds": list(self.seeds), "slides": self.slides}


def estimate(runs: Sequence[Measured], slides: int) -> Estimate:
    """A measure of one arm.

    Args:
        runs: One of each seed, on the same draws of slides.
        slides: How many there are; a measure may rest on fewer, and say so.
    """
    return _estimate([run.value for run in runs], _mean(runs), _telling(runs, slides))


def difference(runs: Sequence[Measured], others: Sequence[Measured], slides: int) -> Estimate:
    """A measure of one arm minus that of another; the same seeds in the same order, on the same draws of slides."""
    values = [run.value - other.value for run, other in zip(runs, others, strict=True)]
    return _estimate(values, _mean(runs) - _mean(others), min(_telling(arm, slides) for arm in (runs, others)))


def _estimate(values: Sequence[float], drawn: Floats64, slides: int) -> Estimate:
    known = drawn[np.isfinite(drawn)]
    # Draws of n vary by (n − 1)/n of what n vary; times √n, it is √(n²/(n − 1)) in all.
    of_slides = float(known.std()) * slides / (slides - 1) ** 0.5 if slides > 1 and len(known) else math.nan
    of_seeds = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    spread = Spread(of_slides=of_slides, of_seeds=of_seeds)
    return Estimate(value=float(np.mean(values)), spread=spread, slides=slides, seeds=tuple(values))


def _mean(runs: Sequence[Measured]) -> Floats64:
    mean: Floats64 = np.mean(np.stack([run.drawn for run in runs]), axis=0)
    return mean


def _telling(runs: Sequence[Measured], slides: int) -> int:
    told = (run.details.get("slides") for run in runs)
    return min([number for number in told if isinstance(number, int)], default=slides)
