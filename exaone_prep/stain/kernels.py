"""The loops over pixels that numba compiles, with the same bits as the NumPy engine.

Every value that is kept comes from separate IEEE operations on float64 or float32 (numba fuses nothing unless asked
to), from integer sums, or from selection. Two tricks make them fast:

- *Words.* A look-up fetches several lanes at once: four float32 grey levels, or two fixed-point linear forms in one
  integer. A pixel then costs three look-ups, however many lanes there are.
- *Tails.* A percentile near an end needs only the few pixels beyond a bound that a sample suggests. Whether a pixel
  lies beyond is decided generously in fixed point; those that do are computed exactly and counted. Where the bound
  was too tight, or a tail too long, all pixels are computed: the sample decides the time, never the value.

All of it stays in one file because numba's cache notices changes of the file of a kernel only.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, sqrt
from typing import Any, Final

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from exaone_prep.compilation import OPTIONS
from exaone_prep.stain.density import EXACT_SUM_PIXELS

Bytes = NDArray[np.uint8]
Longs = NDArray[np.int64]
Indices = NDArray[np.int32]
Floats = NDArray[np.float64]

NOT_KEPT: Final = -(1 << 63)
"""Entry of the table of `sum_products` for grey levels that are too bright."""


_SAMPLE: Final = 2048
_LEAST_SAMPLE: Final = 256
_BLOCK: Final = 4096
_BINS: Final = 256
_RUN: Final = 256
_BOTH_SIGNS: Final = -(1 << 63) + (1 << 31)  # bit 31 of both lanes
_HALF_LANE: Final = 1 << 31
_FORM_RANGE: Final = float(1 << 28)
_LARGEST_SUM: Final = 16.5  # above three times the largest optical density, 5.481
_TOLERANCE: Final = 4  # three roundings to ½ each, and the float error of the bound
_BRIGHT: Final = 1 << 29

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)


def _lanes(*indices: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(_I32, len(indices)), list(indices))


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return context.make_array(kind)(context, builder, array).data


def _multiply(_: Any, words: Any, places: Any, target: Any, start: Any, sums: Any) -> Any:
    """Code for `_RUN` pixels, eight at a time: three words each, multiplied, limited, truncated, summed, stored."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        tables, offsets, out, found = (_data(context, builder, signature.args[i], arguments[i]) for i in (0, 1, 2, 4))
        four, eight = ir.VectorType(ir.FloatType(), 4), ir.VectorType(_I32, 8)
        limit = ir.Constant(ir.VectorType(ir.FloatType(), 8), [255.0] * 8)
        byte = ir.Constant(eight, [255] * 8)  # says that a square fits into 16 bits
        table_bytes = builder.bitcast(tables, _I8.as_pointer())
        base = builder.gep(out, [arguments[3]])
        totals = [cgutils.alloca_once_value(builder, ir.Constant(eight, [0] * 8)) for _ in range(2)]

        def word(first: Any, place: int) -> Any:
            offset = builder.zext(builder.load(builder.gep(first, [_I64(place)])), _I64)
            row = builder.add(offset, _I64(4096 * (place % 3)))
            entry = builder.load(builder.bitcast(builder.gep(table_bytes, [row]), four.as_pointer()))
            entry.align = 4
            return entry

        with cgutils.for_range_slice(builder, _I64(0), _I64(3 * _RUN), _I64(24), _I64) as (index, _):
            first = builder.gep(offsets, [index])
            pairs = []
            for pixel in range(0, 8, 2):
                entries = [
                    builder.shuffle_vector(
                        word(first, 3 * pixel + channel), word(first, 3 * pixel + 3 + channel), _lanes(*range(8))
                    )
                    for channel in range(3)
                ]
                product = builder.fmul(builder.fmul(entries[0], entries[1]), entries[2])
                below = builder.fcmp_ordered("<", product, limit)
                levels = builder.and_(builder.fptosi(builder.select(below, product, limit), eight), byte)
                for total, addend in zip(totals, (levels, builder.mul(levels, levels)), strict=True):
                    builder.store(builder.add(builder.load(total), addend), total)
                pairs.append(levels)
            for half in range(2):
                quads = builder.shuffle_vector(pairs[2 * half], pairs[2 * half + 1], _lanes(*range(16)))
                packed = builder.trunc(quads, ir.VectorType(_I8, 16))
                rgb = builder.shuffle_vector(packed, packed, _lanes(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14))
                place = builder.gep(base, [builder.add(index, _I64(12 * half))])
                builder.store(rgb, builder.bitcast(place, ir.VectorType(_I8, 12).as_pointer())).align = 1
        for kind, total in enumerate(totals):
            lanes = builder.load(total)
            for channel in range(3):
                lane, other = (builder.extract_element(lanes, _I32(channel + at)) for at in (0, 4))
                place = builder.gep(found, [_I64(3 * kind + channel)])
                addend = builder.zext(builder.add(lane, other), _I64)
                builder.store(builder.add(builder.load(place), addend), place)
        return context.get_dummy_value()

    return types.void(words, places, target, start, sums), generate


def _outer_products(_: Any, pixels: Any, table: Any, sums: Any, start: Any, stop: Any) -> Any:
    """Code for a loop over pixels that adds (r, g, b, 1)·r, (r, g, b, 1)·g, (r, g, b, 1)·b and (r, g, b, 1)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, densities, out = (_data(context, builder, signature.args[i], arguments[i]) for i in range(3))
        longs = ir.VectorType(_I64, 4)
        nothing, ones = ir.Constant(longs, [0] * 4), ir.Constant(longs, [1] * 4)
        low = ir.Constant(longs, [0xFFFFFFFF] * 4)  # says that 32 × 32 bits are to be multiplied
        totals = [cgutils.alloca_once_value(builder, nothing) for _ in range(4)]
        with cgutils.for_range_slice(builder, arguments[3], arguments[4], _I64(1), _I64) as (index, _):
            base = builder.gep(source, [builder.mul(index, _I64(3))])
            spread = []
            for channel in range(3):
                level = builder.zext(builder.load(builder.gep(base, [_I64(channel)])), _I64)
                entry = builder.load(builder.gep(densities, [level]))
                lane = builder.insert_element(ir.Constant(longs, ir.Undefined), entry, _I32(0))
                spread.append(builder.shuffle_vector(lane, lane, _lanes(0, 0, 0, 0)))
            red, green, blue = spread
            bright = builder.icmp_signed("<", builder.or_(builder.or_(red, green), blue), nothing)
            pixel = builder.shuffle_vector(red, green, _lanes(0, 5, 2, 3))
            pixel = builder.shuffle_vector(pixel, blue, _lanes(0, 1, 6, 3))
            pixel = builder.select(bright, nothing, builder.shuffle_vector(pixel, ones, _lanes(0, 1, 2, 7)))
            factor = builder.and_(pixel, low)
            products = [builder.mul(factor, builder.and_(channel, low)) for channel in spread]
            for total, addend in zip(totals, [*products, pixel], strict=True):
                builder.store(builder.add(builder.load(total), addend), total)
        for row, total in enumerate(totals):
            place = builder.bitcast(builder.gep(out, [_I64(4 * row)]), longs.as_pointer())
            builder.store(builder.load(total), place).align = 8
        return context.get_dummy_value()

    return types.void(pixels, table, sums, start, stop), generate


multiply: Any = intrinsic(_multiply)
outer_products: Any = intrinsic(_outer_products)


def _inlined(function: Callable[..., Any]) -> Any:
    return njit(**OPTIONS)(function)


def apply(source: Bytes, words: NDArray[np.float32], target: Bytes, sums: Longs) -> None:
    """Grey levels trunc(min(255, (a · b) · c)) of the table entries of each pixel, and their sums.

    Args:
        source: uint8 (3N,).
        words: float32 (3072,), the tables of `exaone_prep.stain.tables` of one fit, flat.
        target: uint8 (3N,).
        sums: int64 (6,) to add to: the sums of red, green, blue of `target`, then of their squares.
    """
    whole = len(source) // (3 * _RUN) * (3 * _RUN)
    places = np.empty(3 * _RUN, np.uint16)
    for start in range(0, whole, 3 * _RUN):
        run = source[start : start + 3 * _RUN]
        for i in range(3 * _RUN):
            places[i] = np.uint16(run[i]) << np.uint16(4)  # bytes from the start of a table
        multiply(words, places, target, start, sums)
    for start in range(whole, len(source), 3):
        for lane in range(3):
            a = words[4 * np.int64(source[start]) + lane]
            b = words[1024 + 4 * np.int64(source[start + 1]) + lane]
            c = words[2048 + 4 * np.int64(source[start + 2]) + lane]
            level = np.uint8(min(a * b * c, np.float32(255.0)))
            target[start + lane] = level
            sums[lane] += np.int64(level)
            sums[3 + lane] += np.int64(level) * np.int64(level)


def sum_products(pixels: Bytes, table: Longs, sums: Longs) -> None:
    """Sums and products of optical densities of the kept pixels, one row per `EXACT_SUM_PIXELS` pixels.

    Args:
        pixels: uint8 (3N,).
        table: int64 (256,), `OD_FIXED` or `NOT_KEPT` for each grey level.
        sums: int64 (rows, 16) to write: rr rg rb r, gr gg gb g, br bg bb b, r g b n.
    """
    count = len(pixels) // 3
    for row in range(len(sums)):
        start = row * EXACT_SUM_PIXELS
        outer_products(pixels, table, sums[row], start, min(count, start + EXACT_SUM_PIXELS))


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
def fill_words(words: Longs, od: Floats, axes: Floats, bounds: Floats, least: float, brightest: int) -> bool:
    """Tables whose sum over a pixel has bit 31 of lane i clear wherever axes[i]·OD ≤ bounds[i], with some tolerance.

    Returns:
        Whether that is possible with these numbers: finite, and an axis not shorter than `least`.
    """
    words[:] = 0
    for lane in range(2):
        largest = max(abs(axes[lane, 0]), abs(axes[lane, 1]), abs(axes[lane, 2]))
        scale = _FORM_RANGE / (_LARGEST_SUM * largest)
        offset = bounds[lane] * scale
        if not largest >= least or not isfinite(scale) or not abs(offset) <= _FORM_RANGE:
            return False
        base = _HALF_LANE - np.int64(np.rint(offset)) - _TOLERANCE
        for channel in range(3):
            factor = axes[lane, channel] * scale
            for level in range(256):
                entry = np.int64(np.rint(factor * od[level])) if level <= brightest else np.int64(_BRIGHT)
                if channel == 0:
                    entry += base
                words[channel, level] += entry << (32 * lane)
    return True


@_inlined
def scan(pixels: Bytes, words: Longs, start: int, index: Indices) -> int:
    """One block of `tail`."""
    red, green, blue = words[0], words[1], words[2]
    found = np.uint64(0)  # unsigned: numba then need not look for indices that count from the end
    for i in range(len(pixels) // 3):
        word = red[pixels[3 * i]] + green[pixels[3 * i + 1]] + blue[pixels[3 * i + 2]]
        index[found] = np.int32(start + i)
        found += np.uint64((word & _BOTH_SIGNS) != _BOTH_SIGNS)
    return int(np.int64(found))


@_inlined
def tail(pixels: Bytes, words: Longs, index: Indices) -> int:
    """Pixels of which bit 31 of a lane is clear, into `index`; −1 if they are too many for it."""
    found = 0
    count = len(pixels) // 3
    for start in range(0, count, _BLOCK):
        if found + _BLOCK > len(index):
            return -1
        found += scan(pixels[3 * start : 3 * min(count, start + _BLOCK)], words, start, index[found:])
    return found


def pseudo_angles(
    pixels: Bytes, od: Floats, brightest: int, kept: int, axes: Floats, ranks: Longs, result: Floats
) -> None:
    """Two order statistics of the pseudo-angle of the kept pixels from axes[0] towards axes[1].

    Args:
        pixels: uint8 (3N,).
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
            words = np.empty((3, 256), np.int64)
            if fill_words(words, od, sides, np.zeros(2, np.float64), 0.1, brightest):
                index = np.empty(count // 8 + 2 * _BLOCK, np.int32)
                found = tail(pixels, words, index)
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


def concentrations(pixels: Bytes, od: Floats, inverse: Floats, rank: int, result: Floats) -> None:
    """Order statistic of the concentration of each stain over all pixels.

    Args:
        pixels: uint8 (3N,).
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
    words = np.empty((3, 256), np.int64)
    if fill_words(words, od, -inverse, bounds, 0.0, 255):
        index = np.empty(count // 8 + 2 * _BLOCK, np.int32)
        found = tail(pixels, words, index)
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
