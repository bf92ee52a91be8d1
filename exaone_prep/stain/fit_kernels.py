"""The loops over pixels that find a stain, for numba, with the same bits as the NumPy engine.

Every value that is kept comes from separate IEEE operations on float64 (numba fuses nothing unless asked to), from
integer sums, or from selection. What makes them fast: a percentile near an end needs only the few pixels beyond a bound
that a sample suggests. Whether a pixel lies beyond is decided generously in 16-bit fixed point, sixteen pixels at a
time; those that do are computed exactly and counted. Where the bound was too tight, or a tail too long, all pixels are
computed: the sample decides the time, never the value.

All of it stays in one file because numba's cache notices changes of the file of a kernel only.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, sqrt
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from exaone_prep.compilation import OPTIONS
from exaone_prep.stain.density import EXACT_SUM_PIXELS, FIXED_POINT_BITS

Bytes = NDArray[np.uint8]
Shorts = NDArray[np.int16]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Singles = NDArray[np.float32]
Floats = NDArray[np.float64]

COARSE_BITS: Final = 12
"""Fractional bits of a density in 16 bits: 5.481 is the largest."""

_SHIFT: Final = FIXED_POINT_BITS - COARSE_BITS
_SAMPLE: Final = 1024
_LEAST_SAMPLE: Final = 256
_RUN: Final = 1024
_BLOCK: Final = 4096
_BINS: Final = 256
_LARGEST_LIMIT: Final = float(1 << 20)
# Each of three densities is cut off by up to one unit; factors and sums in 24 bits add less than a tenth.
_TOLERANCE: Final = 4.0


def _inlined(function: Callable[..., Any]) -> Any:
    return njit(**OPTIONS)(function)


def sum_products(pixels: Bytes, od: Ints, brightest: int, coarse: Shorts, kept: Bytes, sums: Longs) -> None:
    """Sums and products of optical densities of the kept pixels; all densities in 16 bits for the searches to come.

    Args:
        pixels: uint8 (3N,).
        od: int32 (256,), `OD_FIXED`.
        brightest: Grey level up to which a pixel is kept.
        coarse: int16 (3, N) to write: densities of red, green, blue with `COARSE_BITS`.
        kept: uint8 (N,) to write: 1 where a pixel is kept.
        sums: int64 (rows, 10) to write, a row per `EXACT_SUM_PIXELS` pixels: r g b, rr rg rb gg gb bb, n.
    """
    count = len(pixels) // 3
    red, green, blue = np.empty(_RUN, np.int32), np.empty(_RUN, np.int32), np.empty(_RUN, np.int32)
    coarse_red, coarse_green, coarse_blue = coarse[0], coarse[1], coarse[2]
    sums[:] = 0
    for start in range(0, count, _RUN):
        end = min(count, start + _RUN)
        run, some = pixels[3 * start : 3 * end], end - start
        look_up(run, od, 0, red[:some])
        look_up(run, od, 1, green[:some])
        look_up(run, od, 2, blue[:some])
        halve(red[:some], coarse_red[start:end])
        halve(green[:some], coarse_green[start:end])
        halve(blue[:some], coarse_blue[start:end])
        found = sums[start // EXACT_SUM_PIXELS]
        found[9] += keep(red[:some], green[:some], blue[:some], np.int32(od[brightest]), kept[start:end])
        add_products(red[:some], green[:some], blue[:some], kept[start:end], found)


# Few arrays in each loop: a compiler that has to make sure that many do not overlap leaves a loop as it is.


@_inlined
def look_up(pixels: Bytes, od: Ints, channel: int, densities: Ints) -> None:
    """Densities of one channel."""
    for i in range(len(densities)):
        densities[i] = od[pixels[3 * i + channel]]


@_inlined
def halve(densities: Ints, coarse: Shorts) -> None:
    """Densities in 32 bits to such in 16."""
    for i in range(len(densities)):
        coarse[i] = np.int16(densities[i] >> _SHIFT)


@_inlined
def keep(red: Ints, green: Ints, blue: Ints, least: np.int32, kept: Bytes) -> np.int32:
    """Which pixels are dense enough in every channel, and how many they are."""
    for i in range(len(kept)):
        kept[i] = np.uint8((red[i] >= least) & (green[i] >= least) & (blue[i] >= least))
    count = np.int32(0)
    for i in range(len(kept)):
        count += np.int32(kept[i])
    return count


@_inlined
def add_products(red: Ints, green: Ints, blue: Ints, kept: Bytes, sums: Longs) -> None:
    """Add one run of `sum_products`, the count excepted."""
    r, g, b = np.int64(0), np.int64(0), np.int64(0)
    rr, rg, rb = np.int64(0), np.int64(0), np.int64(0)
    gg, gb, bb = np.int64(0), np.int64(0), np.int64(0)
    for i in range(len(red)):
        mask = -np.int64(kept[i])
        x, y, z = np.int64(red[i]) & mask, np.int64(green[i]) & mask, np.int64(blue[i]) & mask
        r += x
        g += y
        b += z
        rr += x * x
        rg += x * y
        rb += x * z
        gg += y * y
        gb += y * z
        bb += z * z
    for place, found in enumerate((r, g, b, rr, rg, rb, gg, gb, bb)):
        sums[place] += found


@_inlined
def project(od: Floats, red: int, green: int, blue: int, axis: Floats) -> float:
    """OD · axis, added in channel order."""
    total: float = od[red] * axis[0] + od[green] * axis[1] + od[blue] * axis[2]
    return total


@_inlined
def angle_of(x: float, y: float) -> float:
    """Pseudo-angle by the operations of `numpy_engine.pseudo_angle`, in its order."""
    y = y + 0.0
    length = abs(x) + abs(y)
    angle = y / (1.0 if length == 0.0 else length)
    if x < 0.0:
        angle = (-2.0 if y < 0.0 else 2.0) - angle
    return angle


@_inlined
def select(values: Floats, count: int, rank: int) -> float:
    """The value of a rank among the first `count`; shuffles them. Bins of equal width, then the one that holds it."""
    bins = np.empty(_BINS, np.int64)
    while count > 16:
        # Two chains each, because one minimum waits for the one before.
        low, high, other_low, other_high = values[0], values[0], values[1], values[1]
        for i in range(1, count // 2):
            low, high = min(low, values[2 * i]), max(high, values[2 * i])
            other_low, other_high = min(other_low, values[2 * i + 1]), max(other_high, values[2 * i + 1])
        low = min(min(low, other_low), values[count - 1])
        high = max(max(high, other_high), values[count - 1])
        if low == high:
            return float(low) + 0.0
        scale = (_BINS - 1) / (high - low)
        if not isfinite(scale) or not isfinite(high - low):
            break
        bins[:] = 0
        for i in range(count):
            bins[np.int64((values[i] - low) * scale)] += 1
        chosen, before = 0, 0
        while before + bins[chosen] <= rank:
            before += bins[chosen]
            chosen += 1
        rank -= before
        left = 0
        for i in range(count):
            value = values[i]
            values[left] = value
            left += np.int64((value - low) * scale) == chosen
        count = left
    # Few are left, or their range is too small to be divided: Hoare's selection.
    first, last = 0, count - 1
    while first < last:
        pivot = values[(first + last) // 2]
        i, j = first, last
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i, j = i + 1, j - 1
        first, last = (i if j < rank else first), (j if rank < i else last)
    return float(values[rank]) + 0.0


@_inlined
def bound_below(sample: Floats, taken: int, rank: int, total: int) -> float:
    """A value that the one of `rank` of all is most probably not above, by the sample; inf where it cannot tell."""
    place = rank * taken // total
    place += 3 + int(3.0 * sqrt(float(place)))
    if taken < _LEAST_SAMPLE or place > taken // 4:
        return float(np.inf)
    return float(select(sample[:taken].copy(), taken, place))


@_inlined
def coarse_forms(axes: Floats, bounds: Floats, least: float, factors: Singles, limits: Singles) -> bool:
    """Factors and limits by which a coarse pixel with axes[i]·OD ≤ bounds[i] has factors[i]·densities ≤ limits[i].

    Returns:
        Whether that is possible with these numbers: finite, and an axis not shorter than `least`.
    """
    for lane in range(2):
        largest = max(abs(axes[lane, 0]), abs(axes[lane, 1]), abs(axes[lane, 2]))
        limit = bounds[lane] / largest * (1 << COARSE_BITS) + _TOLERANCE
        if not largest >= least or not abs(limit) <= _LARGEST_LIMIT:
            return False
        for channel in range(3):
            factors[lane, channel] = np.float32(axes[lane, channel] / largest)
        limits[lane] = np.float32(limit)
    return True


@_inlined
def flag(
    red: Shorts, green: Shorts, blue: Shorts, factors: Singles, limits: Singles, kept: Bytes, least: int, flags: Bytes
) -> None:
    """Which pixels of a block lie within a limit on either axis, and are kept as asked for."""
    a, b, c = factors[0, 0], factors[0, 1], factors[0, 2]
    d, e, f = factors[1, 0], factors[1, 1], factors[1, 2]
    first, second, wanted = limits[0], limits[1], np.uint8(least)
    for i in range(len(flags)):
        x, y, z = np.float32(red[i]), np.float32(green[i]), np.float32(blue[i])
        near = (a * x + b * y + c * z <= first) | (d * x + e * y + f * z <= second)
        flags[i] = np.uint8(near & (kept[i] >= wanted))


@_inlined
def tail(coarse: Shorts, kept: Bytes, least: int, factors: Singles, limits: Singles, index: Ints) -> int:
    """The flagged pixels, into `index`; −1 if they are too many for it."""
    found = np.uint64(0)  # unsigned: numba then need not look for indices that count from the end
    count = len(kept)
    red, green, blue = coarse[0], coarse[1], coarse[2]
    flags = np.zeros(_BLOCK, np.uint8)
    words = flags.view(np.uint64)
    for start in range(0, count, _BLOCK):
        if np.int64(found) + _BLOCK > len(index):
            return -1
        end = min(count, start + _BLOCK)
        if end - start < _BLOCK:
            flags[:] = 0
        flag(
            red[start:end],
            green[start:end],
            blue[start:end],
            factors,
            limits,
            kept[start:end],
            least,
            flags[: end - start],
        )
        for place in range(_BLOCK // 8):
            word = words[place]
            if word != 0:
                for i in range(8):
                    index[found] = np.int32(start + 8 * place + i)
                    found += (word >> np.uint64(8 * i)) & np.uint64(1)
    return int(np.int64(found))


def pseudo_angles(
    pixels: Bytes,
    coarse: Shorts,
    passed: Bytes,
    od: Floats,
    brightest: int,
    kept: int,
    axes: Floats,
    ranks: Longs,
    result: Floats,
) -> None:
    """Two order statistics of the pseudo-angle of the kept pixels from axes[0] towards axes[1].

    Args:
        pixels: uint8 (3N,).
        coarse: int16 (3, N), from `sum_products`.
        passed: uint8 (N,), likewise.
        od: float64 (256,), `OD_TABLE`.
        brightest: Grey level up to which a pixel is kept.
        kept: Number of kept pixels.
        axes: float64 (2, 3), orthonormal.
        ranks: int64 (2,), from 0; one near either end.
        result: float64 (2,) to write.
    """
    count, first, second = len(pixels) // 3, axes[0], axes[1]
    # With first ≥ 0 all angles lie within ±90°, and beyond a direction means on one side of its line.
    if min(first[0], first[1], first[2]) >= 0.0:
        sample = np.empty(2 * _SAMPLE, np.float64)
        taken = 0
        for i in range(0, count, (count // _SAMPLE) | 1):
            r, g, b = pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]
            if max(r, g, b) <= brightest:
                sample[taken] = angle_of(project(od, r, g, b, first), project(od, r, g, b, second))
                taken += 1
        low = bound_below(sample, taken, ranks[0], kept)
        for i in range(taken):
            sample[i] = -sample[i]
        high = -bound_below(sample, taken, kept - 1 - ranks[1], kept)
        if abs(low) <= 1.0 and abs(high) <= 1.0:
            sides = np.empty((2, 3), np.float64)
            for channel in range(3):
                sides[0, channel] = (1.0 - abs(low)) * second[channel] - low * first[channel]
                sides[1, channel] = high * first[channel] - (1.0 - abs(high)) * second[channel]
            factors, limits = np.empty((2, 3), np.float32), np.empty(2, np.float32)
            if coarse_forms(sides, np.zeros(2, np.float64), 0.1, factors, limits):
                index = np.empty(count // 8 + 2 * _BLOCK, np.int32)
                found = tail(coarse, passed, 1, factors, limits, index)
                lows, highs = np.empty((2, max(found, 0)), np.float64)
                n_low, n_high = np.uint64(0), np.uint64(0)
                for k in range(found):
                    i = index[k]
                    r, g, b = pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]
                    angle = angle_of(project(od, r, g, b, first), project(od, r, g, b, second))
                    lows[n_low] = angle
                    n_low += np.uint64(angle <= low)
                    highs[n_high] = angle
                    n_high += np.uint64(angle >= high)
                below, above = np.int64(n_low), np.int64(n_high)
                if ranks[0] < below and kept - ranks[1] <= above:
                    result[0] = select(lows, below, ranks[0])
                    result[1] = select(highs, above, ranks[1] - (kept - above))
                    return
    angles = np.empty(kept, np.float64)
    k = 0
    for i in range(count):
        r, g, b = pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]
        if max(r, g, b) <= brightest:
            angles[k] = angle_of(project(od, r, g, b, first), project(od, r, g, b, second))
            k += 1
    result[0] = select(angles.copy(), kept, ranks[0])
    result[1] = select(angles, kept, ranks[1])


def concentrations(
    pixels: Bytes, coarse: Shorts, passed: Bytes, od: Floats, inverse: Floats, rank: int, result: Floats
) -> None:
    """Order statistic of the concentration of each stain over all pixels.

    Args:
        pixels: uint8 (3N,).
        coarse: int16 (3, N), from `sum_products`.
        passed: uint8 (N,), likewise.
        od: float64 (256,), `OD_TABLE`.
        inverse: float64 (2, 3), rows of the pseudo-inverse of the stain matrix.
        rank: From 0, near the upper end.
        result: float64 (2,) to write.
    """
    count, done = len(pixels) // 3, False
    sample, bounds = np.empty(2 * _SAMPLE, np.float64), np.empty(2, np.float64)
    for stain in range(2):
        taken = 0
        for i in range(0, count, (count // _SAMPLE) | 1):
            sample[taken] = -project(od, pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2], inverse[stain])
            taken += 1
        bounds[stain] = bound_below(sample, taken, count - 1 - rank, count)
    factors, limits = np.empty((2, 3), np.float32), np.empty(2, np.float32)
    if coarse_forms(-inverse, bounds, 0.0, factors, limits):
        index = np.empty(count // 8 + 2 * _BLOCK, np.int32)
        found = tail(coarse, passed, 0, factors, limits, index)
        done = found >= 0
        values = np.empty(max(found, 0), np.float64)
        for stain in range(2):
            n = np.uint64(0)
            for k in range(found):
                i = index[k]
                value = project(od, pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2], inverse[stain])
                values[n] = value
                n += np.uint64(value >= -bounds[stain])
            above = np.int64(n)
            if count - rank <= above:
                result[stain] = select(values, above, rank - (count - above))
            else:
                done = False
    if not done:
        everything = np.empty(count, np.float64)
        for stain in range(2):
            for i in range(count):
                everything[i] = project(od, pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2], inverse[stain])
            result[stain] = select(everything, count, rank)
