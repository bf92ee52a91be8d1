"""Sums from which mean and standard deviation of a data set's channels follow, exactly."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from exaone_prep.compiled_patch import patch_kernels_compiled


@dataclass
class ChannelSums:
    """Integer sums over the pixels of kept patches, per channel; exact in any order."""

    pixels: int = 0
    sums: list[int] = field(default_factory=lambda: [0, 0, 0])
    squares: list[int] = field(default_factory=lambda: [0, 0, 0])

    def add(self, patch: NDArray[np.uint8]) -> None:
        """Count an H×W×3 patch in."""
        height_px, width_px, _ = patch.shape
        found = np.zeros(6, dtype=np.int64)
        patch_kernels_compiled().add_channels(np.ascontiguousarray(patch).reshape(height_px, 3 * width_px), found)
        self.pixels += height_px * width_px
        for channel, total in enumerate(found.tolist()):
            totals = self.sums if channel < 3 else self.squares
            totals[channel % 3] += total

    def merge(self, other: ChannelSums) -> None:
        """Add what another slide counted."""
        self.pixels += other.pixels
        for channel in range(3):
            self.sums[channel] += other.sums[channel]
            self.squares[channel] += other.squares[channel]
