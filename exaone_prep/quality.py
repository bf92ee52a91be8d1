"""Cheap quality measures of a patch, taken before normalisation; `docs/quality.md` has the figures behind them."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from exaone_prep.compiled_patch import patch_kernels_compiled
from exaone_prep.manifest import Quality

Verdict = Literal["kept", "white", "black", "pen", "blurred"]
"""What becomes of a patch: kept, or the reason why it is dropped."""

DROP_REASONS: Final = tuple(verdict for verdict in get_args(Verdict) if verdict != "kept")

BLOCK_PX: Final = 8
"""Side of the squares whose mean colour is judged: about a nucleus at 0.5 µm/px, so that no single cell is ink."""

WHITE_MIN: Final = 215
"""Glass: every channel of a block is at least this bright ..."""

WHITE_MAX_CHROMA: Final = 24
"""... and the largest and smallest channel lie no further apart than this."""

DARK_MAX: Final = 60
"""Below this in every channel there is no light to tell a stain by: felt-tip, slide edge, areas painted black."""

# Stained tissue lets red through (eosin) or red and blue (haematoxylin), hardly ever more green than red.
_GREEN_OVER_RED: Final = 25
_BLUE_OVER_RED: Final = 70
_BLUE_GREEN_OVER_RED: Final = 10
_RED_OVER_REST: Final = 100
_BLACK_MAX_CHROMA: Final = 29
_BLACK_BLUE_OVER_RED: Final = 5  # black ink is neutral or brownish, a nucleus too dense to shine through is bluish

LIMITS: Final = np.array(
    [
        WHITE_MIN,
        WHITE_MAX_CHROMA,
        DARK_MAX,
        _GREEN_OVER_RED,
        _BLUE_OVER_RED,
        _BLUE_GREEN_OVER_RED,
        _RED_OVER_REST,
    ],
    dtype=np.int64,
)
"""What `patch_kernels.count_quality` judges by; black ink counts as darkness there."""


class QualityMeasures(NamedTuple):
    """What is measured on a patch.

    Attributes:
        white: Share of glass, 0 to 1.
        black: Share of darkness, 0 to 1.
        pen: Share of coloured ink, 0 to 1; disjoint from `black`, which black felt-tip counts as.
        sharpness: Modified Laplacian (Nayar and Nakagawa, Shape from focus, IEEE TPAMI 16(8), 1994) over gradient:
            absolute second over absolute first differences of green, along rows and columns, at half the patch's
            resolution; free of contrast and brightness. In focus about 1 to 1.5; 0 for a patch of one colour.
    """

    white: float
    black: float
    pen: float
    sharpness: float


def measure(patch: NDArray[np.uint8]) -> QualityMeasures:
    """Measure a patch, in integers up to one division each, so that every CPU finds the same.

    Args:
        patch: uint8 (H, W, 3), RGB as scanned, at least 8×8; rows and columns beyond a multiple of 8 are not judged.

    Raises:
        ValueError: The patch is not uint8 (H, W, 3) of at least 8×8.
    """
    height_px, width_px, channels = patch.shape if patch.ndim == 3 else (0, 0, 0)
    blocks = (height_px // BLOCK_PX) * (width_px // BLOCK_PX)
    if patch.dtype != np.uint8 or channels != 3 or not blocks:
        raise ValueError(f"a patch must be uint8 (H, W, 3) of at least 8×8, not {patch.dtype} {patch.shape}")
    counts = np.empty(5, dtype=np.int64)
    rows = np.ascontiguousarray(patch).reshape(height_px, 3 * width_px)
    patch_kernels_compiled().count_quality(rows, LIMITS, counts)
    white, black, pen, bend, slope = counts.tolist()
    return QualityMeasures(white / blocks, black / blocks, pen / blocks, bend / slope if slope else 0.0)


def verdict(measures: QualityMeasures, settings: Quality) -> Verdict:
    """Hold the measures of a patch against the limits; the first reason in the order white, black, pen, blurred."""
    if measures.white > settings.max_white:
        return "white"
    if measures.black > settings.max_black:
        return "black"
    if measures.pen > settings.max_pen:
        return "pen"
    if measures.sharpness < settings.min_sharpness:
        return "blurred"
    return "kept"


def pen_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell ink (green, cyan, blue, red, black felt-tip) from what haematoxylin and eosin can look like.

    A rule on colour alone, on the safe side: pale ink, the rim of a stroke, violet and pink ink pass as tissue; of
    tissue, only erythrocytes and muscle at their very reddest are taken for red ink (`docs/quality.md`).

    Args:
        pixels: uint8 (..., 3), RGB as scanned.

    Returns:
        bool (...), true for ink.
    """
    # A plane of int16 per channel: three strided copies cost less than arithmetic on strided views.
    red, green, blue = (np.ascontiguousarray(pixels[..., channel], dtype=np.int16) for channel in range(3))
    return _ink(red, green, blue)


def _ink(red: NDArray[np.int16], green: NDArray[np.int16], blue: NDArray[np.int16]) -> NDArray[np.bool_]:
    lightest, chroma = _lightest_and_chroma(red, green, blue)
    green_over_red, blue_over_red = green - red, blue - red
    ink: NDArray[np.bool_] = green_over_red >= _GREEN_OVER_RED
    ink |= (blue_over_red >= _BLUE_OVER_RED) & (green_over_red >= _BLUE_GREEN_OVER_RED)
    ink |= red - np.maximum(green, blue) >= _RED_OVER_REST
    ink |= (lightest < DARK_MAX) & (chroma <= _BLACK_MAX_CHROMA) & (blue_over_red <= _BLACK_BLUE_OVER_RED)
    return ink


def _lightest_and_chroma(
    red: NDArray[np.int16], green: NDArray[np.int16], blue: NDArray[np.int16]
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    lightest = np.maximum(np.maximum(red, green), blue)
    return lightest, lightest - np.minimum(np.minimum(red, green), blue)
