"""Which level of a slide is read for patches of a requested size and mpp, and how it gets there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from exaone_prep.errors import SlideProblemError
from exaone_prep.slides.reader import Level

REDUCTIONS: Final = (1, 2, 4, 8)
"""Whole factors by which pixels are averaged without resampling."""

_ROUNDING: Final = 1e-9
"""So that 0.475 is within 5 % of 0.5 although binary fractions say otherwise."""


@dataclass(frozen=True, kw_only=True)
class LevelChoice:
    """How patches are read from one slide; requested and effective mpp are two things."""

    level: int
    level_mpp: float
    """µm per pixel of that level."""
    downsample: float
    """Level-0 pixels per pixel of that level."""
    reduction: int | None
    """The factor of a plain area mean (1: the level's own pixels), or None: area-resampled."""
    read_size_px: int
    """Side of the square that is read, in pixels of the level."""
    size_px: int
    """Side of the patch, in pixels."""
    requested_mpp: float
    effective_mpp: float
    """µm per pixel of the patch as it is."""
    footprint_px: float
    """Side of the patch in level-0 pixels."""


def choose_level(
    levels: Sequence[Level], mpp_um: float, *, target_mpp: float, size_px: int, tolerance: float
) -> LevelChoice:
    """Choose the coarsest addressable level that is not coarser than the target, and the way from it to the patch.

    Where a whole reduction by 1, 2, 4 or 8 comes within `tolerance` of the target, the nearest one is taken and
    nothing is resampled; otherwise a square of the target's extent, to the nearest whole pixel, is area-resampled.

    Args:
        levels: Levels of the slide, level 0 first.
        mpp_um: µm per pixel of level 0.
        target_mpp: Requested µm per pixel.
        size_px: Side of the patch.
        tolerance: Relative; 0.05 accepts 0.475-0.525 for a target of 0.5.

    Raises:
        SlideProblemError: ``too_coarse``: level 0 is coarser than the target; nothing is ever upsampled.
    """
    limit_mpp = target_mpp * (1 + tolerance + _ROUNDING)
    usable = [
        (level.downsample, index)
        for index, level in enumerate(levels)
        if (level.exact or index == 0) and mpp_um * level.downsample <= limit_mpp
    ]
    if not usable:
        raise SlideProblemError(
            "too_coarse",
            f"The finest level has {mpp_um:.6g} µm per pixel, coarser than the requested {target_mpp:.6g}: "
            "slides are never upsampled; ask for coarser patches or leave the slide out.",
        )
    # Of two levels of one size the first is taken.
    downsample, index = max(usable, key=lambda entry: (entry[0], -entry[1]))
    level_mpp = mpp_um * downsample
    reduction, read_size_px = _way(level_mpp / target_mpp, size_px, tolerance)
    return LevelChoice(
        level=index,
        level_mpp=level_mpp,
        downsample=downsample,
        reduction=reduction,
        read_size_px=read_size_px,
        size_px=size_px,
        requested_mpp=target_mpp,
        effective_mpp=level_mpp * read_size_px / size_px,
        footprint_px=downsample * read_size_px,
    )


def _way(relative_mpp: float, size_px: int, tolerance: float) -> tuple[int | None, int]:
    """The reduction (None: resampled) and the side to read, from level mpp / target mpp."""
    nearest = min(REDUCTIONS, key=lambda factor: abs(relative_mpp * factor - 1))
    if abs(relative_mpp * nearest - 1) <= tolerance + _ROUNDING:
        return nearest, size_px * nearest
    read_size_px = max(round(size_px / relative_mpp), size_px)
    # A whole factor after rounding needs no resampling either.
    factor, rest = divmod(read_size_px, size_px)
    return (factor if rest == 0 and factor in REDUCTIONS else None), read_size_px
