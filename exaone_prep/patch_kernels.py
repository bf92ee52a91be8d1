"""Loops over the pixels of a patch that numba compiles: what the quality measures and the channel sums count.

Integers all through. Sums over columns are kept in arrays as wide as a row, in the narrowest type that holds them,
because that is what a compiler turns into vector instructions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Longs = NDArray[np.int64]


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
    white_min, white_max_chroma, dark_max = limits[0], limits[1], limits[2]
    green_over_red, blue_over_red, blue_green_over_red, red_over_rest = limits[3], limits[4], limits[5], limits[6]
    width, cells = 24 * columns, 4 * columns
    stripe, pairs = np.empty(width, np.uint16), np.empty(width, np.uint16)
    light = np.zeros((3, cells), np.int16)  # of the latest three rows; at most 1020
    # Of one column at most 2040 · 3 per row: 32 bits hold a million rows.
    slopes, bends = np.zeros(cells, np.uint32), np.zeros(cells, np.uint32)
    white, black, pen = 0, 0, 0
    for block_row in range(rows):
        stripe[:] = 0
        for half in range(4):
            number = 4 * block_row + half
            upper, lower = pixels[2 * number], pixels[2 * number + 1]
            for i in range(width):
                pairs[i] = np.uint16(upper[i]) + np.uint16(lower[i])
            for i in range(width):
                stripe[i] += pairs[i]
            here, above, before = light[number % 3], light[(number + 2) % 3], light[(number + 1) % 3]
            for j in range(cells):
                here[j] = np.int16(pairs[6 * j + 1] + pairs[6 * j + 4])
            for j in range(cells - 1):
                slopes[j] += np.uint32(abs(np.int32(here[j + 1]) - np.int32(here[j])))
            for j in range(cells - 2):
                bends[j] += np.uint32(abs(np.int32(here[j + 2]) - 2 * np.int32(here[j + 1]) + np.int32(here[j])))
            if number >= 1:
                for j in range(cells):
                    slopes[j] += np.uint32(abs(np.int32(here[j]) - np.int32(above[j])))
            if number >= 2:
                for j in range(cells):
                    bends[j] += np.uint32(abs(np.int32(here[j]) - 2 * np.int32(above[j]) + np.int32(before[j])))
        for block in range(columns):
            red, green, blue = np.int64(0), np.int64(0), np.int64(0)
            for k in range(8):
                red += np.int64(stripe[24 * block + 3 * k])
                green += np.int64(stripe[24 * block + 3 * k + 1])
                blue += np.int64(stripe[24 * block + 3 * k + 2])
            red, green, blue = (red + 32) >> 6, (green + 32) >> 6, (blue + 32) >> 6
            lightest = max(red, green, blue)
            chroma = lightest - min(red, green, blue)
            white += lightest - chroma >= white_min and chroma <= white_max_chroma
            if lightest < dark_max:
                black += 1
            else:
                pen += (
                    green - red >= green_over_red
                    or (blue - red >= blue_over_red and green - red >= blue_green_over_red)
                    or red - max(green, blue) >= red_over_rest
                )
    bend, slope = np.int64(0), np.int64(0)
    for j in range(cells):
        bend += np.int64(bends[j])
        slope += np.int64(slopes[j])
    result[0], result[1], result[2], result[3], result[4] = white, black, pen, bend, slope


def add_channels(pixels: Bytes, result: Longs) -> None:
    """Add the sums and the sums of squares of each channel.

    Args:
        pixels: uint8 (H, 3W), rows of red, green, blue; H up to 66,051.
        result: int64 (6,) to add to: sums of red, green, blue, then of their squares.
    """
    width = pixels.shape[1]
    # 66,051 squares of 255 fit into 32 bits.
    sums, squares = np.zeros(width, np.uint32), np.zeros(width, np.uint32)
    for y in range(pixels.shape[0]):
        row = pixels[y]
        for i in range(width):
            sums[i] += np.uint32(row[i])
        for i in range(width):
            squares[i] += np.uint32(np.uint16(row[i]) * np.uint16(row[i]))
    for i in range(0, width, 3):
        for channel in range(3):
            result[channel] += np.int64(sums[i + channel])
            result[3 + channel] += np.int64(squares[i + channel])
