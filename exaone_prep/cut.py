"""Cut a slide: read its planned patches, measure, normalise, encode, and leave the bytes in the spool."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exaone_prep import stain
from exaone_prep.channel_sums import ChannelSums
from exaone_prep.codec import encode
from exaone_prep.errors import SlideProblemError
from exaone_prep.job import Tell
from exaone_prep.manifest import Manifest
from exaone_prep.pixels import PixelSource, open_patches
from exaone_prep.quality import QualityMeasures, measure, verdict
from exaone_prep.shards.sample import STAIN_STATUSES
from exaone_prep.slides import LevelChoice, UnreadableRegionError, open_slide
from exaone_prep.spool import Spool
from exaone_prep.stain_step import StainStep
from exaone_prep.survey import load_grid, method_at_work

DROP_REASONS: Final = ("unreadable", "white", "black", "pen", "blurred", "stain")


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
        pixels: Where the pixels of the level are taken from, likewise.
        fit: The slide's own stain, from the survey.
        pictures: File that the survey left; holds the planned positions, and the slide's fit by a stain method that is
            plugged in.
        spool: Receives the samples.
        stain_identity: The version that such a method must have; None: any.
        device: What normalises.
    """

    path: Path
    manifest: Manifest
    reference: stain.Reference
    choice: LevelChoice
    reader: str
    pixels: PixelSource
    fit: stain.StainFit
    pictures: Path
    spool: Path
    stain_identity: str | None = None
    device: stain.Device = "auto"

    def run(self, tell: Tell) -> SlideCut:
        """Do it.

        Raises:
            SlideProblemError: ("unreadable") over the allowed share of planned patches cannot be decoded.
            ManifestError, DatasetError, StainMethodDefectError: See `StainStep`.
        """
        method_at_work(self.pictures).unlink(missing_ok=True)
        self.spool.unlink(missing_ok=True)  # of a process that died at this slide
        positions, fractions = load_grid(self.pictures)
        level0 = np.rint(positions * self.choice.downsample).astype(np.int64)
        fractions = np.array([round(fraction, 4) for fraction in fractions.tolist()], dtype=np.float64)
        allowed = self.manifest.quality.max_unreadable * len(positions)
        dropped: Counter[str] = Counter(dict.fromkeys(DROP_REASONS, 0))
        statuses: Counter[str] = Counter(dict.fromkeys(STAIN_STATUSES, 0))
        sums = ChannelSums()
        step = StainStep(
            self.manifest,
            reference=self.reference,
            fit=self.fit,
            device=self.device,
            pictures=self.pictures,
            identity=self.stain_identity,
        )
        reader = open_slide(self.path, [r for r in self.manifest.readers if r == self.reader])
        try:
            with (
                open_patches(reader, self.path, self.choice, self.manifest.patch.size_px, self.pixels) as patches,
                Spool(self.spool, level0, fractions) as spool,
            ):
                order = patches.expect(positions)
                batch: list[tuple[int, NDArray[np.uint8], QualityMeasures]] = []
                for done, (number, (x, y)) in enumerate(zip(order.tolist(), positions[order].tolist(), strict=True)):
                    tell(done)
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
                    if len(batch) == step.patches_at_once:
                        self._finish(step, batch, spool, dropped, statuses, sums)
                        batch.clear()
                if batch:
                    self._finish(step, batch, spool, dropped, statuses, sums)
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
        step: StainStep,
        batch: list[tuple[int, NDArray[np.uint8], QualityMeasures]],
        spool: Spool,
        dropped: Counter[str],
        statuses: Counter[str],
        sums: ChannelSums,
    ) -> None:
        finished = step.finish([patch for _, patch, _ in batch])
        for (number, _, measures), (patch, status, counted) in zip(batch, finished, strict=True):
            if status is None:
                dropped["stain"] += 1
                continue
            statuses[status] += 1
            sums.add(patch.shape[0] * patch.shape[1], counted)
            spool.add(
                encode(patch, self.manifest.codec),
                (number, *measures, STAIN_STATUSES.index(status)),
            )
