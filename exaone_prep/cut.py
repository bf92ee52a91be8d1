"""Cut a slide: read its planned patches, measure, normalise, encode, and leave the bytes in the spool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exaone_prep import stain
from exaone_prep.codec import encode
from exaone_prep.errors import SlideProblemError
from exaone_prep.manifest import Manifest
from exaone_prep.patches import PatchReader
from exaone_prep.quality import QualityMeasures, measure, verdict
from exaone_prep.shards.sample import STAIN_STATUSES, StainStatus
from exaone_prep.slides import LevelChoice, UnreadableRegionError, open_slide
from exaone_prep.spool import Spool
from exaone_prep.survey import load_grid
from exaone_prep.worker import Tell

BATCH: Final = 16
"""Patches normalised together: enough to pay for a call, few enough to stay in the cache."""

DROP_REASONS: Final = ("unreadable", "white", "black", "pen", "blurred", "stain")


@dataclass
class ChannelSums:
    """Integer sums over the pixels of kept patches, per channel; exact in any order."""

    pixels: int = 0
    sums: list[int] = field(default_factory=lambda: [0, 0, 0])
    squares: list[int] = field(default_factory=lambda: [0, 0, 0])

    def add(self, patch: NDArray[np.uint8]) -> None:
        """Count an H×W×3 patch in."""
        height_px, width_px, _ = patch.shape
        self.pixels += height_px * width_px
        # A square fits 16 bits, and 32 bits hold the sum of 66,052 of them: down the columns first, which is quick.
        values = patch.reshape(height_px, -1).astype(np.uint16)
        for totals, powers in ((self.sums, values), (self.squares, values * values)):
            columns = powers.sum(axis=0, dtype=np.uint32).reshape(-1, 3)
            for channel, total in enumerate(columns.sum(axis=0, dtype=np.uint64).tolist()):
                totals[channel] += total

    def merge(self, other: ChannelSums) -> None:
        """Add what another slide counted."""
        self.pixels += other.pixels
        for channel in range(3):
            self.sums[channel] += other.sums[channel]
            self.squares[channel] += other.squares[channel]


@dataclass(frozen=True, kw_only=True)
class SlideCut:
    """What came out of a slide.

    Attributes:
        kept: Samples in the spool.
        bytes: Their size.
        dropped: Count per reason of `DROP_REASONS`.
        statuses: Count of kept samples per stain status.
    """

    kept: int
    bytes: int
    dropped: dict[str, int]
    statuses: dict[str, int]
    sums: ChannelSums


@dataclass(frozen=True, kw_only=True)
class CutJob:
    """Cut one surveyed slide.

    Attributes:
        path: Where the slide lies on this machine.
        manifest: The settings.
        reference: The stain to normalise to.
        choice: Level and reduction, from the survey.
        reader: The reader that the survey chose.
        fit: The slide's own stain, from the survey.
        pictures: File that the survey left; holds the planned positions.
        spool: Receives the samples.
    """

    path: Path
    manifest: Manifest
    reference: stain.Reference
    choice: LevelChoice
    reader: str
    fit: stain.StainFit
    pictures: Path
    spool: Path

    def run(self, tell: Tell) -> SlideCut:
        """Do it.

        Raises:
            SlideProblemError: ("unreadable") over the allowed share of planned patches cannot be decoded.
        """
        positions, _ = load_grid(self.pictures)
        allowed = self.manifest.quality.max_unreadable * len(positions)
        dropped: Counter[str] = Counter(dict.fromkeys(DROP_REASONS, 0))
        statuses: Counter[str] = Counter(dict.fromkeys(STAIN_STATUSES, 0))
        sums = ChannelSums()
        reader = open_slide(self.path, [r for r in self.manifest.readers if r == self.reader])
        try:
            patches = PatchReader(reader, self.choice, self.manifest.patch.size_px)
            with Spool.create(self.spool) as spool:
                batch: list[tuple[int, NDArray[np.uint8], QualityMeasures]] = []
                for number in range(len(positions)):
                    x, y = (int(value) for value in positions[number])
                    tell(number)
                    try:
                        patch = patches.read(x, y)
                    except UnreadableRegionError as error:
                        dropped["unreadable"] += 1
                        if dropped["unreadable"] > allowed:
                            raise SlideProblemError(
                                "unreadable",
                                f"Over {self.manifest.quality.max_unreadable:.1%} of its {len(positions)} planned "
                                f"patches cannot be decoded; is the file whole? The last error: {error}",
                            ) from error
                        continue
                    measures = measure(patch)
                    judged = verdict(measures, self.manifest.quality)
                    if judged != "kept":
                        dropped[judged] += 1
                        continue
                    batch.append((number, patch, measures))
                    if len(batch) == BATCH:
                        self._finish(batch, spool, dropped, statuses, sums)
                        batch.clear()
                if batch:
                    self._finish(batch, spool, dropped, statuses, sums)
        finally:
            reader.close()
        return SlideCut(
            kept=sum(statuses.values()),
            bytes=self.spool.stat().st_size,
            dropped=dict(dropped),
            statuses=dict(statuses),
            sums=sums,
        )

    def _finish(
        self,
        batch: list[tuple[int, NDArray[np.uint8], QualityMeasures]],
        spool: Spool,
        dropped: Counter[str],
        statuses: Counter[str],
        sums: ChannelSums,
    ) -> None:
        for (number, _, measures), (patch, status) in zip(batch, self._normalised(batch), strict=True):
            if status is None:
                dropped["stain"] += 1
                continue
            statuses[status] += 1
            sums.add(patch)
            spool.add(
                encode(patch, self.manifest.codec),
                (
                    number,
                    measures.white,
                    measures.black,
                    measures.pen,
                    measures.sharpness,
                    STAIN_STATUSES.index(status),
                ),
            )

    def _normalised(
        self, batch: list[tuple[int, NDArray[np.uint8], QualityMeasures]]
    ) -> Iterator[tuple[NDArray[np.uint8], StainStatus | None]]:
        """Patches with their status, None for those to be dropped."""
        raw = [patch for _, patch, _ in batch]
        settings = self.manifest.stain
        if settings.method == "none":
            for patch in raw:
                yield patch, "none"
            return
        done = stain.normalize(
            np.stack(raw),
            fit="patch" if settings.fit == "patch" else self.fit,
            reference=self.reference,
            on_failure=settings.on_failure,
            slide_fit=self.fit,
        )
        for patch, status, dropped in zip(done.patches, done.status, done.dropped, strict=True):
            yield patch, None if dropped else status
