"""Loops over the pixels of a patch that numba compiles: what the quality measures and the channel sums count.

Integers all through. Sums over columns are kept in arrays as wide as a row, in the narrowest type that holds them,
because that is what a compiler turns into vector instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from exaone_prep.compilation import OPTIONS

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint16]
Shorts = NDArray[np.int16]
Longs = NDArray[np.int64]


def _inlined(function: Callable[..., Any]) -> Any:
    return njit(**OPTIONS)(function)


def count_quality(pixels: Bytes, limits: Longs, result: Longs) -> None:
    """Blocks of glass, of darkness and of ink, and the differences between neighbours.

    Args:
        pixels: uint8 (H, 3W), rows of red, green, blue; H and W at least 8. What lies beyond a multiple of 8 is not
            judged.
        limits: int64 (7,): the limits of `exaone_prep.quality` in the order of `quality.LIMITS`.
        result: int64 (5,) to write: blocks white, black, pen; sums of the second and of the first differences of green
            at half the resolution.
    """
    rows, columns = pixels.shape[0] // 8, pixels.shape[1] // 24
    width, cells = 24 * columns, 4 * columns
    # Loops run over whole rows though the last entries mean nothing: an even count needs no loop for the rest.
    stripe, pairs = np.empty(width + 24, np.uint16), np.empty(width, np.uint16)
    stripe[width:] = 0
    light = np.zeros((3, cells + 2), np.uint16)  # of the latest three rows; at most 1020
    across, down = np.zeros(cells, np.uint16), np.zeros(cells, np.uint16)
    bends_across, bends_down = np.zeros(cells, np.uint16), np.zeros(cells, np.uint16)
    colours = np.empty((3, columns), np.int16)
    counts = np.zeros(3, np.int64)
    bend, slope = np.int64(0), np.int64(0)
    for block_row in range(rows):
        stripe[:width] = 0
        for half in range(4):
            number = 4 * block_row + half
            upper, lower = pixels[2 * number], pixels[2 * number + 1]
            for i in range(width):
                pairs[i] = np.uint16(upper[i]) + np.uint16(lower[i])
                stripe[i] += pairs[i]
            here, above, before = light[number % 3], light[(number + 2) % 3], light[(number + 1) % 3]
            for j in range(cells):
                here[j] = np.uint16(pairs[6 * j + 1] + pairs[6 * j + 4])
            for j in range(cells):
                across[j] += apart(here[j + 1], here[j])
                bends_across[j] += apart(np.uint16(here[j + 2] + here[j]), np.uint16(here[j + 1] + here[j + 1]))
            if number >= 1:
                for j in range(cells):
                    down[j] += apart(here[j], above[j])
            if number >= 2:
                for j in range(cells):
                    bends_down[j] += apart(np.uint16(here[j] + before[j]), np.uint16(above[j] + above[j]))
        count_blocks(stripe, colours, limits, counts)
        if block_row % 8 == 7 or block_row == rows - 1:
            # 32 times 2040 fit into 16 bits.
            slope += np.int64(total(across[: cells - 1])) + np.int64(total(down))
            bend += np.int64(total(bends_across[: cells - 2])) + np.int64(total(bends_down))
            across[:], down[:], bends_across[:], bends_down[:] = 0, 0, 0, 0
    result[:3] = counts
    result[3], result[4] = bend, slope


@_inlined
def apart(a: np.uint16, b: np.uint16) -> np.uint16:
    """How far apart two values are."""
    return np.uint16(max(a, b) - min(a, b))


@_inlined
def total(values: Words) -> np.uint32:
    """Sum of up to 65,537 values."""
    found = np.uint32(0)
    for i in range(len(values)):
        found += np.uint32(values[i])
    return found


@_inlined
def count_blocks(stripe: Words, colours: Shorts, limits: Longs, counts: Longs) -> None:
    """Judge one row of blocks; adds white, black, pen to `counts`.

    Args:
        stripe: uint16 (24N + 24,), sums over 8 rows of red, green, blue; is overwritten. The last 24 mean nothing.
        colours: int16 (3, N), for use in here.
        limits: See `count_quality`.
        counts: int64 (3,) to add to.
    """
    columns = colours.shape[1]
    for step in (3, 6, 12):
        for i in range(24 * columns):
            stripe[i] += stripe[i + step]
    for block in range(columns):
        for channel in range(3):
            colours[channel, block] = np.int16((stripe[24 * block + channel] + np.uint16(32)) >> np.uint16(6))
    white_min, white_max_chroma, dark_max = np.int16(limits[0]), np.int16(limits[1]), np.int16(limits[2])
    green_over_red, blue_over_red = np.int16(limits[3]), np.int16(limits[4])
    blue_green_over_red, red_over_rest = np.int16(limits[5]), np.int16(limits[6])
    reds, greens, blues = colours[0], colours[1], colours[2]
    white, black, pen = np.int32(0), np.int32(0), np.int32(0)
    for block in range(columns):
        red, green, blue = reds[block], greens[block], blues[block]
        lightest, darkest = max(max(red, green), blue), min(min(red, green), blue)
        dark = lightest < dark_max
        ink = (
            (green - red >= green_over_red)
            | ((blue - red >= blue_over_red) & (green - red >= blue_green_over_red))
            | (red - max(green, blue) >= red_over_rest)
        )
        white += np.int32((darkest >= white_min) & (lightest - darkest <= white_max_chroma))
        black += np.int32(dark)
        pen += np.int32(ink & (not dark))
    counts[0] += white
    counts[1] += black
    counts[2] += pen


def add_channels(pixels: Bytes, result: Longs) -> None:
    """Add the sums and the sums of squares of each channel.

    Args:
        pixels: uint8 (H, 3W), rows of red, green, blue.
        result: int64 (6,) to add to: sums of red, green, blue, then of their squares.
    """
    height, width = pixels.shape
    sums, squares = np.zeros(width, np.uint16), np.zeros(width, np.uint32)
    for top in range(0, height, 256):
        # 256 times 255 fit into 16 bits.
        sums[:], squares[:] = 0, 0
        for y in range(top, min(height, top + 256)):
            row = pixels[y]
            for i in range(width):
                level = np.uint16(row[i])
                sums[i] += level
                squares[i] += np.uint32(level * level)
        for i in range(0, width, 3):
            for channel in range(3):
                result[channel] += np.int64(sums[i + channel])
                result[3 + channel] += np.int64(squares[i + channel])
