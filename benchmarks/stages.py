"""What the steps of the cut cost, measured inside it: each patch goes through all of them while it is in the cache."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from surveyed import Surveyed

from exaone_prep.channel_sums import ChannelSums
from exaone_prep.codec import encode
from exaone_prep.manifest import Manifest
from exaone_prep.pixels import PixelSource, open_patches
from exaone_prep.quality import measure, verdict
from exaone_prep.slides import open_slide
from exaone_prep.stain_step import StainStep

STEPS = ("read", "measure", "normalise", "encode")


@dataclass(frozen=True, kw_only=True)
class Steps:
    """CPU time per patch and step of `STEPS`, in ms, and some of the patches as they are kept."""

    ms: dict[str, float]
    finished: list[NDArray[np.uint8]]


def fitted(manifest: Manifest, fit: str) -> Manifest:
    """The settings with another `stain.fit`."""
    return manifest.model_copy(update={"stain": manifest.stain.model_copy(update={"fit": fit})})


def steps(slide: Surveyed, positions: NDArray[np.int64], *, fit: str = "slide", keep: int = 0) -> Steps:
    """Take patches through the steps of the cut, one patch at a time.

    Args:
        slide: Of these patches.
        positions: int64 (N, 2), planned ones.
        fit: ``slide`` or ``patch``.
        keep: How many finished patches to keep.
    """
    manifest = fitted(slide.manifest, fit)
    step = StainStep(
        manifest,
        reference=slide.dataset.reference,
        fit=slide.fit,
        device="cpu",
        pictures=slide.pictures,
        identity=None,
    )
    sums, clock = ChannelSums(), time.process_time_ns
    spent = np.zeros(len(STEPS), dtype=np.int64)
    finished: list[NDArray[np.uint8]] = []
    reader = open_slide(slide.path, manifest.readers)
    try:
        with open_patches(reader, slide.path, slide.choice, manifest.patch.size_px, slide.pixels) as patches:
            for x, y in positions[patches.expect(positions)].tolist():
                times = [clock()]
                patch = patches.read(x, y)
                times.append(clock())
                verdict(measure(patch), manifest.quality)
                times.append(clock())
                ((made, _, counted),) = step.finish([patch])
                sums.add(made.shape[0] * made.shape[1], counted)
                times.append(clock())
                encode(made, manifest.codec)
                times.append(clock())
                spent += np.diff(times)
                if len(finished) < keep:
                    finished.append(made.copy())
    finally:
        reader.close()
    per_patch = (spent / 1e6 / len(positions)).tolist()
    return Steps(ms=dict(zip(STEPS, per_patch, strict=True)), finished=finished)


def raw_patches(slide: Surveyed, positions: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
    """Patches as read, uint8 (size, size, 3)."""
    reader = open_slide(slide.path, slide.manifest.readers)
    try:
        with open_patches(reader, slide.path, slide.choice, slide.manifest.patch.size_px, slide.pixels) as patches:
            patches.expect(positions)
            return [patches.read(x, y) for x, y in positions.tolist()]
    finally:
        reader.close()


def read_ms(slide: Surveyed, positions: NDArray[np.int64], source: PixelSource) -> float:
    """CPU time per patch of reading alone, with new readers as in a build."""
    reader = open_slide(slide.path, slide.manifest.readers)
    try:
        with open_patches(reader, slide.path, slide.choice, slide.manifest.patch.size_px, source) as patches:
            order = patches.expect(positions)
            began = time.process_time_ns()
            for x, y in positions[order].tolist():
                patches.read(x, y)
            return (time.process_time_ns() - began) / 1e6 / len(positions)
    finally:
        reader.close()


def medians(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Medians of several measurements, step by step."""
    return {name: float(np.median([part[name] for part in parts])) for name in parts[0]}
