"""Sums from which mean and standard deviation of a data set's channels follow, exactly."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from exaone_prep.compiled_patch import patch_kernels_compiled


def count_channels(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Sums of red, green, blue, then of their squares, over uint8 (…, 3) pixels; int64 (6,)."""
    found = np.zeros(6, dtype=np.int64)
    width = pixels.shape[-2] if pixels.ndim > 2 else 1
    rows = np.ascontiguousarray(pixels).reshape(-1, 3 * width)
    patch_kernels_compiled().add_channels(rows, found)
    return found


@dataclass
class ChannelSums:
    """Integer sums over the pixels of kept patches, per channel; exact in any order.

    Attributes:
        pixels: How many.
        totals: int64 (6,), as `count_channels` gives them: enough for 2³⁰ patches.
    """

    pixels: int = 0
    totals: NDArray[np.int64] = field(default_factory=lambda: np.zeros(6, dtype=np.int64))

    @property
    def sums(self) -> list[int]:
        """Of red, green, blue."""
        return [int(total) for total in self.totals[:3]]

    @property
    def squares(self) -> list[int]:
        """Of red², green², blue²."""
        return [int(total) for total in self.totals[3:]]

    def add(self, pixels: int, counted: NDArray[np.int64]) -> None:
        """Count a patch in, by what `count_channels` gives of it."""
        self.pixels += pixels
        self.totals += counted

    def merge(self, other: ChannelSums) -> None:
        """Add what another slide counted."""
        self.add(other.pixels, other.totals)
