"""Shrinking patches by area: integer arithmetic throughout, so that every CPU gives the same bytes."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_MAX_UINT32: Final = 2**32 - 1


def reduce_area(rgb: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The mean of every `factor` × `factor` square of pixels, halves rounded up.

    Args:
        rgb: H×W×3, both sides multiples of `factor`.
        factor: At least 1, at most 4096.

    Returns:
        (H / factor)×(W / factor)×3; the array itself for a factor of 1.

    Raises:
        ValueError: A side is not a multiple of `factor`, or the factor is out of range.
    """
    height, width, channels = rgb.shape
    if not 1 <= factor <= 4096 or height % factor or width % factor:
        raise ValueError(f"{width}×{height} px do not reduce by {factor}")
    if factor == 1:
        return rgb
    wide = np.uint16 if 255 * factor * factor + factor * factor // 2 < 2**16 else np.uint32
    # Rows first: they lie one behind the other, so this is one pass over whole lines.
    rows = rgb.reshape(height // factor, factor, width * channels)
    lines = np.add(rows[:, 0], rows[:, 1], dtype=wide)
    for row in range(2, factor):
        lines += rows[:, row]
    columns = lines.reshape(height // factor, width // factor, factor, channels)
    area = factor * factor
    means = np.empty((height // factor, width // factor, channels), dtype=np.uint8)
    # Channel by channel: NumPy's inner loop then runs along a line, and not over three values.
    for channel in range(channels):
        sums = columns[:, :, 0, channel] + columns[:, :, 1, channel]
        for column in range(2, factor):
            sums += columns[:, :, column, channel]
        sums += wide(area // 2)
        if factor & (factor - 1):
            sums //= wide(area)
        else:
            sums >>= wide(area.bit_length() - 1)
        means[:, :, channel] = sums
    return means


def resize_area(rgb: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Shrink a square to `size_px`: each new pixel is the mean over its area, halves rounded up.

    With R pixels becoming S, a new pixel spans R/S old ones. Counted in S-ths of an old pixel all weights are whole
    numbers that sum to R per axis, so the mean is exact: no filter, no ringing, no rounding but the last.

    Args:
        rgb: R×R×3.
        size_px: S, at most R.

    Returns:
        S×S×3; the array itself where S = R.

    Raises:
        ValueError: The region is not square, or smaller than `size_px`: nothing is ever upsampled.
    """
    height, read_size_px, channels = rgb.shape
    if height != read_size_px or not 1 <= size_px <= read_size_px:
        raise ValueError(f"{read_size_px}×{height} px do not shrink to a square of {size_px}")
    if size_px == read_size_px:
        return rgb
    area = read_size_px * read_size_px
    wide = np.uint32 if 255 * area + area // 2 <= _MAX_UINT32 else np.uint64
    lines = _shrink_rows(rgb.reshape(read_size_px, -1), size_px, np.dtype(wide))
    # The same over columns, as rows of the transposed image.
    turned = np.ascontiguousarray(lines.reshape(size_px, read_size_px, channels).swapaxes(0, 1))
    sums = _shrink_rows(turned.reshape(read_size_px, -1), size_px, np.dtype(wide))
    sums += wide(area // 2)
    sums //= wide(area)
    shrunk = sums.astype(np.uint8).reshape(size_px, size_px, channels)
    return np.ascontiguousarray(shrunk.swapaxes(0, 1))


def _shrink_rows(
    rows: NDArray[np.unsignedinteger], size_px: int, wide: np.dtype[np.unsignedinteger]
) -> NDArray[np.unsignedinteger]:
    """Sums of R rows over S equal spans, in S-ths of a row: S rows, each R times a mean."""
    read_size_px = len(rows)
    # Running totals before each row; where they overflow they wrap around, and so do not matter in differences.
    totals = np.zeros((read_size_px + 1, rows.shape[1]), dtype=wide)
    np.cumsum(rows, axis=0, dtype=wide, out=totals[1:])
    edges = np.arange(size_px + 1, dtype=np.int64) * read_size_px
    whole, part = np.divmod(edges, size_px)
    # The last edge is the end of the last row: there is no part of a further row.
    following = rows[np.minimum(whole, read_size_px - 1)].astype(wide)
    at_edges = totals[whole] * wide.type(size_px) + following * part.astype(wide)[:, None]
    spans: NDArray[np.unsignedinteger] = at_edges[1:] - at_edges[:-1]
    return spans
