"""Whether the slides in shards are mixed as by chance: neither clumped nor dealt out evenly.

A collection is a list of shards that are filled from the same samples: all shards of a group, or of a whole split.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Shard = NDArray[np.int64]
Collection = Sequence[Shard]
"""Per shard the slide number of every sample, in the order of the shard."""

LEAST_EXPECTED = 5
LEAST_KS_P = 0.001
MOST_SIGMAS = 4.0


def assert_mixed(collections: Sequence[Collection], *, least_shards: int = 200) -> None:
    """Fail unless slide histograms and neighbours are those of a random order."""
    p_values = [p for shards in collections for p in histogram_p_values(shards)]
    assert len(p_values) >= least_shards, f"{len(p_values)} shards are too few to judge"
    ks = stats.kstest(p_values, "uniform").pvalue
    assert ks > LEAST_KS_P, f"slide histograms of {len(p_values)} shards: KS p = {ks:.2g}"
    sigmas = neighbour_sigmas(collections)
    assert abs(sigmas) <= MOST_SIGMAS, f"neighbours of one slide: {sigmas:.1f} standard deviations from chance"


def histogram_p_values(shards: Collection) -> list[float]:
    """Of Pearson's chi-square per shard; a shard is drawn without replacement from what all shards hold."""
    totals = np.bincount(np.concatenate(shards))
    population = int(totals.sum())
    p_values = []
    for shard in shards:
        share = np.float64(len(shard) / population)
        expected, observed = _pooled(totals * share, np.bincount(shard, minlength=len(totals)))
        # Without replacement counts scatter less than multinomial ones, by this factor.
        scatter = (population - len(shard)) / (population - 1)
        statistic = float(((observed - expected) ** 2 / expected).sum()) / scatter
        p_values.append(float(stats.chi2.sf(statistic, len(expected) - 1)))
    return p_values


def _pooled(
    expected: NDArray[np.float64], observed: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Slides of small expected counts taken together, the smallest first, until none is small."""
    order = np.argsort(expected, kind="stable")
    expected, observed = expected[order], observed[order]
    cut = int(np.searchsorted(expected, LEAST_EXPECTED))
    while 0 < cut < len(expected) and expected[:cut].sum() < LEAST_EXPECTED:
        cut += 1
    if cut:
        expected = np.append(expected[cut:], expected[:cut].sum())
        observed = np.append(observed[cut:], observed[:cut].sum())
    assert len(expected) > 1, "shards this small cannot be judged"
    return expected, observed


def neighbour_sigmas(collections: Sequence[Collection]) -> float:
    """How far the number of neighbours of one slide is from chance, in standard deviations; positive is clumped."""
    found = expected = variance = Fraction(0)
    for shards in collections:
        places = np.concatenate(shards)
        found += int(np.count_nonzero(places[1:] == places[:-1]))
        mean, spread = neighbour_moments(np.bincount(places).tolist())
        expected += mean
        variance += spread
    return float(found - expected) / sqrt(variance)


def neighbour_moments(counts: Sequence[int]) -> tuple[Fraction, Fraction]:
    """Mean and variance of the number of equal neighbours in a random permutation of things of these counts."""
    total = sum(counts)
    if total < 4:
        raise ValueError("the moments need four things")
    falling = [[_falling(count, k) for count in counts] for k in range(5)]
    pair = Fraction(sum(falling[2]), _falling(total, 2))
    triple = Fraction(sum(falling[3]), _falling(total, 3))
    # Two pairs apart from each other: both of one slide, or of two slides.
    apart = sum(falling[4]) + sum(falling[2]) ** 2 - sum(value * value for value in falling[2])
    two_pairs = Fraction(apart, _falling(total, 4))
    mean = (total - 1) * pair
    square = (total - 1) * pair + 2 * (total - 2) * triple + (total - 2) * (total - 3) * two_pairs
    return mean, square - mean * mean


def _falling(number: int, factors: int) -> int:
    product = 1
    for k in range(factors):
        product *= number - k
    return product
