"""The grid of patches on a level, and how much tissue each of them covers."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

FRACTION_STEPS: Final = 2**20
"""Fractions are whole multiples of 1/2²⁰: full cover is exactly 1, whatever the rounding of a scale did."""


def patch_grid(
    *,
    level_width_px: int,
    level_height_px: int,
    bounds_px: tuple[int, int, int, int],
    read_size_px: int,
    stride_px: int,
) -> NDArray[np.int64]:
    """Lay a grid of squares over the scanned part of a level.

    A square that would cross the edge of the level or of the bounds is not cut: nothing is padded, nothing moved.

    Args:
        level_width_px: Width of the level.
        level_height_px: Height of the level.
        bounds_px: Scanned part as (x, y, width, height) in pixels of the level; the grid begins at its corner.
        read_size_px: Side of a square, in pixels of the level.
        stride_px: Step from square to square, in pixels of the level.

    Returns:
        int64 (N, 2): x and y of the top left corners, in pixels of the level, row after row.

    Raises:
        ValueError: `read_size_px` or `stride_px` is not positive.
    """
    if read_size_px < 1 or stride_px < 1:
        raise ValueError(f"a patch of {read_size_px} px every {stride_px} px is no grid")
    left, top, width, height = bounds_px
    xs = _starts(left, left + width, level_width_px, read_size_px, stride_px)
    ys = _starts(top, top + height, level_height_px, read_size_px, stride_px)
    return np.stack([np.tile(xs, len(ys)), np.repeat(ys, len(xs))], axis=1)


def _starts(first: int, end: int, level_px: int, size_px: int, stride_px: int) -> NDArray[np.int64]:
    # A corner before the level's edge moves onto it, as the scanned part does.
    first, end = max(first, 0), min(end, level_px)
    return np.arange(first, end - size_px + 1, stride_px, dtype=np.int64)


def tissue_fractions(
    mask: NDArray[np.bool_],
    positions: NDArray[np.int64],
    *,
    read_size_px: int,
    mask_px_per_level_px: float,
) -> NDArray[np.float64]:
    """Share of each square that lies on tissue, counting parts of mask pixels as parts.

    The mask is constant over each of its pixels, so its integral from the corner is bilinear between the entries of a
    summed-area table (Crow, SIGGRAPH 1984): four look-ups give the exact area. What lies beyond the mask is no tissue.

    Args:
        mask: bool (H, W), true on tissue; its top left corner is the level's.
        positions: int64 (N, 2), top left corners x, y in pixels of the level.
        read_size_px: Side of a square, in pixels of the level.
        mask_px_per_level_px: Scale: mask pixels per pixel of the level.

    Returns:
        float64 (N,) in [0, 1], rounded to multiples of 1/2²⁰.

    Raises:
        ValueError: The size or the scale is not positive.
    """
    if read_size_px < 1 or not mask_px_per_level_px > 0:
        raise ValueError(f"squares of {read_size_px} px at a scale of {mask_px_per_level_px} have no area")
    if mask.size == 0 or len(positions) == 0:
        return np.zeros(len(positions), dtype=np.float64)
    height, width = mask.shape
    table = np.zeros((height + 1, width + 1), dtype=np.int64)
    np.cumsum(mask, axis=0, dtype=np.int64, out=table[1:, 1:])
    np.cumsum(table[1:, 1:], axis=1, out=table[1:, 1:])

    left, x_left = _place(positions[:, 0], mask_px_per_level_px, width)
    right, x_right = _place(positions[:, 0] + read_size_px, mask_px_per_level_px, width)
    top, y_top = _place(positions[:, 1], mask_px_per_level_px, height)
    bottom, y_bottom = _place(positions[:, 1] + read_size_px, mask_px_per_level_px, height)
    area = _integral(table, bottom, y_bottom, right, x_right) - _integral(table, top, y_top, right, x_right)
    area -= _integral(table, bottom, y_bottom, left, x_left) - _integral(table, top, y_top, left, x_left)
    side = read_size_px * mask_px_per_level_px
    steps = np.rint(area / (side * side) * FRACTION_STEPS)
    fractions: NDArray[np.float64] = np.clip(steps, 0, FRACTION_STEPS) / FRACTION_STEPS
    return fractions


def _place(level_px: NDArray[np.int64], scale: float, length: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The mask pixel that a coordinate falls into, and how far into it, 0 to 1."""
    coordinate = np.clip(level_px * scale, 0, length)
    pixel = np.minimum(coordinate.astype(np.int64), length - 1)
    return pixel, coordinate - pixel


def _integral(
    table: NDArray[np.int64],
    row: NDArray[np.int64],
    down: NDArray[np.float64],
    column: NDArray[np.int64],
    across: NDArray[np.float64],
) -> NDArray[np.float64]:
    corner = table[row, column]
    along_row = table[row, column + 1] - corner
    along_column = table[row + 1, column] - corner
    both = table[row + 1, column + 1] - corner - along_row - along_column
    area: NDArray[np.float64] = corner + across * along_row + down * along_column + (down * across) * both
    return area
