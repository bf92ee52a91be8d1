"""What a slide is to everything else: levels, what the file says about itself, and regions of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from exaone_prep.errors import PrepError
from exaone_prep.manifest import Reader
from exaone_prep.slides.mpp import ClaimedMpp

WHITE = (255, 255, 255)


class UnreadableRegionError(PrepError):
    """A region of a slide cannot be decoded although its file can be read: damaged, not unreachable."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level of the pyramid."""

    width_px: int
    height_px: int
    downsample: float
    """Level-0 pixels per pixel of this level."""
    exact: bool
    """Whether every whole pixel of this level can be addressed, so that a read returns the level's own pixels."""


@dataclass(frozen=True, kw_only=True)
class SlideInfo:
    """What a slide says about itself, as far as it may be known (no labels, names, serial numbers or dates)."""

    reader: Reader
    vendor: str
    levels: tuple[Level, ...]
    claimed_mpp: tuple[ClaimedMpp, ...]
    """What the file says about µm per pixel, the most trusted first; empty where it says nothing."""
    objective_power: float | None
    bounds_px: tuple[int, int, int, int]
    """x, y, width and height of the scanned part in level-0 pixels, clipped to the slide."""
    background: tuple[int, int, int]
    """RGB under transparent (not scanned) pixels."""
    properties: dict[str, str]
    """Allow-listed properties only (`exaone_prep.slides.properties`)."""
    icc_sha256: str | None
    """Of the slide's ICC profile, which is not applied."""


class SlideReader(Protocol):
    """An open slide. Not for use by several threads at once."""

    @property
    def info(self) -> SlideInfo:
        """What the slide says about itself."""

    def read(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> NDArray[np.uint8]:
        """Pixels of one level as H×W×3 RGB; transparent pixels lie on the background colour.

        On a level that is not `Level.exact` the pixels are displaced by up to half a level-0 pixel and interpolated.

        Args:
            level: Index of the level.
            x_px: Left edge, in pixels of that level.
            y_px: Upper edge, in pixels of that level.
            width_px: Width, in pixels of that level.
            height_px: Height, in pixels of that level.

        Raises:
            ValueError: The region is empty or does not lie inside the level.
            UnreadableRegionError: The region cannot be decoded; the reader stays usable.
            UnreachableError: The file cannot be read.
        """

    def close(self) -> None:
        """Release the file; a closed reader opens it again when it is read."""


def check_region(levels: Sequence[Level], level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> None:
    """Refuse a region that does not lie inside its level, for which readers would make up pixels.

    Raises:
        ValueError: The level does not exist, or the region is empty or reaches outside it.
    """
    if not 0 <= level < len(levels):
        raise ValueError(f"there is no level {level}; the slide has {len(levels)}")
    width, height = levels[level].width_px, levels[level].height_px
    if width_px < 1 or height_px < 1:
        raise ValueError(f"a region of {width_px}×{height_px} px holds no pixels")
    if x_px < 0 or y_px < 0 or x_px + width_px > width or y_px + height_px > height:
        raise ValueError(
            f"the region {width_px}×{height_px} px at ({x_px}, {y_px}) reaches outside level {level} "
            f"of {width}×{height} px"
        )


def flatten(rgba: NDArray[np.uint8], background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Lay H×W×4 RGBA (colour not premultiplied) on a background: H×W×3 RGB, rounded to nearest, in integers."""
    alpha = rgba[..., 3:]
    if int(alpha.min(initial=255)) == 255:
        return np.ascontiguousarray(rgba[..., :3])
    weight = alpha.astype(np.uint16)
    # At most 255 × 255 + 127, which 16 bits hold.
    mixed = rgba[..., :3] * weight + np.array(background, dtype=np.uint16) * (255 - weight)
    return ((mixed + 127) // 255).astype(np.uint8)
